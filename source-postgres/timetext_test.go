package main

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBinaryTimesAreRFC3339 compares the binary forms' encoders with Go's own notation, which also leaves zeros away.
func TestBinaryTimesAreRFC3339(t *testing.T) {
	t.Parallel()
	epoch := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	units := []time.Duration{time.Microsecond, 100 * time.Microsecond, 10 * time.Millisecond, time.Second, time.Hour}
	for i := range 20_000 {
		day := firstDay + random.IntN(lastDay-firstDay+1)
		at := epoch.AddDate(0, 0, day)
		got, err := appendDate(nil, binary.BigEndian.AppendUint32(nil, uint32(int32(day)))) //nolint:gosec // dates have 32 bits
		require.NoError(t, err)
		require.Equal(t, at.Format(`"2006-01-02"`), string(got))

		at = at.Add(time.Duration(random.Int64N(microsPerDay)) * time.Microsecond).Truncate(units[i%len(units)])
		got, err = appendTimestamp(nil, binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro()-epoch.UnixMicro())))
		require.NoError(t, err)
		require.Equal(t, at.Format(`"2006-01-02T15:04:05.999999Z"`), string(got))
	}
}
