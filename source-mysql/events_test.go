package main

import (
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// Events that say that changes are missing, or that are not known, end the stream; only those that the server says may be passed over
// are (hard case 50).
func TestRareEvents(t *testing.T) {
	t.Parallel()
	d, err := newDriver(testEnv(t), config{Address: "db.example.com"})
	require.NoError(t, err)
	for _, c := range []struct {
		typ   binlog.Type
		flags uint16
		want  string
		lost  bool
	}{
		{binlog.Incident, 0, "The server says that its binary log lacks changes (INCIDENT_EVENT at ", true},
		{170, 0, "The log has an event of type 170 at binlog.000001:4, which is not known here, so nothing behind it can be captured safely.", false},
		{170, 0x80, "", false},
		{binlog.RowsQuery, 0, "", false},
	} {
		s := &stream{d: d, at: place{"binlog.000001", 4}}
		event := make([]byte, binlog.HeaderSize)
		event[4] = byte(c.typ)
		binary.LittleEndian.PutUint32(event[13:], 100)
		binary.LittleEndian.PutUint16(event[17:], c.flags)
		err := s.handle(t.Context(), event)
		if c.want == "" {
			require.NoError(t, err)
			require.Equal(t, place{"binlog.000001", 100}, s.at)
			continue
		}
		require.ErrorContains(t, err, c.want)
		require.Equal(t, c.lost, errors.Is(err, cdc.ErrPositionLost), "%v", err)
	}
}

// An error that comes after some rows is not the end of the rows (hard case 53).
func TestErrorAmongRows(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	defer ours.Close()
	answered := make(chan error, 1)
	go func() {
		defer theirs.Close()
		if _, err := theirs.Read(make([]byte, 1024)); err != nil {
			answered <- err
			return
		}
		column := append([]byte{3, 'd', 'e', 'f', 0, 0, 0, 1, 'a', 0, 12}, make([]byte, 12)...)
		var out []byte
		for i, payload := range [][]byte{{1}, column, {0xfe, 0, 0, 2, 0}, {1, '1'}, {1, '2'}, append([]byte{0xff, 0x25, 0x05, '#'}, "70100Query execution was interrupted"...)} {
			out = append(append(out, byte(len(payload)), 0, 0, byte(i+1)), payload...)
		}
		_, err := theirs.Write(out)
		answered <- err
	}()
	s := &session{wire: newWire(ours, 1<<20)}
	rows := 0
	err := s.query(t.Context(), "SELECT a FROM t", nil, func([][]byte) error {
		rows++
		return nil
	})
	require.NoError(t, <-answered)
	require.Equal(t, 2, rows)
	require.ErrorContains(t, err, "Query execution was interrupted")
	require.Equal(t, uint16(errInterrupted), code(err))
}

// A table that loses a column of its key is as one that is gone; others go on.
func TestKeyLosesColumn(t *testing.T) {
	t.Parallel()
	d, err := newDriver(testEnv(t), config{Address: "db.example.com"})
	require.NoError(t, err)
	id := cdc.TableID{Schema: "s", Name: "a"}
	one := &streamed{id: id, table: &cdc.Table{ID: id, Key: []string{"id", "part"}, Columns: []cdc.Column{{Name: "id", Type: "int"}, {Name: "part", Type: "int"}}}}
	s := &stream{d: d, at: place{"binlog.000001", 4}, tables: map[cdc.TableID]*streamed{id: one}, mapped: map[uint64]*mapping{}}
	s.txn = transaction{open: true, id: "t"}
	m := &mapping{table: one, log: &binlog.Table{Named: true, Columns: []binlog.Column{{Name: "id", Type: binlog.TypeLong}}}}
	require.NoError(t, s.describedAs(m, nil))
	require.True(t, s.txn.touched)
	require.Len(t, s.queue, 1)
	require.Equal(t, cdc.Drop, s.queue[0].Op)
	require.EqualError(t, s.queue[0].Err, "The table s.a lost a column of its key (id, part). Backfill it again into a new collection.")
	s.mapped[7] = m
	require.NoError(t, s.rowsEvent(binlog.WriteRows, []byte{7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 1, 0, 9, 0, 0, 0}))
	require.False(t, s.rows.More(), "its rows are passed over")
}

// Descriptions of tables are not kept for ever, whatever numbers the server gives them.
func TestMappingsAreBounded(t *testing.T) {
	t.Parallel()
	d, err := newDriver(testEnv(t), config{Address: "db.example.com"})
	require.NoError(t, err)
	s := &stream{d: d, at: place{"binlog.000001", 4}, mapped: map[uint64]*mapping{}}
	s.done.position = position{byFile: true}
	for i := range 5 * maxMapped {
		table := madeTable(0, "other")
		binary.LittleEndian.PutUint32(table, uint32(i))
		for _, event := range [][]byte{
			madeEvent(binlog.AnonymousGTID, 0, make([]byte, 50)), madeEvent(binlog.Query, 0, madeQuery("BEGIN")),
			madeEvent(binlog.TableMap, 0, table), madeEvent(binlog.WriteRows, 0, table[:8]), madeEvent(binlog.XID, 0, make([]byte, 8)),
		} {
			require.NoError(t, s.handle(t.Context(), event))
		}
		require.LessOrEqual(t, len(s.mapped), maxMapped+1)
	}
}

// CREATE TABLE IF NOT EXISTS is in the log also where the table exists, and means nothing then.
func TestCreateIfNotExists(t *testing.T) {
	t.Parallel()
	id := cdc.TableID{Schema: "s", Name: "a"}
	here := layout{{Name: "id", Type: "int"}}
	one := &streamed{id: id, table: &cdc.Table{ID: id, Key: []string{"id"}}, layout: here}
	s := &stream{at: place{"binlog.000001", 100}, tables: map[cdc.TableID]*streamed{id: one}, mapped: map[uint64]*mapping{}}
	create, drop := parseStatement("CREATE TABLE IF NOT EXISTS a (id INT)", "s"), parseStatement("DROP TABLE a", "s")
	require.NoError(t, s.statement(t.Context(), create))
	require.Empty(t, s.queue, "the table is not another one, which would be read from the beginning")
	require.Equal(t, here, one.layout)
	require.NoError(t, s.statement(t.Context(), drop))
	require.True(t, one.gone, "from here on it makes a table")

	a := &lookahead{log: s, found: map[cdc.TableID][]foundStatement{}, all: map[string]place{}, bound: func(cdc.TableID) bool { return true }}
	a.note(create)
	require.Equal(t, place{}, a.lastChange(id))
	a.note(drop)
	s.at.at = 200
	a.note(create)
	require.Equal(t, s.at, a.lastChange(id), "behind a DROP it makes a table")
}
