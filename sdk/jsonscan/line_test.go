package jsonscan

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAppendLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"a": 1}`:             `{"a": 1}`,
		"{\"a\":\n\t1 ,\r\n}":  `{"a":1,}`,
		"[\n\"a b\\n\"]":       `["a b\n"]`,
		`"\ud83d\ude00"`:       `"\ud83d\ude00"`,
		`"\uD83D\uDE00"`:       `"\uD83D\uDE00"`,
		`"x\ud83d"`:            `"x\ufffd"`,
		`"\ude00\ud83d"`:       `"\ufffd\ufffd"`,
		`"\ud83d\ud83d\ude00"`: `"\ufffd\ud83d\ude00"`,
		`"\\ud83d"`:            `"\\ud83d"`,
		`"\ud7ff\ue000\"\\"`:   `"\ud7ff\ue000\"\\"`,
	} {
		require.Equal(t, want, string(AppendLine(nil, []byte(text))), text)
	}
}

func FuzzAppendLine(f *testing.F) {
	for _, text := range []string{"{\n\"a\": [1, \"\\ud83d\"]}", `"\ud83d\ude00"`, "\"\\\\\"\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		var want, got any
		require.NoError(t, json.Unmarshal(text, &want))
		out := AppendLine([]byte("x"), text)
		require.Equal(t, byte('x'), out[0])
		require.NotContains(t, string(out), "\n")
		require.NoError(t, json.Unmarshal(out[1:], &got))
		require.Equal(t, want, got, "%q became %q", text, out)
	})
}
