package main

import (
	"strings"
	"testing"
)

const spec = `{"configSchema":{"required":["address"],"properties":{
	"mode":{"order":2,"type":"string","enum":["","a|b","c"],"description":"Which a|b."},
	"address":{"order":1,"type":"string","description":"Where."},
	"advanced":{"order":3,"type":"object","properties":{"key":{"type":"string","secret":true,"description":"A key."},"rows":{"order":1,"type":"integer","default":7}}}}},
	"resourceConfigSchema":{"properties":{"columns":{"type":"array","items":{"type":"string"}}}}}`

func TestPage(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run([]string{"x"}, strings.NewReader(spec), &out); err != nil {
		t.Fatal(err)
	}
	want := "| `address` | string | **required** | Where. |\n" +
		"| `mode` | `a\\|b`, `c` |  | Which a\\|b. |\n" +
		"| `advanced.key` | string |  | A key. *Secret.* |\n" +
		"| `advanced.rows` | integer | `7` |  |\n"
	if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "| `columns` | list of strings |  |  |\n") {
		t.Errorf("got\n%s\nwant in it\n%s", out.String(), want)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "reading the spec", "{}": "no configSchema"} {
		if err := run([]string{"x"}, strings.NewReader(in), new(strings.Builder)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
	if err := run(nil, strings.NewReader(spec), new(strings.Builder)); err == nil {
		t.Error("no connector was named, and nothing was said")
	}
}
