package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// people is a collection as a capture of a database makes it.
func people() sinktest.Collection {
	return sinktest.Collection{Name: "acme/people", Columns: []sinktest.Column{
		{Name: "id", Types: []string{"integer"}, Key: true},
		{Name: "name", Types: []string{"string", "null"}, May: true},
		{Name: "bio", Types: []string{"string", "null"}, May: true},
		{Name: "grade", Types: []string{"integer"}, May: true, Default: "7"},
		{Name: "_meta/op", Pointer: "/_meta/op", Types: []string{"string"}, May: true},
		{Name: "_meta/source/ts_ms", Pointer: "/_meta/source/ts_ms", Types: []string{"integer"}, May: true},
	}}
}

// newHistory is a task with the history of people.
func newHistory(t *testing.T, db database, codec frame.Codec, resource string) *sinktest.Runtime {
	t.Helper()
	c := db.sinkCase()
	c.Start = startHere
	return sinktest.NewRuntime(t, c, codec, sinktest.Task{Name: "acme/history", Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: people(), Resource: json.RawMessage(resource)},
	}})
}

const versionsOf = `SELECT id, name, bio, grade, (extract(epoch from valid_from) * 10)::bigint, (extract(epoch from valid_to) * 10)::bigint, is_current, version_number FROM people ORDER BY id, version_number`

// The story of a few rows, in transactions of every size: whatever shares one, the versions are the same.
func TestHistory(t *testing.T) {
	t.Parallel()
	for batch := 1; batch <= 12; batch++ {
		codec := frame.Proto
		if batch%2 == 0 {
			codec = frame.JSON
		}
		db := newDatabase(t)
		r := newHistory(t, db, codec, `{"table":"people","history":"scd2"}`)
		require.Equal(t, "Created table public.people.", r.MustApply())
		require.Empty(t, r.MustApply())
		r.Batch = batch
		for _, doc := range []string{
			`{"id":1,"name":"Ada","bio":"long","grade":1,"_meta":{"op":"c","source":{}}}`, // read by a backfill
			`{"id":2,"name":"Bob","bio":null,"grade":2,"_meta":{"op":"c","source":{"ts_ms":10000}}}`,
			`{"id":1,"name":"Ada","_meta":{"op":"u","source":{"ts_ms":11000}}}`, // nothing has changed, and some is left out
			`{"id":1,"name":"Eve","_meta":{"op":"u","source":{"ts_ms":12000}}}`,
			`{"id":2,"_meta":{"op":"d","source":{"ts_ms":13000}}}`,
			`{"id":1,"name":"Eve","bio":"short","_meta":{"op":"u","source":{"ts_ms":12500}}}`,
			`{"id":1,"name":null,"grade":3,"_meta":{"op":"u","source":{"ts_ms":12400}}}`, // a clock that went back
			`{"id":2,"name":"Bob","bio":null,"_meta":{"op":"c","source":{"ts_ms":14000}}}`,
			`{"id":2,"_meta":{"op":"d","source":{"ts_ms":14000}}}`, // in the same moment
			`{"id":2,"_meta":{"op":"d","source":{"ts_ms":15000}}}`,
			`{"id":3,"_meta":{"op":"d","source":{"ts_ms":15000}}}`,
			`{"id":1,"name":"Zoe","bio":"new","grade":3,"_meta":{"op":"c","source":{}}}`, // read by a backfill after a gap
		} {
			r.Log = append(r.Log, sinktest.Change{Doc: doc})
		}
		require.NoError(t, r.Run())
		require.Equal(t, "1|Ada|long|1||120|f|1\n"+
			"1|Eve|long|1|120|125|f|2\n"+
			"1|Eve|short|1|125|125|f|3\n"+
			"1||short|3|125|150|f|4\n"+
			"1|Zoe|new|3|150||t|5\n"+
			"2|Bob||2|100|130|f|1\n"+
			"2|Bob||7|140|140|f|2", db.exec(t, versionsOf), "transactions of %d", batch)
	}
}

