package airbyte

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTimes(t *testing.T) {
	t.Parallel()
	times := timesOf([]byte(`{"properties":{"at":{"type":"string","format":"date-time"},"local":{"type":"string","format":"date-time","airbyte_type":"timestamp_without_timezone"},"day":{"type":"string","format":"date"}}}`))
	require.Equal(t, map[string]bool{"at": true}, times)
	for in, want := range map[string]string{
		`"2026-01-02T03:04:05"`:          `"2026-01-02T03:04:05Z"`,
		`"2026-01-02 03:04:05.123456"`:   `"2026-01-02T03:04:05.123456Z"`,
		`"2026-01-02T03:04:05+0130"`:     `"2026-01-02T03:04:05+01:30"`,
		`"2026-01-02T03:04:05-08"`:       `"2026-01-02T03:04:05-08:00"`,
		`"2026-01-02 03:04:05+00:00"`:    `"2026-01-02T03:04:05+00:00"`,
		`"2026-01-02T03:04:05Z"`:         `"2026-01-02T03:04:05Z"`,
		`"2026-01-02T03:04:05.5+01:00"`:  `"2026-01-02T03:04:05.5+01:00"`,
		`"2026-01-02"`:                   `"2026-01-02"`,
		`"some day in the near future "`: `"some day in the near future "`,
		`null`:                           `null`,
		`17`:                             `17`,
		`""`:                             `""`,
	} {
		require.Equal(t, `x{"a":1, "at": `+want+` ,"local":"2026-01-02T03:04:05"}`, string(appendZoned([]byte("x"), []byte(`{"a":1, "at": `+in+` ,"local":"2026-01-02T03:04:05"}`), times)))
	}
	doc := []byte(`{"at":"2026-01-02T03:04:05","b":[{"at":"2026-01-02T03:04:05"}],"at":"2026-01-02 03:04:05"}trailing`)
	require.Equal(t, `{"at":"2026-01-02T03:04:05Z","b":[{"at":"2026-01-02T03:04:05"}],"at":"2026-01-02T03:04:05Z"}`, string(appendZoned(nil, doc[:len(doc)-8], times)))
}
