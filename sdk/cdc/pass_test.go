package cdc

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// passing is a table without a key that is read in one pass, in three chunks, while a change of it comes.
func passing(t *testing.T) (*scriptDriver, *scripted) {
	t.Helper()
	table := tableST()
	table.Key = nil
	row := &simRow{shape: table, vals: map[string]string{"k": "1"}, v: 1}
	d := &scriptDriver{tables: []*Table{table}, joins: true, rows: []Row{row}, rests: []Range{"b", "c"}, events: []Event{
		{Op: Idle},
		{Op: Joined, Table: tableID, Origin: "here", Once: true},
		{Op: Insert, Table: tableID, Txn: "1", Row: row},
		{Op: Commit, Txn: "1", Cursor: "2"},
		{Op: Idle},
	}}
	return d, script(t, d, bind("", fallbackKey()...))
}

// From the moment on from which the log carries the table there is no checkpoint before all of it is emitted.
func TestPass(t *testing.T) {
	t.Parallel()
	d, s := passing(t)
	s.limits.enough = 1
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Equal(t, []any{Pending, ""}, []any{s.bindings[0].State.Phase, s.bindings[0].State.Origin})
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Len(t, tx.docs, 4)
	require.Equal(t, []any{Live, "here"}, []any{s.bindings[0].State.Phase, s.bindings[0].State.Origin})
	require.Equal(t, Cursor("2"), r.shared.Cursor)
	require.Empty(t, r.passing)
	require.Len(t, d.plans, 1)
}

// A pass that cannot be ended ends the session, and so does a log that is lost meanwhile: nothing of it may be kept.
func TestPassInterrupted(t *testing.T) {
	t.Parallel()
	const says = "Table s.t has no key, so it is read in one pass, and that was interrupted (%s). Nothing of it was kept: " +
		"the capture goes on from its last checkpoint, and reads the table from the beginning, when it is started again."
	for name, c := range map[string]struct {
		change func(d *scriptDriver)
		want   string
	}{
		"a scan": {func(d *scriptDriver) {
			n := 0
			d.scan = func(Chunk) error {
				if n++; n == 2 {
					return fmt.Errorf("gone: %w", ErrInterrupted)
				}
				return nil
			}
		}, fmt.Sprintf(says, "gone: scan was interrupted")},
		"the log": {func(d *scriptDriver) {
			d.rests = []Range{"b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"}
			d.next = ErrPositionLost
		}, "reading the log: the log cannot be continued from the stored position"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, s := passing(t)
			c.change(d)
			r, err := s.open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			err = r.read(t.Context(), &scriptTx{})
			require.Equal(t, c.want, usererr.Message(err))
			require.True(t, errors.Is(err, ErrInterrupted) || errors.Is(err, ErrPositionLost))
		})
	}
}

// A table may join before it is known how the reading of the one before has ended; that a pass cannot be ended is noticed all the same,
// and nothing is kept before both have.
func TestPassesThatMeet(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"both end": nil, "the first fails": fmt.Errorf("gone: %w", ErrInterrupted)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			other := TableID{Schema: "s", Name: "u"}
			first, second := tableST(), tableST()
			first.Key, second.Key, second.ID = nil, nil, other
			d := &scriptDriver{
				tables: []*Table{first, second}, joins: true, rows: []Row{&simRow{shape: first, vals: map[string]string{"k": "1"}, v: 1}},
				events: []Event{
					{Op: Idle},
					{Op: Joined, Table: tableID, Origin: "here", Once: true},
					{Op: Idle}, // it is planned, and then read
					{Op: Joined, Table: other, Origin: "there", Once: true},
				},
			}
			d.scan = func(c Chunk) error {
				if c.Table.ID == tableID {
					return failure
				}
				return nil
			}
			b := bind("", fallbackKey()...)
			b.Resource.Stream, b.StateKey = "u", "s%2Fu"
			r, err := script(t, d, bind("", fallbackKey()...), b).open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			tx := &scriptTx{}
			err = r.read(t.Context(), tx)
			if failure != nil {
				require.ErrorIs(t, err, failure)
				require.Contains(t, usererr.Message(err), "Table s.t has no key, so it is read in one pass, and that was interrupted")
				return
			}
			require.NoError(t, err)
			require.Len(t, tx.docs, 2)
			for _, table := range r.tables {
				require.Equal(t, []any{Live, false}, []any{table.state.Phase, table.pass})
			}
			require.Empty(t, r.passing)
		})
	}
}
