package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestErrorsOfOpening(t *testing.T) {
	t.Parallel()
	meta := tableST()
	meta.Columns = append(meta.Columns, Column{Name: "_meta"})
	keyless := tableST()
	keyless.Key = nil
	for name, c := range map[string]struct {
		tables []*Table
		shared string
		key    []string
		want   string
	}{
		"no table at all":     {nil, "", nil, "None of the tables to capture exists (s.t is the first). Check the names of schemas and tables, or discover again."},
		"another key":         {[]*Table{tableST()}, "", []string{"/x"}, "The key of table s.t is (k), but the documents of collection acme/t are keyed by (/x). Discover the table again, so that its collection gets this key, and backfill it."},
		"no key":              {[]*Table{keyless}, "", []string{"/k"}, "The key of table s.t is (none), but the documents of collection acme/t are keyed by (/k). Discover the table again, so that its collection gets this key, and backfill it."},
		"a column like _meta": {[]*Table{meta}, "", nil, "Table s.t has a column \"_meta\", which is the name of the member that describes the change in every document. Rename the column to capture the table."},
		"a foreign position":  {[]*Table{tableST()}, `{"cursor":7}`, nil, "The stored position of this capture cannot be read, so it was not written by this connector. Backfill all of its bindings."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := script(t, &scriptDriver{tables: c.tables}, bind("", c.key...))
			s.env.Shared = json.RawMessage(c.shared)
			_, err := s.open()
			require.Error(t, err)
			require.Equal(t, c.want, usererr.Message(err))
		})
	}
}

func TestErrorsOfTheLog(t *testing.T) {
	t.Parallel()
	rekeyed := tableST()
	rekeyed.Key = []string{"x"}
	for name, c := range map[string]struct {
		event Event
		want  string
	}{
		"truncated":                      {Event{Op: Truncate, Txn: "1"}, "Table s.t was truncated. The rows it had are still in the collection. To go on, set onTruncate to ignore or backfill, or backfill all tables of the capture into empty collections."},
		"deleted without a key":          {Event{Op: Delete, Txn: "1"}, "A row of table s.t was deleted, but the log does not say which. Make the server log the key of deleted rows (for Postgres: ALTER TABLE s.t REPLICA IDENTITY DEFAULT, or FULL)."},
		"appeared without all of itself": {Event{Op: Update, Txn: "1", Before: rowKX("1", ""), Row: rowKX("2", "", "x")}, "A row of table s.t changed in a way of which the log leaves out unchanged values, and this server's rows cannot be read by key. Make the server log whole rows (for Postgres: ALTER TABLE s.t REPLICA IDENTITY FULL), then backfill the table."},
		"another key":                    {Event{Op: Shape, Txn: "1", Shape: rekeyed}, "The key of table s.t is (x), but the documents of collection acme/t are keyed by (/k). Discover the table again, so that its collection gets this key, and backfill it."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.event.Table = tableID
			s := script(t, &scriptDriver{tables: []*Table{tableST()}, events: []Event{c.event}}, bind(Live))
			s.opts.OnTruncate = TruncateStop
			_, err := s.read()
			require.Error(t, err)
			require.Equal(t, c.want, usererr.Message(err))
		})
	}
}

