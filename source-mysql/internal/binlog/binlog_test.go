package binlog_test

import (
	"testing"

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
		if p, err := binlog.OpenPayload(table); err == nil {
			_, _ = p.Next()
			p.Close()
		}
		m, err := binlog.ParseTable(table, false)
		if err != nil {
			return
		}
		r, err := binlog.ParseRows(binlog.UpdateRows, rows)
		if err != nil {
			return
		}
		for r.More() {
			vals, err := r.Next(m, nil)
			if err != nil {
				break
			}
			require.Len(t, vals, len(m.Columns))
			if len(m.Columns) == 0 {
				break // rows of nothing never end
			}
		}
	})
}

func TestHostileSizes(t *testing.T) {
	t.Parallel()
	_, err := binlog.Decompress([]byte{0x84, 0xff, 0xff, 0xff, 0xff, 1})
	require.ErrorIs(t, err, binlog.ErrFormat)
	_, err = binlog.ParseTable([]byte("\x01\x00\x00\x00\x00\x00\x01\x00\x01s\x00\x01t\x00\xfe\xff\xff\xff\xff\xff\xff\xff\xff"), false)
	require.ErrorIs(t, err, binlog.ErrFormat)
	event := append(make([]byte, binlog.HeaderSize), "body\x00\x00\x00\x00"...)
	_, err = binlog.StripChecksum(event)
	require.ErrorIs(t, err, binlog.ErrChecksum)
}
