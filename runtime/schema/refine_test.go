package schema

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What is learned fills what the schema leaves open, and never changes what it says.
func TestRefine(t *testing.T) {
	t.Parallel()
	parse := func(text string) *Shape {
		if text == "" {
			return nil
		}
		s, err := Parse([]byte(text))
		require.NoError(t, err)
		return s
	}
	for _, c := range []struct{ name, written, sourced, learned, want string }{
		{
			"no annotation", `{"type":"object","properties":{"a":{"type":"string"}}}`, "", `{"type":"object","properties":{"b":{"type":"integer"}}}`,
			`{"type":["object"],"properties":{"a":{"type":["string"]}}}`,
		},
		{
			"members", `{"type":"object","x-infer-schema":true,"required":["a"],"properties":{"a":{"type":"string"},"free":{},"asked":{"x-infer-schema":true,"description":"d"},"unseen":{"x-infer-schema":true}}}`, "",
			`{"type":"object","properties":{"a":{"type":"integer"},"free":{"type":"integer"},"asked":{"type":"integer"},"b":{"type":"integer"}}}`,
			`{"type":["object"],"required":["a"],"properties":{"a":{"type":["string"]},"free":{},"asked":{"type":["integer"],"description":"d"},"b":{"type":["integer"]}}}`,
		},
		{"nothing learned", `{"type":"object","x-infer-schema":true,"properties":{"a":{"x-infer-schema":true}}}`, "", "", `{"type":["object"]}`},
		{
			"announced", `{"type":"object","x-infer-schema":true,"properties":{"a":{"type":"string"}}}`,
			`{"type":"object","additionalProperties":false,"required":["a"],"properties":{"a":{"type":["string","null"]},"n":{"type":"integer"},"d":{"type":"string","format":"date"}}}`,
			`{"type":"object","properties":{"n":{"type":"integer","maximum":9e37,"minimum":-9e37},"d":{"type":"string"}}}`,
			`{"type":["object"],"properties":{"a":{"type":["null","string"]},"n":{"type":["integer"],"maximum":9e37,"minimum":-9e37},"d":{"type":["string"]}}}`,
		},
		{
			"only announced", `{"type":"object","x-infer-schema":true}`, `{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}`, "",
			`{"type":["object"],"properties":{"n":{"type":["integer"]}}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.JSONEq(t, c.want, string(Refine(parse(c.written), parse(c.sourced), parse(c.learned)).JSON()))
		})
	}
}