// A truncation is said in the log as an event, and what follows is the user's choice.
func TestTruncations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy TruncatePolicy
		change func(b *capture.Binding[Resource, TableState])
		phase  Phase
		says   string
	}{
		"by default":          {"", nil, Live, "the rows it had stay"},
		"ignore":              {TruncateIgnore, nil, Live, "the rows it had stay"},
		"backfill":            {TruncateBackfill, nil, Pending, "backfilling it again"},
		"backfill, keyless":   {TruncateBackfill, func(b *capture.Binding[Resource, TableState]) { b.Collection.Key = fallbackKey() }, Live, "the rows it had stay"},
		"backfill, no rows":   {TruncateBackfill, func(b *capture.Binding[Resource, TableState]) { b.Resource.Mode = OnlyChanges }, Live, "the rows it had stay"},
		"stop before reading": {TruncateStop, func(b *capture.Binding[Resource, TableState]) { b.State.Phase = Pending }, Pending, "before its backfill"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			committed := time.Unix(1_700_000_000, 0)
			d := &scriptDriver{tables: []*Table{tableST()}, events: []Event{
				{Op: Truncate, Table: tableID, Txn: "1", Mark: "17", CommitTime: committed},
				{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")},
				{Op: Commit, Txn: "1", Cursor: "2"},
			}}
			b := bind(Live)
			if c.change != nil {
				c.change(b)
			}
			s := script(t, d, b)
			s.opts.OnTruncate = c.policy
			s.pool.idle = true
			tx, err := s.read()
			require.NoError(t, err)
			require.Len(t, tx.docs, 1)
			require.Equal(t, c.phase, b.State.Phase)
			i := slices.IndexFunc(s.logs.AllEntries(), func(e *logrus.Entry) bool { return e.Data["eventType"] == "tableTruncated" })
			require.GreaterOrEqual(t, i, 0)
			e := s.logs.AllEntries()[i]
			require.Contains(t, e.Message, c.says)
			require.Equal(t, []any{"s.t", "17", "1", "2023-11-14T22:13:20Z"}, []any{e.Data["table"], e.Data["cursor"], e.Data["txid"], e.Data["committed"]})
		})
	}
}

func TestScansThatFail(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, scan: func(Chunk) error { return fmt.Errorf("lost: %w", ErrInterrupted) }}
	err := script(t, d, bind("")).untilFails()
	require.Equal(t, "The rows of table s.t could not be read, 21 times in a row.", usererr.Message(err))
	require.ErrorIs(t, err, ErrInterrupted)

	d.scan = func(Chunk) error { return ErrRewritten }
	err = script(t, d, bind("")).untilFails()
	require.Equal(t, "The rows of table s.t could not be read, 21 times in a row.", usererr.Message(err), "planning does not count as reading")

	d.scan = func(Chunk) error { return usererr.New(nil, "You may not read this.") }
	err = script(t, d, bind("")).untilFails()
	require.EqualError(t, err, "reading rows of s.t: You may not read this.")
}

func TestPositionIsStoredFirst(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: []*Table{tableST()}, events: []Event{{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")}}}
	s := script(t, d, bind(""))
	s.env.Dormant = []string{"gone"}
	s.env.Shared = json.RawMessage(`{"cursor":"old"}`)
	r, err := s.open()
	require.NoError(t, err)
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Empty(t, tx.docs)
	require.Equal(t, Position{}, d.from, "a capture of which every binding is new begins at the log's end")
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	require.JSONEq(t, `{"cursor":"start","identity":"here"}`, string(raw))
	require.Equal(t, []string{"gone"}, tx.forgot)
	require.Equal(t, "origin", s.bindings[0].State.Origin)
	require.Empty(t, d.plans, "nothing is backfilled before the position is stored")
	require.NoError(t, tx.acks[0](t.Context()))
	require.Equal(t, []Cursor{"start"}, d.acked)
	require.NoError(t, r.close())
	require.Equal(t, []string{"stream", "driver"}, d.closed)
}

func TestCheckpointNeverCutsATransaction(t *testing.T) {
	t.Parallel()
	var events []Event
	for i := range 3000 {
		events = append(events, Event{Op: Insert, Table: tableID, Txn: "1", Row: rowKX(fmt.Sprint(i), strings.Repeat("x", 1000))})
		if i%100 == 0 {
			events = append(events, Event{Op: Idle, Cursor: "wrong"})
		}
	}
	events = append(events, Event{Op: Commit, Txn: "1", Cursor: "2"})
	tx, err := script(t, &scriptDriver{tables: []*Table{tableST()}, events: events}, bind(Live)).read()
	require.NoError(t, err)
	require.Len(t, tx.docs, 3000)
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	require.JSONEq(t, `{"cursor":"2","identity":"here"}`, string(raw))
}

func TestResumeHasTheShapeOfTheLog(t *testing.T) {
	t.Parallel()
	now := tableST()
	now.Columns = append(now.Columns, Column{Name: "new", Type: "int"})
	d := &scriptDriver{tables: []*Table{now}}
	b := bind(Live)
	b.State.setShape(tableST())
	s := script(t, d, b)
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Equal(t, Cursor("7"), d.from.Cursor)
	require.Len(t, d.asked[0].Columns, 2, "the stream must learn from the log that there is a third one")
	require.Len(t, r.tables[0].shape.Columns, 3, "but scans read it already")
}

func TestOnlyChanges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*scripted){
		"mode":          func(s *scripted) { s.bindings[0].Resource.Mode = OnlyChanges },
		"skipBackfills": func(s *scripted) { s.opts.SkipBackfills = []string{"s.*"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := &scriptDriver{tables: []*Table{tableST()}}
			s := script(t, d, bind(""))
			change(s)
			r, err := s.open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			require.Equal(t, Live, s.bindings[0].State.Phase)
			require.Empty(t, r.work)
		})
	}
}

