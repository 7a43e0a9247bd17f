package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

func errGone() error {
	return usererr.New(fmt.Errorf("looking: %w", ErrPositionLost), "The log is gone.")
}

func sharedJSON(t *testing.T, tx *scriptTx) string {
	t.Helper()
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	return string(raw)
}

// acknowledge is what a runtime says that has kept the transaction.
func (tx *scriptTx) acknowledge(t *testing.T) {
	t.Helper()
	for _, ack := range tx.acks {
		require.NoError(t, ack(t.Context()))
	}
}

// Nothing is done to the server before the runtime has kept that everything is read again.
func TestLogIsLostWhileNobodyListens(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, lost: []error{errGone()}}
	s := script(t, d, bind(Live))
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, r.read(ctx, &scriptTx{}), context.DeadlineExceeded)
	require.Equal(t, Cursor("7"), d.from.Cursor, "no new log was asked for")
}

// The position and all tables are reset in one checkpoint, before the driver is asked for a new log.
func TestLogIsLost(t *testing.T) {
	t.Parallel()
	now := tableST()
	now.Columns = append(now.Columns, Column{Name: "new", Type: "int"})
	d := &scriptDriver{tables: []*Table{now}, lost: []error{errGone()}}
	b := bind(Live)
	b.State.setShape(tableST())
	b.State.Origin = "before"
	s := script(t, d, b)
	s.env.Shared = json.RawMessage(`{"cursor":"7","identity":"old"}`)
	r, err := s.open()
	require.NoError(t, err)
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.JSONEq(t, `{"cursor":"","identity":"old"}`, sharedJSON(t, tx), "the identity tells the driver what was lost")
	require.Positive(t, tx.saved)
	require.Equal(t, Pending, b.State.Phase)
	require.Empty(t, b.State.Origin)
	require.Equal(t, Cursor("7"), d.from.Cursor, "no new log before that is committed")
	tx.acknowledge(t)
	require.Empty(t, d.acked, "nothing of the new log is released")
	warning := s.logs.LastEntry()
	require.Equal(t, "positionLost", warning.Data["eventType"])
	require.Equal(t, "7", warning.Data["cursor"])
	require.Equal(t, "The log is gone. Every table is backfilled again, and nothing is skipped. Rows that were deleted meanwhile stay in the collections: raise the backfill counters of the bindings to be rid of them.", warning.Message)

	tx = &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Equal(t, Position{Identity: json.RawMessage(`"old"`)}, d.from)
	require.Len(t, d.asked[0].Columns, 3, "the new log begins with the shape of today")
	require.JSONEq(t, `{"cursor":"start","identity":"here"}`, sharedJSON(t, tx))
	require.Equal(t, "origin", b.State.Origin)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Equal(t, []TableID{tableID}, d.plans, "the table is backfilled again")
}

// A session that begins between the two steps goes on with the second.
func TestLogIsLostAndSoAreWe(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}}
	s := script(t, d, bind(Pending))
	s.env.Shared = json.RawMessage(`{"cursor":"","identity":"old"}`)
	_, err := s.read()
	require.NoError(t, err)
	require.Equal(t, Position{Identity: json.RawMessage(`"old"`)}, d.from)
	require.Equal(t, []TableID{tableID}, d.plans)
}

// The log may end while it is read, even within a transaction.
func TestLogIsLostWhileReading(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, next: errGone(), events: []Event{
		{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")},
	}}
	b := bind(Live)
	s := script(t, d, b)
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.JSONEq(t, `{"cursor":"","identity":"here"}`, sharedJSON(t, tx))
	require.Equal(t, Pending, b.State.Phase)
	require.Equal(t, []string{"stream"}, d.closed)
	tx.acknowledge(t)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Equal(t, Cursor(""), d.from.Cursor)

	d.next = errGone()
	var again error
	for again == nil {
		again = r.read(t.Context(), &scriptTx{})
	}
	require.ErrorIs(t, again, ErrPositionLost, "what keeps happening ends the session")
}

func TestLogIsLostForGood(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*scripted)
		want   string
	}{
		"to stop was chosen": {
			func(s *scripted) { s.opts.StopOnPositionLoss = true },
			"The log is gone. To begin anew, have every table of the capture backfilled again: raise the backfill counter of each of its bindings, and of the bindings that materialize them.",
		},
		"only changes": {
			func(s *scripted) { s.bindings[0].Resource.Mode = OnlyChanges },
			"The log is gone. Only changes are captured of s.t, so nothing can bring back what is lost. To go on without it, raise the backfill counter of these bindings.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := script(t, &scriptDriver{tables: []*Table{tableST()}, lost: []error{errGone()}}, bind(Live))
			s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
			c.change(s)
			r, err := s.open()
			require.NoError(t, err)
			tx := &scriptTx{}
			err = r.read(t.Context(), tx)
			require.Equal(t, c.want, usererr.Message(err))
			require.ErrorIs(t, err, ErrPositionLost)
			require.Nil(t, tx.shared, "nothing is committed")
		})
	}
}

// A table whose counter was raised has no gap, so nothing stops the others from being captured anew.
func TestLogIsLostWithOnlyChangesAnew(t *testing.T) {
	t.Parallel()
	b := bind("")
	b.Resource.Mode = OnlyChanges
	other := bind(Live)
	other.Resource.Stream = "u"
	u := tableST()
	u.ID.Name = "u"
	s := script(t, &scriptDriver{tables: []*Table{tableST(), u}, lost: []error{errGone()}}, b, other)
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Equal(t, Live, b.State.Phase)
	require.Equal(t, Pending, other.State.Phase)
}

// A log that goes on under another name is stored under that name; the cursor stays.
func TestLogIsRenamed(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, start: json.RawMessage(`"promoted"`), events: []Event{
		{Op: Idle, Cursor: "8", Identity: json.RawMessage(`"moved on"`)},
		{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")},
		{Op: Commit, Txn: "1", Cursor: "9"},
	}}
	s := script(t, d, bind(Live))
	s.env.Shared = json.RawMessage(`{"cursor":"7","identity":"old"}`)
	r, err := s.open()
	require.NoError(t, err)
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.JSONEq(t, `{"cursor":"7","identity":"promoted"}`, sharedJSON(t, tx))
	tx = &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.JSONEq(t, `{"cursor":"9","identity":"moved on"}`, sharedJSON(t, tx))
}