// What a history cannot be made of is refused, with what to do instead.
func TestHistoryIsRefused(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const plain = `{"table":"people","history":"scd2"}`
	column := func(name string, change func(*sinktest.Column)) func(*sinktest.Runtime) {
		return func(r *sinktest.Runtime) {
			for i := range r.Task.Bindings[0].Collection.Columns {
				if c := &r.Task.Bindings[0].Collection.Columns[i]; c.Name == name {
					change(c)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		resource string
		change   func(*sinktest.Runtime)
		text     string
	}{
		"two ways":      {`{"table":"people","history":"scd2","deltaUpdates":true}`, nil, "deltaUpdates and history exclude each other"},
		"unknown kind":  {`{"table":"people","history":"scd4"}`, nil, "scd2"},
		"time of none":  {`{"table":"people","historyTime":"seen"}`, nil, "historyTime belongs to a history"},
		"no such time":  {`{"table":"people","history":"scd2","historyTime":"seen"}`, nil, `Collection "acme/people" has no field "seen", which historyTime names`},
		"time as text":  {`{"table":"people","history":"scd2","historyTime":"name"}`, nil, `Field "name" of collection "acme/people" cannot say since when a version is valid: it has to be an integer (milliseconds since 1970) or text of format date-time`},
		"no source":     {plain, column("_meta/source/ts_ms", func(c *sinktest.Column) { c.Name, c.Pointer = "ts", "/ts" }), `Collection "acme/people" does not say when its changes happened: it has no /_meta/source/ts_ms`},
		"taken name":    {plain, column("bio", func(c *sinktest.Column) { c.Name = "valid_to" }), `Field "valid_to" of collection "acme/people" has the name of a column that a history adds by itself. Exclude the field`},
		"key with null": {plain, column("id", func(c *sinktest.Column) { c.Types = []string{"integer", "null"} }), "A field that can be null cannot be part of a primary key"},
	} {
		r := newHistory(t, db, frame.Proto, c.resource)
		if c.change != nil {
			c.change(r)
		}
		_, err := r.Apply()
		require.ErrorContains(t, err, c.text, name)
	}

	r := newHistory(t, db, frame.Proto, plain)
	r.MustApply()
	for resource, text := range map[string]string{
		`{"table":"people"}`:                     "is to take one row per key, but holds a history of versions. Increase the binding's backfill counter",
		`{"table":"people","deltaUpdates":true}`: "is to take delta updates, but holds a history of versions",
	} {
		other := newHistory(t, db, frame.Proto, resource)
		_, err := other.Apply()
		require.ErrorContains(t, err, text)
		other.Task.Bindings[0].Backfill = 1
		require.NoError(t, r.Run())
	}
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"_meta":{"op":"c","source":{"ts_ms":9000000000000000000}}}`})
	require.ErrorContains(t, r.Run(), `The value 9000000000000000000 of field "_meta/source/ts_ms" cannot be stored in column "_meta/source/ts_ms" of public.people`)
}

// A history changes its shape like any table: new columns, wider ones, another backfill, and back to a table without history.
func TestHistoryEvolves(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newHistory(t, db, frame.Proto, `{"table":"people","history":"scd2","historyTime":"seen"}`)
	columns := &r.Task.Bindings[0].Collection.Columns
	*columns = append(*columns, sinktest.Column{Name: "seen", Types: []string{"string"}, Format: "date-time", May: true})
	r.MustApply()
	r.Log = []sinktest.Change{{Doc: `{"id":1,"name":"Ada","seen":"2024-01-01T00:00:00Z"}`}, {Doc: `{"id":2,"name":"Bob","seen":"2024-01-01T00:00:00Z"}`}}
	require.NoError(t, r.Run())

	*columns = append(*columns, sinktest.Column{Name: "extra", Types: []string{"integer"}, May: true})
	(*columns)[3].Types = []string{"string"} // grade
	r.MustApply()
	require.Empty(t, r.MustApply())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"name":"Ada","seen":"2024-02-01T00:00:00Z","extra":5}`}, sinktest.Change{Doc: `{"id":2,"name":"Bob","seen":"2024-01-01T00:00:00Z"}`})
	require.NoError(t, r.Run())
	const rows = `SELECT id, name, grade, extra, (valid_from AT TIME ZONE 'UTC')::date, is_current, version_number FROM people ORDER BY id, version_number`
	require.Equal(t, "1|Ada|7||2024-01-01|f|1\n1|Ada|7|5|2024-02-01|t|2\n2|Bob|7||2024-01-01|t|1", db.exec(t, rows))
	require.Equal(t, "people_id_idx|t|is_current\npeople_pkey|t|", db.exec(t, `SELECT relname, indisunique, pg_get_expr(indpred, indrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 'people'::regclass ORDER BY 1`))

	r.Task.Bindings[0].Backfill = 1
	require.Equal(t, "Emptied table public.people for backfill 1.", r.MustApply())
	r.Task.Bindings[0].Backfill = 2
	r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"people"}`)
	require.Equal(t, "Replaced table public.people for backfill 2.", r.MustApply())
	require.Equal(t, "0", db.exec(t, `SELECT count(*) FROM pg_attribute WHERE attrelid = 'people'::regclass AND attname = 'is_current'`))
}

// Deletions and partial updates lack what the schema requires of whole documents. Where every change is kept, that is no error.
func TestChangesLackWhatIsRequired(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newHistory(t, db, frame.Proto, `{"table":"people","deltaUpdates":true}`)
	r.Task.Bindings[0].Collection.Columns[1] = sinktest.Column{Name: "name", Types: []string{"string"}}
	r.MustApply()
	r.Log = []sinktest.Change{
		{Doc: `{"id":1,"name":"Ada","grade":1,"_meta":{"op":"c","source":{"ts_ms":10000}}}`},
		{Doc: `{"id":1,"grade":2,"_meta":{"op":"u","source":{"ts_ms":11000}}}`},
		{Doc: `{"id":1,"_meta":{"op":"d","source":{"ts_ms":12000}}}`},
	}
	require.NoError(t, r.Run())
	require.Empty(t, r.MustApply())
	require.Equal(t, "c|Ada|1\nu||2\nd||7", db.exec(t, `SELECT "_meta/op", name, grade FROM people ORDER BY "_meta/source/ts_ms"`))
}

// Columns whose types have a length or a precision: what is stored is compared, and what does not fit is not cut.
func TestHistoryOfLimitedTypes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newHistory(t, db, frame.Proto, `{"table":"people","history":"scd2"}`)
	for i, to := range []string{1: "char(5)", 2: "varchar(5)", 3: "numeric(8,2)"} {
		if to != "" {
			r.Task.Bindings[0].Collection.Columns[i].Config = `{"columnType":"` + to + `"}`
		}
	}
	r.Batch = 2
	r.MustApply()
	for i := range 3 {
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":1,"name":"Ada","bio":"brief","grade":1,"_meta":{"op":"u","source":{"ts_ms":%d}}}`, i)})
	}
	require.NoError(t, r.Run())
	require.Equal(t, "Ada  |brief|1.00|1", db.exec(t, "SELECT name, bio, grade, version_number FROM people"))
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"name":"Ada","bio":"brief text","grade":1,"_meta":{"op":"u","source":{"ts_ms":9}}}`})
	require.ErrorContains(t, r.Run(), "value too long for type character varying(5)")
}