func TestNoBindings(t *testing.T) {
	t.Parallel()
	s := script(t, &scriptDriver{})
	s.env.Shared = json.RawMessage(`{"cursor":"7"}`)
	s.env.Dormant = []string{"gone"}
	r, err := s.open()
	require.NoError(t, err)
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Equal(t, []string{"gone"}, tx.forgot)
	raw, err := json.Marshal(tx.shared)
	require.NoError(t, err)
	require.JSONEq(t, `{"cursor":""}`, string(raw))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.read(ctx, &scriptTx{}), context.Canceled)
	require.NoError(t, r.close())
}

func TestPriorities(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{}
	var bindings []*capture.Binding[Resource, TableState]
	for i, priority := range []int{0, 2, 1} {
		tb := tableST()
		tb.ID.Name = fmt.Sprint("t", i)
		d.tables = append(d.tables, tb)
		b := bind("")
		b.Resource.Stream, b.Resource.Priority = tb.ID.Name, priority
		bindings = append(bindings, b)
	}
	s := script(t, d, bindings...)
	s.opts.BackfillWorkers = 1
	r, err := s.open()
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, r.read(t.Context(), &scriptTx{}))
		if len(d.plans) == 3 {
			break
		}
	}
	require.Equal(t, []TableID{{"s", "t1"}, {"s", "t2"}, {"s", "t0"}}, d.plans)
}

func TestHoleOfALiveTableIsFilled(t *testing.T) {
	t.Parallel()
	d := keysDriver{&scriptDriver{tables: []*Table{tableST()}, events: []Event{
		{Op: Update, Table: tableID, Txn: "1", Before: rowKX("1", ""), Row: rowKX("2", "", "x")},
		{Op: Commit, Txn: "1", Cursor: "2"},
	}}}
	s := script(t, d, bind(Live))
	r, err := s.open()
	require.NoError(t, err)
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	tx := &scriptTx{}
	require.NoError(t, r.read(t.Context(), tx))
	require.Equal(t, []string{
		`{"k":"1","x":"","_meta":{"op":"d","source":{"v":"1"}}}`,
		`{"k":"2","_meta":{"op":"c","source":{"v":"1"}}}`,
	}, tx.docs)
	require.Len(t, s.bindings[0].State.Holes, 1, "a crash must not forget it")
	require.NoError(t, r.read(t.Context(), &scriptTx{}))
	require.Empty(t, s.bindings[0].State.Holes)
	require.False(t, r.tables[0].watching)
}

