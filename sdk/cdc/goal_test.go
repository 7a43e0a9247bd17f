package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// endDriver can say where its log ends.
type endDriver struct {
	*scriptDriver
	asked int
	err   error
}

func (d *endDriver) End(context.Context) (Mark, error) {
	d.asked++
	return "end", d.err
}

// until reads transactions until the session ends.
func until(t *testing.T, r *reader) (docs []string, cursor Cursor, err error) {
	t.Helper()
	for {
		tx := &scriptTx{}
		err = r.read(t.Context(), tx)
		docs = append(docs, tx.docs...)
		if s, ok := tx.shared.(*sharedState); ok {
			cursor = s.Cursor
		}
		if err != nil {
			return docs, cursor, err
		}
	}
}

// A session that catches up reads tables to their end and the log to the place where it ended, and then ends.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	d := &endDriver{scriptDriver: &scriptDriver{
		tables: []*Table{tableST()}, rows: []Row{rowKX("1", "a")},
		events: []Event{{Op: Idle}, {Op: Insert, Table: tableID, Txn: "7", Row: rowKX("2", "b")}, {Op: Commit, Txn: "7", Cursor: "c7"}},
	}}
	s := script(t, d, bind(""))
	s.env.CatchUp = true
	r, err := s.open()
	require.NoError(t, err)
	docs, cursor, err := until(t, r)
	require.Equal(t, io.EOF, err, "nothing else ends a session well")
	require.Len(t, docs, 2, "%v", docs)
	require.Equal(t, Cursor("c7"), cursor)
	require.Equal(t, Live, r.tables[0].state.Phase)
	require.Equal(t, 1, d.asked)
	require.NoError(t, r.close())

	d = &endDriver{scriptDriver: &scriptDriver{tables: []*Table{tableST()}}, err: errors.New("gone")}
	s = script(t, d, bind(Live))
	s.env.CatchUp = true
	r, err = s.open()
	require.NoError(t, err)
	_, _, err = until(t, r)
	require.ErrorContains(t, err, "asking where the log ends: gone")

	s = script(t, &scriptDriver{tables: []*Table{tableST()}}, bind(Live))
	s.env.CatchUp = true
	r, err = s.open()
	require.NoError(t, err)
	_, _, err = until(t, r)
	require.Equal(t, "This source cannot tell where its log ends, so it cannot be captured up to there.", usererr.Message(err))

	// A capture of nothing has caught up.
	s = script(t, &scriptDriver{})
	s.env.CatchUp = true
	r, err = s.open()
	require.NoError(t, err)
	_, _, err = until(t, r)
	require.Equal(t, io.EOF, err)
}

// wholeDriver reads rows by key, and sees only the second time what was changed.
type wholeDriver struct {
	*endDriver
	read int
}

func (d *wholeDriver) ScanKeys(_ context.Context, _ Chunk, keys [][]byte, yield func(Row) error) (*Scanned, error) {
	d.read++
	for range keys {
		if err := yield(rowKX("1", "whole")); err != nil {
			return nil, err
		}
	}
	var sees Visibility = seesAll{}
	if d.read == 1 {
		sees = seesNone{}
	}
	return &Scanned{Snapshot: sees, High: Mark(rune('a' + d.read))}, nil
}

type seesNone struct{}

func (seesNone) Sees(TxnID) bool { return false }

// Where whole rows are wanted, a change that the log tells in part is replaced by the row, as a snapshot sees it that sees
// the change; a session does not end before that.
func TestWholeRows(t *testing.T) {
	t.Parallel()
	for _, op := range []Op{Insert, Update} {
		d := &wholeDriver{endDriver: &endDriver{scriptDriver: &scriptDriver{tables: []*Table{tableST()}, events: []Event{
			{Op: op, Table: tableID, Txn: "7", Row: rowKX("1", "", "x")}, {Op: Commit, Txn: "7", Cursor: "c7"},
		}}}}
		s := script(t, d, bind(Live))
		s.env.CatchUp, s.env.Whole = true, true
		r, err := s.open()
		require.NoError(t, err)
		docs, cursor, err := until(t, r)
		require.Equal(t, io.EOF, err)
		require.Len(t, docs, 1)
		require.Contains(t, docs[0], "whole")
		require.Equal(t, Cursor("c7"), cursor)
		require.GreaterOrEqual(t, d.read, 2)
	}
}

// A session that catches up acknowledges the cursor that it was given, which is stored, and no other one, also where it has to
// open the log again.
func TestCatchUpAcknowledges(t *testing.T) {
	t.Parallel()
	d := &endDriver{scriptDriver: &scriptDriver{tables: []*Table{tableST()}, rows: []Row{rowKX("1", "a")}, events: []Event{
		{Op: Idle}, {Op: Drop, Table: tableID, Txn: "7"}, {Op: Commit, Txn: "7", Cursor: "c7"},
	}}}
	s := script(t, d, bind(Live))
	s.env.CatchUp, s.env.Shared = true, json.RawMessage(`{"cursor":"given"}`)
	r, err := s.open()
	require.NoError(t, err)
	_, cursor, err := until(t, r)
	require.Equal(t, io.EOF, err)
	require.Equal(t, Cursor("c7"), cursor)
	require.Equal(t, Cursor("c7"), d.from.Cursor, "another table of the name was found, so the log was opened again")
	require.Equal(t, []Cursor{"given"}, d.acked)
}
