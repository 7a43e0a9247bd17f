package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

func adopting(t *testing.T, db database, columns ...sinktest.Column) *sinktest.Runtime {
	t.Helper()
	r := newTask(t, db, db.config(nil))
	r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"orders","adopt":true}`)
	if len(columns) > 0 {
		r.Task.Bindings[0].Collection.Columns = columns
	}
	r.Log, r.Batch = nil, 10
	return r
}

// A table that somebody made is filled on request. Its rows, columns, defaults, indexes, triggers, grants and views stay, and a
// row that it has is found by its key although nobody stored it.
func TestAdopt(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `CREATE TABLE orders (mine serial, id integer PRIMARY KEY, note varchar(20), since date NOT NULL DEFAULT '2020-01-01', seen int NOT NULL DEFAULT 0)`,
		"INSERT INTO orders (id, note) VALUES (1, 'old'), (7, 'nobody''s')", "CREATE INDEX by_note ON orders (note)", "CREATE VIEW v AS SELECT id, note FROM orders",
		"CREATE ROLE "+db.name+"_reader", "GRANT SELECT ON orders TO "+db.name+"_reader",
		"CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.seen = NEW.seen + 1; RETURN NEW; END'",
		"CREATE TRIGGER see BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION see()")
	t.Cleanup(func() { db.exec(t, "DROP OWNED BY "+db.name+"_reader", "DROP ROLE "+db.name+"_reader") })
	r := adopting(t, db)
	require.Equal(t, `Adopted table public.orders with its rows. Altered table public.orders: ADD COLUMN "_meta/op" text.`, r.MustApply())
	require.Empty(t, r.MustApply(), "applying twice must not change anything more")
	require.Equal(t, `t|t|["_meta/op"]`, db.exec(t, "SELECT adopted, load_all, made FROM sluice_tables_v1"), "runtimes must not guess which keys are new")
	r.Log = []sinktest.Change{{Doc: `{"id":1,"note":"new","_meta":{"op":"u"}}`}, {Doc: `{"id":2,"note":"two","_meta":{"op":"c"}}`}}
	require.NoError(t, r.Run())
	require.Equal(t, "1|1|new|2020-01-01|1|u\n2|7|nobody's|2020-01-01|0|\n3|2|two|2020-01-01|1|c", db.exec(t, "SELECT * FROM orders ORDER BY mine"))
	require.Equal(t, "3|1|t", db.exec(t, "SELECT (SELECT count(*) FROM v), (SELECT count(*) FROM pg_indexes WHERE indexname = 'by_note'), has_table_privilege('"+db.name+"_reader', 'orders', 'SELECT')"))

	// A document that a change tells only in part is completed by the row, also if that was there before.
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":7,"_meta":{"op":"u"}}`})
	require.NoError(t, r.Run())
	require.Equal(t, "nobody's|u", db.exec(t, `SELECT note, "_meta/op" FROM orders WHERE id = 7`))

	// A backfill stores over the rows and empties nothing: some are in no collection.
	r.Task.Bindings[0].Backfill = 1
	require.Equal(t, "Kept the rows of the adopted table public.orders; backfill 1 is stored over them.", r.MustApply())
	require.Equal(t, "3", db.exec(t, "SELECT count(*) FROM orders"))
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":2147483648,"note":"large"}`})
	require.ErrorContains(t, r.Run(), `which is of type integer: it is not an integer between -2147483648 and 2147483647`)

	// Without the request it was refused; with it, another materialization's still is.
	other := adopting(t, db)
	other.Task.Name = "acme/other"
	_, err := other.Apply()
	require.ErrorContains(t, err, `Table public.orders belongs to materialization "acme/sink"`)
}

// A unique index on the collection's key will do, and a table that is not there yet is created.
func TestAdoptByUniqueIndex(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	require.Equal(t, "Created table public.orders.", adopting(t, db).MustApply())
	db.exec(t, "DROP TABLE orders", "DELETE FROM sluice_tables_v1", "CREATE TABLE orders (surrogate bigserial PRIMARY KEY, id bigint, note text, UNIQUE (id))")
	r := adopting(t, db)
	r.MustApply()
	r.Log = []sinktest.Change{{Doc: `{"id":1,"note":"a"}`}, {Doc: `{"id":2,"note":"b"}`}}
	require.NoError(t, r.Run())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"note":"c"}`})
	require.NoError(t, r.Run())
	require.Equal(t, "1|1|c\n2|2|b", db.exec(t, "SELECT surrogate, id, note FROM orders ORDER BY 1"))

	db.exec(t, "ALTER TABLE orders ADD UNIQUE (note)")
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":3,"note":"c"}`})
	require.ErrorContains(t, r.Run(), `A row breaks the unique constraint "orders_note_key" of public.orders, which is not that of the collection's key: Key (note)=(c) already exists.`)
}

// A column of JSON that somebody made holds texts, too, and is left as it is.
func TestAdoptJSONForText(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "CREATE TABLE orders (id bigint PRIMARY KEY, note json)")
	r := adopting(t, db)
	r.MustApply()
	require.NoError(t, addTo(r, `{"id":1,"note":"a text"}`))
	require.NoError(t, addTo(r, `{"id":1,"_meta":{"op":"u"}}`))
	require.Equal(t, `json|"a text"`, db.exec(t, "SELECT pg_typeof(note), note FROM orders"))
}