// A column that comes back under the name of one that was dropped has no values, but documents have those of the old one:
// rows are read again, also when discovery notices before the log does, and after a restart.
func TestColumnComesBack(t *testing.T) {
	t.Parallel()
	without := tableST()
	without.Columns = without.Columns[:1]
	shape := func(tb *Table) Event { return Event{Op: Shape, Table: tableID, Txn: "1", Shape: tb} }
	for name, c := range map[string]struct {
		events     []Event
		discovered *Table
		dropped    []string
		want       Phase
	}{
		"a new name":        {[]Event{shape(tableST())}, tableST(), nil, Live},
		"a dropped name":    {[]Event{shape(tableST())}, tableST(), []string{"x"}, Pending},
		"seen by discovery": {nil, tableST(), []string{"x"}, Pending},
		"another name":      {[]Event{shape(tableST())}, tableST(), []string{"y"}, Live},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bind(Live)
			b.State.setShape(without)
			b.State.Dropped = c.dropped
			d := &scriptDriver{tables: []*Table{c.discovered}, events: append(c.events, Event{Op: Commit, Txn: "1", Cursor: "2"})}
			s := script(t, d, b)
			s.env.Shared = json.RawMessage(`{"cursor":"1"}`)
			s.pool.idle = true
			_, err := s.read()
			require.NoError(t, err)
			require.Equal(t, c.want, b.State.Phase)
		})
	}
	state := &TableState{}
	state.setShape(tableST())
	require.Empty(t, state.Dropped)
	state.setShape(without)
	require.Equal(t, []string{"x"}, state.Dropped)
	state.setShape(tableST())
	require.Empty(t, state.Dropped)
}

// Rows of a table without a key that were read before it was rewritten come again: the log says so.
func TestKeylessTableRewritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key  []string
		rows int64
		want string
	}{
		"keyless, half read": {fallbackKey(), 5, "rows that were read before come twice"},
		"keyless, not begun": {fallbackKey(), 0, "planning the backfill anew"},
		"with a key":         {nil, 5, "planning the backfill anew"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bind(Scanning, c.key...)
			b.State.setShape(tableST())
			b.State.Ranges, b.State.Rows = []Range{"all"}, c.rows
			s := script(t, &scriptDriver{tables: []*Table{tableST()}, scan: func(Chunk) error { return ErrRewritten }}, b)
			s.env.Shared = json.RawMessage(`{"cursor":"1"}`)
			r, err := s.open()
			require.NoError(t, err)
			said := func() bool {
				return slices.ContainsFunc(s.logs.AllEntries(), func(e *logrus.Entry) bool { return strings.Contains(e.Message, c.want) })
			}
			for range 20 {
				require.NoError(t, r.read(t.Context(), &scriptTx{}))
				if said() {
					return
				}
			}
			require.True(t, said(), "the log does not say %q", c.want)
		})
	}
}

// How the log lays out rows is kept beside the position, and given back to the next stream. It is nothing that anybody reads.
func TestLayoutIsKept(t *testing.T) {
	t.Parallel()
	laid := func(layout string) *Table {
		table := tableST()
		table.Layout = layout
		return table
	}
	shape := func(tb *Table, look bool) Event {
		return Event{Op: Shape, Table: tableID, Txn: "1", Shape: tb, Look: look}
	}
	for name, c := range map[string]struct {
		events []Event
		want   string
	}{
		"learnt":        {[]Event{shape(laid("b"), false)}, "b"},
		"unknown again": {[]Event{shape(laid("b"), false), shape(laid(""), true)}, ""},
		"as before":     {[]Event{shape(laid("a"), true)}, "a"},
		"lost":          {[]Event{shape(laid("b"), false)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bind(Live)
			b.State.setShape(laid("a"))
			d := &scriptDriver{tables: []*Table{tableST()}, events: append(c.events, Event{Op: Commit, Txn: "1", Cursor: "2"})}
			if name == "lost" {
				d.next = ErrPositionLost
			}
			s := script(t, d, b)
			s.env.Shared = json.RawMessage(`{"cursor":"1"}`)
			r, err := s.open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			require.Equal(t, "a", d.asked[0].Layout)
			tx := &scriptTx{}
			require.NoError(t, r.read(t.Context(), tx))
			if name == "lost" {
				require.NoError(t, r.read(t.Context(), tx))
			}
			require.Equal(t, c.want, b.State.Layout)
			require.NoError(t, r.connect(t.Context()))
			require.Equal(t, c.want, d.asked[0].Layout)
		})
	}
}

