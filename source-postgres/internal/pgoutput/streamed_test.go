package pgoutput

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	streamStart   = "53 000002ee 01"
	streamAgain   = "53 000002ee 00"
	streamCommit  = "63 000002ee 00 000000003d6c7560 000000003d6c7590 000303c500c4a7a4"
	streamAbort   = "41 000002ee 000002ef"
	streamInsert  = "49 000002ef 00004023 4e 0003 74 00000001 31 74 00000001 78 6e"
	streamedTable = "52 000002ef 00004023 7075626c696300 7400 64 0003 01 696400 00000014 ffffffff 00 6100 00000019 ffffffff 00 62696700 00000019 ffffffff"
)

func TestParseStreamed(t *testing.T) {
	t.Parallel()
	start, err := ParseStreamStart(message(t, streamStart))
	require.NoError(t, err)
	require.Equal(t, StreamStart{Xid: 750, First: true}, start)
	start, err = ParseStreamStart(message(t, streamAgain))
	require.NoError(t, err)
	require.Equal(t, StreamStart{Xid: 750}, start)
	c, err := ParseStreamCommit(message(t, streamCommit))
	require.NoError(t, err)
	require.Equal(t, StreamCommit{Xid: 750, Commit: Commit{LSN: 0x3d6c7560, EndLSN: 0x3d6c7590, CommitTime: 0x303c500c4a7a4}}, c)
	a, err := ParseStreamAbort(message(t, streamAbort))
	require.NoError(t, err)
	require.Equal(t, StreamAbort{Xid: 750, Subxid: 751}, a)

	for streamed, plain := range map[string]string{streamInsert: insert, streamedTable: relation} {
		xid, m, err := TakeXid(message(t, streamed))
		require.NoError(t, err)
		require.EqualValues(t, 751, xid)
		require.Equal(t, message(t, plain), m)
	}
}

func TestTruncatedStreamedMessages(t *testing.T) {
	t.Parallel()
	for _, text := range []string{streamStart, streamCommit, streamAbort, streamInsert, streamedTable} {
		m := message(t, text)
		for n := 1; n < len(m); n++ {
			require.Error(t, parseStreamed(bytes.Clone(m[:n])), "%x", m[:n])
		}
		require.NoError(t, parseStreamed(m))
	}
}

func parseStreamed(m []byte) error {
	var err error
	switch Kind(m[0]) {
	case KindStreamStart:
		_, err = ParseStreamStart(m)
	case KindStreamCommit:
		_, err = ParseStreamCommit(m)
	case KindStreamAbort:
		_, err = ParseStreamAbort(m)
	default:
		var plain []byte
		if _, plain, err = TakeXid(m); err == nil {
			err = parseAny(plain)
		}
	}
	return err
}

// Whatever the bytes are: no panic, and a message without its identifier is what it is with it, to the byte.
func FuzzParseStreamed(f *testing.F) {
	for _, text := range []string{streamStart, streamAgain, streamCommit, streamAbort, streamInsert, streamedTable} {
		f.Add(message(f, text))
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) == 0 {
			return
		}
		_ = parseStreamed(bytes.Clone(m))
		was := hex.EncodeToString(m)
		xid, plain, err := TakeXid(m)
		if err != nil {
			require.Less(t, len(was), 10)
			return
		}
		require.Equal(t, was[:2]+was[10:], hex.EncodeToString(plain))
		require.Equal(t, was[2:10], hex.EncodeToString([]byte{byte(xid >> 24), byte(xid >> 16), byte(xid >> 8), byte(xid)}))
	})
}