// A primary key that includes other columns for whoever reads only the index is one on its own columns.
func TestAdoptByKeyWithIncludedColumns(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "CREATE TABLE orders (note text, b bigint, a bigint, PRIMARY KEY (a, b) INCLUDE (note))")
	r := adopting(t, db, sinktest.Column{Name: "a", Types: []string{"integer"}, Key: true}, sinktest.Column{Name: "b", Types: []string{"integer"}, Key: true}, fieldOf("note", "string"))
	r.MustApply()
	require.NoError(t, addTo(r, `{"a":1,"b":2,"note":"x"}`))
	require.NoError(t, addTo(r, `{"a":1,"b":2,"note":"y"}`))
	require.Equal(t, "y|2|1", db.exec(t, "SELECT * FROM orders"))
}

// What keeps a table from being adopted, by name and with advice.
func TestAdoptRefused(t *testing.T) {
	t.Parallel()
	id := sinktest.Column{Name: "id", Types: []string{"integer"}, Key: true}
	for name, c := range map[string]struct {
		table   string
		columns []sinktest.Column
		texts   []string
	}{
		"no key":       {"CREATE TABLE orders (id bigint, note text)", nil, []string{`Table public.orders has neither a primary key nor a unique index on the collection's key (id), so its rows cannot be found. Run ALTER TABLE "public"."orders" ADD UNIQUE ("id")`}},
		"partial key":  {"CREATE TABLE orders (id bigint, note text); CREATE UNIQUE INDEX ON orders (id) WHERE note IS NOT NULL", nil, []string{"has neither a primary key nor a unique index"}},
		"deferred key": {"CREATE TABLE orders (id bigint PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text)", nil, []string{"has neither a primary key nor a unique index"}},
		"no default": {"CREATE TABLE orders (id bigint PRIMARY KEY, who text NOT NULL)", nil, []string{
			`Column "who" of public.orders allows no NULL and has no default, but no field of the collection is stored in it, so no row could be added. Run ALTER TABLE "public"."orders" ALTER COLUMN "who" SET DEFAULT …`,
		}},
		"narrow column": {"CREATE TABLE orders (id bigint PRIMARY KEY, size bigint)", []sinktest.Column{id, {Name: "size", Types: []string{"number"}, May: true}}, []string{
			`Column "size" of public.orders is of type bigint, which does not hold every value of its field; numeric would. The column was not made by this materialization, so neither it nor a backfill changes it.`,
		}},
		"wrong column": {"CREATE TABLE orders (id bigint PRIMARY KEY, size boolean)", []sinktest.Column{id, {Name: "size", Types: []string{"integer"}, May: true}}, []string{
			`Column "size" of public.orders is of type boolean, which does not hold every value of its field; bigint would`,
		}},
		"not null": {"CREATE TABLE orders (id bigint PRIMARY KEY, note text NOT NULL)", nil, []string{
			`Column "note" of public.orders does not allow NULL, but documents need not have a value for its field. Run ALTER TABLE "public"."orders" ALTER COLUMN "note" DROP NOT NULL`,
		}},
		"generated": {"CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)", nil, []string{
			`Column "id" of public.orders is generated by the server, so nothing can be stored in it. Exclude the field, or make it an ordinary column; an identity column has to be GENERATED BY DEFAULT.`,
		}},
		"a view":     {"CREATE VIEW orders AS SELECT 1 AS id", nil, []string{"is not a table"}},
		"two things": {"CREATE TABLE orders (id bigint, who text NOT NULL)", nil, []string{"has neither a primary key nor a unique index", `Column "who" of public.orders allows no NULL`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.exec(t, c.table)
			_, err := adopting(t, db, c.columns...).Apply()
			for _, text := range c.texts {
				require.ErrorContains(t, err, text)
			}
		})
	}
	require.ErrorContains(t, resource{Table: "t", Adopt: true, History: historySCD2}.Validate(), "adopt and history exclude each other")
}

// Appending to an adopted table needs no key.
func TestAdoptForDeltaUpdates(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "CREATE TABLE orders (id integer, note text, at timestamptz NOT NULL DEFAULT now())", "INSERT INTO orders VALUES (1, 'old')")
	r := adopting(t, db)
	r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"orders","adopt":true,"deltaUpdates":true}`)
	r.MustApply()
	r.Log = []sinktest.Change{{Doc: `{"id":1,"note":"a"}`}, {Doc: `{"id":1,"note":"b"}`}}
	require.NoError(t, r.Run())
	require.Equal(t, "1|a\n1|b\n1|old", db.exec(t, "SELECT id, note FROM orders ORDER BY note"))
}

// Who wants partitions, defaults or constraints makes the table and has it adopted: rows find their
// partitions.
func TestAdoptPartitioned(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "CREATE TABLE orders (id bigint, region text, note text, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
		"CREATE TABLE orders_north PARTITION OF orders FOR VALUES IN ('north')", "CREATE TABLE orders_rest PARTITION OF orders DEFAULT")
	r := adopting(t, db, sinktest.Column{Name: "id", Types: []string{"integer"}, Key: true}, sinktest.Column{Name: "region", Types: []string{"string"}, Key: true},
		sinktest.Column{Name: "note", Types: []string{"string"}, May: true}, sinktest.Column{Name: "size", Types: []string{"integer"}, May: true})
	r.MustApply()
	r.Log = []sinktest.Change{{Doc: `{"id":1,"region":"north","note":"a"}`}, {Doc: `{"id":1,"region":"south","note":"b"}`}}
	require.NoError(t, r.Run())
	require.NoError(t, addTo(r, `{"id":1,"region":"north","size":5}`))
	require.Equal(t, "orders_north|1|a|5\norders_rest|1|b|", db.exec(t, "SELECT tableoid::regclass, id, note, size FROM orders ORDER BY 1"))
}