// Discovery found a column before the log told of it, and the table was backfilled for that: what the log says then changes nothing. But
// if the stream has left out changes meanwhile, the table is backfilled once more.
func TestChangesThatAreOwed(t *testing.T) {
	t.Parallel()
	for name, owed := range map[string]bool{"none": false, "some": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			filled, without := tableST(), tableST()
			filled.Columns[1].Filled = true
			without.Columns = without.Columns[:1]
			b := bind(Live)
			b.State.setShape(without)
			d := &scriptDriver{tables: []*Table{filled}}
			s := script(t, d, b)
			s.env.Shared = json.RawMessage(`{"cursor":"1"}`)
			r, err := s.open()
			require.NoError(t, err)
			for range 20 {
				if len(d.plans) == 1 && b.State.Phase == Live {
					break
				}
				require.NoError(t, r.read(t.Context(), &scriptTx{}))
			}
			require.Equal(t, Live, b.State.Phase)
			d.events = []Event{{Op: Shape, Table: tableID, Shape: tableST(), Rescan: true, Owed: owed}, {Op: Commit, Txn: "1", Cursor: "2"}, {Op: Idle}, {Op: Idle}, {Op: Idle}}
			d.next = errors.New("the end")
			for err == nil {
				err = r.read(t.Context(), &scriptTx{})
			}
			require.ErrorContains(t, err, "the end")
			require.Len(t, d.plans, map[bool]int{false: 1, true: 2}[owed])
		})
	}
}

// Rows that are still to be read by key are known to the next session: by their keys, or because all of the table is read again. That is
// no way where only changes are captured.
func TestManyHoles(t *testing.T) {
	t.Parallel()
	for mode, want := range map[Mode]struct {
		holes int
		phase Phase
	}{"": {0, Pending}, OnlyChanges: {1, Live}} {
		d := keysDriver{&scriptDriver{tables: []*Table{tableST()}, events: []Event{
			{Op: Update, Table: tableID, Txn: "1", Before: rowKX("1", ""), Row: rowKX("2", "", "x")}, {Op: Commit, Txn: "1", Cursor: "2"},
		}}}
		b := bind(Live)
		b.Resource.Mode = mode
		s := script(t, d, b)
		s.limits.storedHoleBytes = 1
		s.pool.idle = true
		_, err := s.read()
		require.NoError(t, err)
		r, err := s.open()
		require.NoError(t, err)
		require.Equal(t, want.holes, r.tables[0].holes.len(), mode)
		require.Equal(t, want.phase, b.State.Phase, mode)
	}
}

// A table to which rows came that nothing brings is given up, by itself, until its binding is backfilled: whatever the log or discovery say of it.
func TestHaltedTable(t *testing.T) {
	t.Parallel()
	table := tableST()
	table.Key = nil
	d := &scriptDriver{tables: []*Table{table}, events: []Event{
		{Op: Insert, Table: tableID, Txn: "1", Row: rowKX("1", "a")},
		{Op: Drop, Table: tableID, Txn: "1", Halt: true, Err: usererr.New(nil, "Rows came.")},
		{Op: Truncate, Table: tableID, Txn: "1"},
		{Op: Shape, Table: tableID, Txn: "1", Shape: table, Rescan: true},
		{Op: Commit, Txn: "1", Cursor: "2"},
	}}
	b := bind(Live, fallbackKey()...)
	s := script(t, d, b)
	s.opts.OnTruncate = TruncateStop
	tx, err := s.read()
	require.NoError(t, err)
	require.Len(t, tx.docs, 1)
	for range 2 {
		require.Equal(t, Missing, b.State.Phase)
		require.Equal(t, "Rows came.", b.State.Halted)
		last := s.logs.LastEntry()
		require.Equal(t, "table is not captured any more: backfill its binding into an empty collection", last.Message)
		require.Equal(t, []any{"s.t", "Rows came."}, []any{last.Data["table"], last.Data["err"]})
		s.logs.Reset()
		d.events = []Event{{Op: Commit, Txn: "2", Cursor: "3"}}
		_, err = s.read()
		require.NoError(t, err)
		require.Empty(t, d.asked, "the log need not carry it")
	}
	b.New = true
	_, err = s.read()
	require.NoError(t, err)
	require.Empty(t, b.State.Halted)
	require.NotEqual(t, Missing, b.State.Phase)
	require.Len(t, d.asked, 1)
}
