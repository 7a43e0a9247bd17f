package process

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzToJSON(f *testing.F) {
	for _, text := range []string{"a: 1", `{"a": [1, "x"]}`, "a: &x [1]\nb: *x", "? [x]\n: y", "- !!binary AQI=\n- 0x1F\n- 1_000\n- .inf\n- 2024-01-01"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if out, err := toJSON(text); err == nil {
			require.True(t, json.Valid(out), "%q gave %q", text, out)
		}
	})
}
