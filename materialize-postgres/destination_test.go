package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// What people add to a table stays theirs: columns keep their values when rows are updated, indexes and views survive a
// backfill that leaves the table's shape as it is.
func TestUserMadeThingsStay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = []sinktest.Change{{Doc: `{"id":1,"note":"a"}`}}
	r.MustApply()
	require.NoError(t, r.Run())
	db.exec(t, "ALTER TABLE orders ADD COLUMN mine text NOT NULL DEFAULT 'x'", "UPDATE orders SET mine = 'kept'", "CREATE INDEX mine ON orders (mine)", "CREATE VIEW v AS SELECT * FROM orders")
	require.Empty(t, r.MustApply(), "nothing of ours has changed")
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"note":"b"}`}, sinktest.Change{Doc: `{"id":2,"note":"c"}`})
	require.NoError(t, r.Run())
	require.Equal(t, "1|b|kept\n2|c|x", db.exec(t, "SELECT id, note, mine FROM v ORDER BY id"))

	r.Task.Bindings[0].Backfill = 1
	require.Equal(t, "Emptied table public.orders for backfill 1.", r.MustApply())
	require.Empty(t, db.exec(t, "SELECT * FROM v"))
	require.Equal(t, "1", db.exec(t, "SELECT count(*) FROM pg_indexes WHERE indexname = 'mine'"))

	r.Task.Bindings[0].Backfill = 2
	r.Task.Bindings[0].Collection.Columns[0].Types = []string{"boolean"}
	_, err := r.Apply()
	require.ErrorContains(t, err, "If it is because other objects depend on the table")
}

// Columns whose types people changed to something that the connector does not know go through text.
func TestForeignColumnTypes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Task.Bindings[0].Collection.Columns = []sinktest.Column{
		{Name: "id", Types: []string{"string"}, Key: true},
		{Name: "size", Types: []string{"integer"}, May: true},
		{Name: "note", Types: []string{"string"}, May: true},
		{Name: "times", Types: []string{"integer"}, May: true},
	}
	r.Batch = 1
	r.Log = []sinktest.Change{{Doc: `{"id":"k1","size":7,"note":"on","times":1}`}}
	r.MustApply()
	db.exec(t, "CREATE TYPE state AS ENUM ('on', 'off')", "ALTER TABLE orders ALTER COLUMN id TYPE varchar(5), ALTER COLUMN size TYPE smallint, ALTER COLUMN note TYPE state USING note::state")
	require.NoError(t, r.Run())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":"k1","times":2}`}, sinktest.Change{Doc: `{"id":"k2","note":"off"}`})
	require.NoError(t, r.Run())
	require.Equal(t, "k1|7|on|2\nk2||off|", db.exec(t, "SELECT id, size, note, times FROM orders ORDER BY id"))
	require.Empty(t, r.MustApply())

	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":"too long"}`})
	require.ErrorContains(t, r.Run(), "value too long for type character varying(5)", "nothing is cut")
}

// A text column of a field that is not always a string: what a change leaves out stays to the letter, whatever it looks like.
func TestTextsThatLookLikeJSON(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	f, g := fieldOf("f", "integer,number,string"), fieldOf("g", "object,string")
	f.Config, g.Config = `{"castToString":true}`, `{"castToString":true}`
	r.Task.Bindings[0].Collection.Columns = append(r.Task.Bindings[0].Collection.Columns, f, g)
	r.Log, r.Batch = nil, 100
	for id, v := range []string{`"null"`, `"1.10"`, `"007"`, `"1e2"`, `"true"`, `"[1, 2]"`, `7`, `1.5`} {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"f":%s,"g":%[2]s}`, id, v)})
	}
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":8,"g":{"a":1}}`})
	r.MustApply()
	require.NoError(t, r.Run())
	const rows = "SELECT id, f, CASE WHEN id IN (5, 8) THEN g::jsonb::text ELSE g END FROM orders ORDER BY id"
	before := db.exec(t, rows)
	loaded := ""
	r.OnLoaded = func(doc []byte) { loaded += string(doc) }
	for id := range 9 {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"note":"left the others out"}`, id)})
	}
	require.NoError(t, r.Run())
	require.Equal(t, before, db.exec(t, rows))
	require.Contains(t, loaded, `"g":{"a":1}`, "an object is loaded as one: its members may be fields, too")
}

// Sessions with parts of the key range: they take over the position of the one that they were split from, and can be joined
// again where they stopped at the same position.
func TestRangesAreSplit(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	whole := newTask(t, db, db.config(nil))
	whole.Batch = 5
	whole.MustApply()
	p := sinktest.Start(t, db.sinkCase(), whole.Codec)
	require.NoError(t, whole.Open(p))
	require.Zero(t, whole.Position)
	require.NoError(t, whole.Run())
	require.Equal(t, len(whole.Log), whole.Position)

	open := func(begin, end uint32) *sinktest.Runtime {
		part := *whole
		part.Position = -1
		part.Range = &flowpb.RangeSpec{KeyBegin: begin, KeyEnd: end, RClockEnd: 1<<32 - 1}
		require.NoError(t, part.Open(sinktest.Start(t, db.sinkCase(), part.Codec)))
		return &part
	}
	require.Equal(t, len(whole.Log), open(0, 1<<31-1).Position)
	high := open(1<<31, 1<<32-1)
	require.Equal(t, len(whole.Log), high.Position)
	require.Equal(t, "0|2147483647|3\n2147483648|4294967295|4",
		db.exec(t, "SELECT key_begin, key_end, fence FROM sluice_checkpoints_v1 ORDER BY key_begin, key_end"))
	require.Equal(t, len(whole.Log), open(0, 1<<32-1).Position)

	require.Equal(t, len(whole.Log), open(0, 1<<31-1).Position)
	high.Log = append(high.Log, sinktest.Change{Doc: `{"id":100,"note":"n"}`})
	require.NoError(t, high.Run())
	whole.Range = nil
	require.ErrorContains(t, whole.Run(), "was split into several instances before, which stopped at different positions")
}

// The checkpoint is a parameter: its bytes are no part of any statement (hard case 60).
func TestStatementsStayTheSame(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.MustApply()
	r.Batch = 1
	seen := map[string]bool{}
	r.Step = func(_ *sinktest.Peer, name string) {
		if name != "StartedCommit" {
			return
		}
		for _, s := range jsonList(t, db.exec(t, "SELECT COALESCE(json_agg(query), '[]') FROM pg_stat_activity WHERE application_name = 'sluice acme/sink' AND datname = current_database()")) {
			seen[s] = true
		}
	}
	require.NoError(t, r.Run())
	require.NotEmpty(t, seen)
	require.Less(t, len(seen), 15, "%v", seen)
}

func jsonList(t *testing.T, text string) []string {
	t.Helper()
	var out []string
	require.NoError(t, json.Unmarshal([]byte(text), &out))
	return out
}
