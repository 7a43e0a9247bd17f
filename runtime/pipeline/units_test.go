package pipeline

import (
	"os"
	"path/filepath"
	"testing"
	"time"

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

func TestRetentionOfTheLog(t *testing.T) {
	t.Parallel()
	load := func(rule string) (*Pipeline, error) {
		file := filepath.Join(t.TempDir(), "p.yaml")
		require.NoError(t, os.WriteFile(file, []byte("log:\n  retention: "+rule+"\ncaptures:\n  a:\n    endpoint: {local: {command: [cat]}}\n    bindings: [{resource: {}, target: c}]\ncollections:\n  c: {key: [/id], schema: {}}\n"), 0o600))
		p, err := Load(file, Options{})
		return p, err
	}
	p, err := load("{time: 7d, size: 50GB, unread: drop}")
	require.NoError(t, err)
	require.Equal(t, Retention{Time: 7 * 24 * time.Hour, Bytes: 50e9, DropUnread: true}, p.Retention)
	for rule, want := range map[string]string{
		"{time: 7 days}":             `p.yaml:2: time of retention is "7 days": it must be a duration such as 90m, 12h or 7d`,
		"{size: many}":               `p.yaml:2: size of retention is "many": it must be a size such as 500MB, 50GB or 1TB`,
		"{unread: hold}":             "p.yaml:2: retention needs a time (such as 7d), a size (such as 50GB), or both",
		"{time: 7d, unread: ignore}": `p.yaml:2: unread is "ignore": it must be hold (keep what a materialization has not read, whatever the limits say) or drop`,
		"{tme: 7d}":                  `p.yaml:2: unknown field "tme" in retention`,
	} {
		_, err := load(rule)
		require.ErrorContains(t, err, want)
	}
}
