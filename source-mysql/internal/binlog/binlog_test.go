package binlog_test

import (
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// Nothing that a server could send makes a parser panic, or read beyond what is there.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x01\x00\x01s\x00\x01t\x00\x02\x03\x0f\x02\x14\x00\x02\x04\x05\x02iv"), []byte("\x00\x01\x00\x00\x00\x03abc"))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, table, rows []byte) {
		_, _ = binlog.ParseHeader(table)
		_, _ = binlog.ParseQuery(table, len(rows)%2 == 0)
		_, _, _ = binlog.ParseRotate(table)
		_, _, _ = binlog.ParseHeartbeatV2(table)
		_, _ = binlog.ParseGTID(table)
		_, _ = binlog.ParseTaggedGTID(table)
		_, _ = binlog.ParseMariaGTID(table, 1)
		_, _ = binlog.HasChecksums(table)
		_, _ = binlog.StripChecksum(table)
		_, _ = binlog.Decompress(table)
		if p, err := binlog.OpenPayload(table); err == nil {
			_, _ = p.Next()
			p.Close()
		}
		for _, mariadb := range []bool{false, true} {
			m, err := binlog.ParseTable(table, mariadb)
			if err != nil {
				continue
			}
			for _, typ := range []binlog.Type{binlog.UpdateRows, binlog.PartialUpdateRows, binlog.WriteRowsV1, binlog.DeleteRowsCompressed} {
				walk(t, m, typ, rows, (*binlog.Rows).Next)
				walk(t, m, typ, rows, (*binlog.Rows).NextPart)
			}
		}
	})
}

// walk reads all rows of an event.
func walk(t *testing.T, m *binlog.Table, typ binlog.Type, body []byte, next func(*binlog.Rows, *binlog.Table, [][]byte) ([][]byte, error)) {
	t.Helper()
	r, err := binlog.ParseRows(typ, body)
	if err != nil {
		return
	}
	for r.More() {
		vals, err := next(&r, m, nil)
		if err != nil {
			return
		}
		require.Len(t, vals, len(m.Columns))
		if len(m.Columns) == 0 {
			return // rows of nothing never end
		}
	}
}

// Rows of which columns are missing.
func TestNextPart(t *testing.T) {
	t.Parallel()
	m, err := binlog.ParseTable([]byte("\x01\x00\x00\x00\x00\x00\x01\x00\x01s\x00\x01t\x00\x03\x01\x01\x01\x00\x06"), false)
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, true}, []bool{m.Columns[0].Nullable, m.Columns[1].Nullable, m.Columns[2].Nullable})
	// The old row has the first column, the new one the second and the third, which is null.
	r, err := binlog.ParseRows(binlog.UpdateRowsV1, []byte("\x01\x00\x00\x00\x00\x00\x01\x00\x03\x01\x06\x00\x07\x02\x09"))
	require.NoError(t, err)
	require.False(t, r.Whole())
	old, err := r.NextPart(m, nil)
	require.NoError(t, err)
	now, err := r.NextPart(m, nil)
	require.NoError(t, err)
	require.False(t, r.More())
	require.Equal(t, []byte{7}, old[0])
	require.Equal(t, []bool{false, true, true}, []bool{binlog.IsAbsent(old[0]), binlog.IsAbsent(old[1]), binlog.IsAbsent(old[2])})
	require.True(t, binlog.IsAbsent(now[0]))
	require.Equal(t, []byte{9}, now[1])
	require.Nil(t, now[2])
	_, err = r.NextPart(m, nil)
	require.ErrorIs(t, err, binlog.ErrFormat)
}

// A compressed transaction that claims a huge event does not get the memory for it, and what it lacks is not taken for its end.
func TestHostilePayload(t *testing.T) {
	t.Parallel()
	event := make([]byte, binlog.HeaderSize)
	binary.LittleEndian.PutUint32(event[9:], 1<<30)
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	for _, c := range []struct {
		size uint32
		want string
	}{{1 << 30, "ends early"}, {1<<30 + 1, "an event of 1073741825 bytes"}, {3, "an event of 3 bytes"}} {
		binary.LittleEndian.PutUint32(event[9:], c.size)
		p, err := binlog.OpenPayload(append([]byte{2, 1, 0, 0}, enc.EncodeAll(event, nil)...))
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = p.Next()
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, binlog.ErrFormat)
		require.ErrorContains(t, err, c.want)
		require.NotErrorIs(t, err, io.EOF)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
		p.Close()
	}
	for n := range binlog.HeaderSize {
		p, err := binlog.OpenPayload(append([]byte{2, 1, 0, 0}, enc.EncodeAll(event[:n], nil)...))
		require.NoError(t, err)
		_, err = p.Next()
		require.Equal(t, n == 0, errors.Is(err, io.EOF), "%d bytes", n)
		require.Equal(t, n > 0, errors.Is(err, binlog.ErrFormat), "%d bytes", n)
		p.Close()
	}
}

func TestHostileSizes(t *testing.T) {
	t.Parallel()
	_, err := binlog.Decompress([]byte{0x84, 0xff, 0xff, 0xff, 0xff, 1})
	require.ErrorIs(t, err, binlog.ErrFormat)
	_, err = binlog.ParseTable([]byte("\x01\x00\x00\x00\x00\x00\x01\x00\x01s\x00\x01t\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff"), false)
	require.ErrorIs(t, err, binlog.ErrFormat)
	for _, meta := range []string{"\xf6\x02\xff\x00\x00", "\xf6\x02\x0a\x0b\x00", "\x12\x01\x07\x00"} { // decimal(255,0), decimal(10,11), datetime(7)
		_, err = binlog.ParseTable([]byte("\x01\x00\x00\x00\x00\x00\x01\x00\x01s\x00\x01t\x00\x01"+meta), false)
		require.ErrorIs(t, err, binlog.ErrFormat, "%x", meta)
	}
	event := append(make([]byte, binlog.HeaderSize), "body\x00\x00\x00\x00"...)
	_, err = binlog.StripChecksum(event)
	require.ErrorIs(t, err, binlog.ErrChecksum)
}
