package rawjson_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/internal/rawjson"
)

func texts() []string {
	return []string{
		``, ` `, `{}`, `[]`, ` [ 1 , 2 ] `, `{"a":1,"b":[true,false,null]}`, `{"a":{"a":{"a":"\u12aF\n\"\\\/"}}}`, `-0`, `0.5e-7`, `1E+2`,
		`01`, `-`, `1.`, `.5`, `1e`, `+1`, `1e+`, `"`, `"\`, `"\x"`, `"\u12g4"`, `"\u12`, "\"\n\"", "\"\x00\"", "\"\xff\"", `tru`, `nulll`, `null`, `[1,]`, `[,1]`, `[1 2]`,
		`{"a"}`, `{"a":}`, `{a:1}`, `{"a":1,}`, `{,}`, `{"a":1 "b":2}`, `}`, `]`, `[`, `{`, `{"a":1}x`, "\xef\xbb\xbf{}", "[1,\r\n\t2]", "{\"a b\" : \"c  d\",\n\"e\":[ ]}",
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000), strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
		strings.Repeat("[", 10000) + "1" + strings.Repeat("]", 10000),
	}
}

// checkText compares everything that can be said of a text with encoding/json.
func checkText(t *testing.T, text []byte) {
	t.Helper()
	valid := json.Valid(text)
	require.Equal(t, valid, rawjson.Check(text) == nil, "%q", text)

	line := rawjson.AppendLine([]byte("before"), text)
	require.NotContains(t, string(line[6:]), "\n")
	require.NotContains(t, string(line[6:]), "\r")
	require.Equal(t, line, rawjson.FixLine(append([]byte("before"), text...), 6))
	if !valid {
		return
	}
	var want, got bytes.Buffer
	require.NoError(t, json.Compact(&want, text))
	require.NoError(t, json.Compact(&got, line[6:]))
	require.Equal(t, want.String(), got.String())
	if bytes.ContainsAny(text, "\n\r") {
		require.Equal(t, want.String(), string(line[6:]))
	} else {
		require.Equal(t, text, line[6:])
	}
	s := rawjson.NewScanner(text)
	value, err := s.Value()
	require.NoError(t, err)
	require.Equal(t, strings.Trim(string(text), " \t\r\n"), string(value))
	require.NoError(t, s.End())
	checkString(t, value)
}

func checkString(t *testing.T, value []byte) {
	t.Helper()
	got, err := rawjson.Unquote(value)
	if value[0] != '"' {
		require.Error(t, err)
		return
	}
	if err != nil {
		require.False(t, utf8.Valid(value))
		return
	}
	var want string
	require.NoError(t, json.Unmarshal(value, &want))
	require.Equal(t, want, got)
	back, err := rawjson.AppendString(nil, got)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(back, &want))
	require.Equal(t, got, want)
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for _, text := range texts() {
		checkText(t, []byte(text))
	}
}

func FuzzTexts(f *testing.F) {
	for _, text := range texts() {
		if len(text) < 1000 {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(checkText)
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a":1,"b" 2}`: `invalid JSON at byte 11: expected ':' after a key, found '2'`,
		`[1;2]`:         `invalid JSON at byte 2: expected ',' or ']' after an array's element, found ';'`,
		`{"a`:           `invalid JSON at byte 3: a string without its closing quote, found the end of the text`,
		`"\`:            `invalid JSON at byte 2: a string without its closing quote, found the end of the text`,
		`"\q"`:          `invalid JSON at byte 2: unknown escape in a string, found 'q'`,
		`"\u00z0"`:      `invalid JSON at byte 5: expected four hexadecimal digits after \u, found 'z'`,
		"\"\t\"":        `invalid JSON at byte 1: control character in a string, found '\t'`,
		`-x`:            `invalid JSON at byte 1: expected a digit, found 'x'`,
	} {
		require.EqualError(t, rawjson.Check([]byte(text)), want)
	}
}

func TestScannerDoesNotAllocate(t *testing.T) {
	text := []byte(`{"id":12345,"name":"some text","nested":{"list":[1,2.5,true,null]}}`)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		if rawjson.Check(text) != nil {
			panic("valid text")
		}
	}))
}

func BenchmarkCheck(b *testing.B) {
	text := []byte(`{"id":12345,"name":"` + strings.Repeat("some text ", 20) + `","at":"2026-02-01T00:00:00Z","nested":{"list":[1,2.5,true,null]},"_meta":{"op":"c"}}`)
	b.Run("scanner", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			_ = rawjson.Check(text)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			_ = json.Valid(text)
		}
	})
}
