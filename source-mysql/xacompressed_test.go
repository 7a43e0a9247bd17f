package main

import (
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// madeEvent is an event that ends at a place in the log's file; zero within another one.
func madeEvent(typ binlog.Type, end uint32, body []byte) []byte {
	b := append(make([]byte, 4, binlog.HeaderSize+len(body)), byte(typ), 1, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(binlog.HeaderSize+len(body)))
	b = binary.LittleEndian.AppendUint32(b, end)
	return append(append(b, 0, 0), body...)
}

// madeQuery is the body of a statement's event.
func madeQuery(sql string) []byte { return append(make([]byte, 14), sql...) }

// madeTable is the body of the description of table s.x, without columns.
func madeTable(number byte, name string) []byte {
	return append(append([]byte{number, 0, 0, 0, 0, 0, 0, 0, 1, 's', 0, byte(len(name))}, name...), 0, 0, 0)
}

// madePayload is the body of a transaction that was compressed as a whole.
func madePayload(t *testing.T, events ...[]byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(slices.Concat(events...), []byte{2, 1, 0, 0})
}

// arrived is a connection on which events of the log have arrived.
func arrived(events ...[]byte) *session {
	w := newWire(nil, maxEvent)
	w.buf = nil
	for i, e := range events {
		n := len(e) + 1
		w.buf = append(append(w.buf, byte(n), byte(n>>8), byte(n>>16), byte(i), 0), e...)
	}
	w.w = len(w.buf)
	return &session{wire: w}
}

// Prepared transactions that the server compressed are found in the log, and read from it again, as others are; rows of the
// transactions behind them are never taken for theirs (hard cases 36 and 52).
func TestCompressedPreparedTransactions(t *testing.T) {
	t.Parallel()
	d, err := newDriver(testEnv(t), config{Address: "db.example.com"})
	require.NoError(t, err)
	const xid = "x'61',x'',1"
	rows := func(number byte) []byte {
		return madeEvent(binlog.WriteRows, 0, []byte{number, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0})
	}
	tableA, tableB := madeEvent(binlog.TableMap, 0, madeTable(7, "a")), madeEvent(binlog.TableMap, 0, madeTable(8, "b"))
	inside := [][]byte{
		madeEvent(binlog.Query, 0, madeQuery("XA START X'61',X'',1")), tableA, rows(7), tableB, rows(8),
		madeEvent(binlog.Query, 0, madeQuery("XA END X'61',X'',1")), madeEvent(binlog.XAPrepare, 0, make([]byte, 10)),
	}
	begin := madeEvent(binlog.AnonymousGTID, 1000, make([]byte, 50))
	payload := madeEvent(binlog.TransactionPayload, 2000, madePayload(t, inside...))
	next := madeEvent(binlog.AnonymousGTID, 2069, make([]byte, 50))
	start := place{"binlog.000001", 1000 - uint64(len(begin))}

	// Found, as the log is searched.
	log := &stream{d: d, at: start, tables: map[cdc.TableID]*streamed{{Schema: "s", Name: "a"}: {}}, prepared: map[string]*prepared{}}
	log.s = arrived(begin, payload)
	var found *prepared
	for range 1 + 1 + len(inside) {
		event, err := log.read(t.Context(), log.opened)
		require.NoError(t, err)
		p, err := log.lookForPrepared(event)
		require.NoError(t, err)
		if p != nil {
			found = p
		}
	}
	require.Equal(t, &prepared{xid: xid, at: start, tables: map[uint64]bool{7: true, 8: false}, gone: true}, found)

	// Read again.
	again := func(events ...[]byte) *preparedEvents {
		return &preparedEvents{log: &stream{d: d, at: start, s: arrived(events...)}, of: &stream{}, tables: found.tables, at: start}
	}
	e := again(begin, payload, next)
	for _, want := range [][]byte{tableA, rows(7), endEvent} {
		event, err := e.next(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, event)
	}
	_, err = e.next(t.Context())
	require.ErrorIs(t, err, io.EOF)

	e = again(begin, next, payload)
	_, err = e.next(t.Context())
	require.ErrorIs(t, err, binlog.ErrFormat)
	require.ErrorContains(t, err, "does not end before the next one, at binlog.000001:2000")
}

// What began to be prepared and was not keeps no rows of the transactions behind it back.
func TestNotPrepared(t *testing.T) {
	t.Parallel()
	d, err := newDriver(testEnv(t), config{Address: "db.example.com"})
	require.NoError(t, err)
	begun := func(table string) *stream {
		s := &stream{d: d, at: place{"binlog.000001", 4}, tables: map[cdc.TableID]*streamed{{Schema: "s", Name: "a"}: {}}, mapped: map[uint64]*mapping{}}
		s.done.position = position{byFile: true}
		for _, event := range [][]byte{
			madeEvent(binlog.AnonymousGTID, 100, make([]byte, 50)), madeEvent(binlog.Query, 200, madeQuery("XA START X'61',X'',1")),
			madeEvent(binlog.TableMap, 300, madeTable(7, table)),
		} {
			require.NoError(t, s.handle(t.Context(), event))
		}
		return s
	}
	rollback := madeEvent(binlog.Query, 400, madeQuery("XA ROLLBACK X'61',X'',1"))
	s := begun("other")
	require.NoError(t, s.handle(t.Context(), rollback))
	require.Nil(t, s.preparing)
	require.Equal(t, place{"binlog.000001", 400}, s.done.place)
	require.ErrorContains(t, begun("a").handle(t.Context(), rollback), "A transaction that changed captured tables was rolled back in part, and the log has it (at binlog.000001:400): "+
		"it changed tables with other engines than InnoDB as well. Such transactions cannot be captured. Convert those tables (ALTER TABLE … ENGINE = InnoDB), or keep them apart from the captured ones, then backfill all tables.")
	require.ErrorIs(t, begun("other").handle(t.Context(), madeEvent(binlog.AnonymousGTID, 469, make([]byte, 50))), binlog.ErrFormat)
}
