package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"1B": 1, "50GB": 50e9, "1.5 GiB": 3 << 29, "10kB": 1e4, "10KB": 1e4, "2TB": 2e12} {
		got, err := ParseSize(text)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "50", "GB", "0GB", "-1GB", "NaNGB", "9e99TB", "5 apples"} {
		_, err := ParseSize(text)
		require.ErrorIs(t, err, errSize, text)
	}
}
