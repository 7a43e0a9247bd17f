package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// widenings are pairs of fields of which the first one's column becomes the second one's, and what happens to values.
func widenings() []struct{ from, to, value, stored, becomes string } {
	type w = struct{ from, to, value, stored, becomes string }
	return []w{
		{"integer", "number", "9007199254740993", "numeric", "9007199254740993"},
		{"integer", "integer>64", "-5", "numeric", "-5"},
		{"integer", "string:number", "7", "numeric", "7"},
		{"integer", "string", "7", "text", "7"},
		{"integer", "integer,string", "7", "jsonb", "7"},
		{"number", "integer>64", "0.12345678901234568", "numeric", "0.12345678901234568"},
		{"number", "string", "1e+300", "text", "1e+300"},
		{"number", "boolean,number", "0.1", "jsonb", "0.1"},
		{"number,string:number", "string:number", `"NaN"`, "numeric", "NaN"},
		{"string:number", "string", `"1.50"`, "text", "1.50"},
		{"string:number", "boolean,string", `"1.50"`, "jsonb", `"1.50"`},
		{"boolean", "string", "true", "text", "true"},
		{"boolean", "boolean,integer", "true", "jsonb", "true"},
		{"string", "integer,string", `"7"`, "jsonb", `"7"`},
		{"string", "object", `"7"`, "jsonb", `"7"`},
		{"string:date", "string", `"2024-02-29"`, "text", "2024-02-29"},
		{"string:date-time", "string", `"2024-02-29T12:00:00.5Z"`, "text", "2024-02-29T12:00:00.5Z"},
		{"string:date-time", "string", `"infinity"`, "text", "infinity"},
		{"string:date-time", "integer,string", `"2024-02-29T12:00:00Z"`, "jsonb", `"2024-02-29T12:00:00Z"`},
		{"string:time", "string", `"12:00:00.5+05:30"`, "text", "12:00:00.5+05:30"},
		{"string:time", "string", `"12:00:00Z"`, "text", "12:00:00Z"},
		{"string:duration", "string", `"P1DT2H"`, "text", "P1DT2H"},
		{"string:uuid", "string", `"01234567-89ab-cdef-0123-456789abcdef"`, "text", "01234567-89ab-cdef-0123-456789abcdef"},
		{"string:ipv4", "string", `"10.0.0.1"`, "text", "10.0.0.1"},
		{"string:cidr", "string:ipv4", `"10.0.0.0/8"`, "inet", "10.0.0.0/8"},
		{"string:macaddr", "boolean,string", `"08:00:2b:01:02:03"`, "jsonb", `"08:00:2b:01:02:03"`},
		{"string/base64", "string", `"AAEC/w=="`, "text", "AAEC/w=="},
		{"string/base64", "integer,string", `"AAEC/w=="`, "jsonb", `"AAEC/w=="`},
		{"string/json", "string", `"{\"a\" : \"\\ud800\"}"`, "text", `{"a" : "\ud800"}`},
		{"string/json", "string", `"\"quoted\""`, "text", `"quoted"`},
		{"object", "object,string", `{"a":1}`, "jsonb", `{"a": 1}`},
		{"array", "array,integer", `[1,2]`, "jsonb", `[1, 2]`},
		// A type that holds the other one's values already.
		{"string", "string:uuid", `"x"`, "text", "x"},
		{"object", "integer", `{"a":1}`, "jsonb", `{"a": 1}`},
		{"string:number", "number", `"1.50"`, "numeric", "1.50"},
	}
}

// fieldOf makes a column of a short notation: types, format, and encoding or, for JSON, media type.
func fieldOf(name, text string) sinktest.Column {
	text, encoding, _ := strings.Cut(text, "/")
	text, format, _ := strings.Cut(text, ":")
	c := sinktest.Column{Name: name, Format: format, Encoding: encoding, May: true}
	if encoding == "json" {
		c.Encoding, c.MediaType = "", "application/json"
	}
	if base, ok := strings.CutSuffix(text, ">64"); ok {
		text, c.Max = base, 1e30
	}
	c.Types = strings.Split(text, ",")
	return c
}

// Columns are widened in place, with the rows that they have, and values are what documents would have: one table has all
// pairs, so all are one ALTER TABLE. The table is read by another session meanwhile, which does not get in the way for long.
func TestWidening(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	id := sinktest.Column{Name: "id", Types: []string{"integer"}, Key: true}
	before, after, doc := []sinktest.Column{id}, []sinktest.Column{id}, []string{`"id":1`}
	for i, w := range widenings() {
		name := fmt.Sprintf("f%02d", i)
		before, after = append(before, fieldOf(name, w.from)), append(after, fieldOf(name, w.to))
		doc = append(doc, fmt.Sprintf("%q:%s", name, w.value))
	}
	r.Task.Bindings[0].Collection.Columns = before
	r.Log = []sinktest.Change{{Doc: "{" + strings.Join(doc, ",") + "}"}, {Doc: `{"id":2}`}}
	r.MustApply()
	require.NoError(t, r.Run())

	reader := db.connect(t)
	defer reader.close()
	require.NoError(t, reader.exec(t.Context(), "BEGIN; SELECT count(*) FROM public.orders"))
	r.Task.Bindings[0].Collection.Columns = after
	applied := make(chan error, 1)
	go func() {
		_, err := r.Apply()
		applied <- err
	}()
	db.waits(t, "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'", "1")
	require.NoError(t, reader.exec(t.Context(), "COMMIT"))
	require.NoError(t, <-applied)
	require.Empty(t, r.MustApply(), "applying twice must not change anything more")

	for i, w := range widenings() {
		name := fmt.Sprintf("f%02d", i)
		require.Equal(t, w.stored, db.exec(t, "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = '"+name+"'"), "%s to %s", w.from, w.to)
		require.Equal(t, w.becomes, db.exec(t, "SELECT "+name+"::text FROM orders WHERE id = 1"), "%s to %s", w.from, w.to)
	}
	require.Equal(t, "t", db.exec(t, "SELECT jsonb_strip_nulls(to_jsonb(o)) = '{\"id\": 2}' FROM orders o WHERE id = 2"), "nulls stay")
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"f00":0.5}`})
	require.NoError(t, r.Run(), "old values are loaded and stored again")
	require.Equal(t, "0.5|7", db.exec(t, "SELECT f00, f03 FROM orders WHERE id = 1"))
}

// A field that no longer fits is incompatible, with the reason and the way out, which works: the table stays, and so does what
// people made of it.
func TestIncompatibleField(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	columns := r.Task.Bindings[0].Collection.Columns
	set := func(text string) {
		r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), fieldOf("size", text))
	}
	set("integer")
	r.MustApply()
	require.NoError(t, r.Run())
	db.exec(t, "ALTER TABLE orders ADD COLUMN mine text DEFAULT 'x'", "CREATE VIEW v AS SELECT id, mine FROM orders")
	set("string:uuid")
	_, err := r.Apply()
	require.ErrorContains(t, err, `field "size" of acme/orders: Column "size" of public.orders is of type bigint, which cannot be changed to uuid without losing values. Increase the binding's backfill counter to rebuild the table, or rename the column.`)
	r.Task.Bindings[0].Backfill = 1
	require.Equal(t, `Emptied table public.orders for backfill 1. Altered table public.orders: ALTER COLUMN "size" TYPE uuid USING NULL.`, r.MustApply())
	require.Empty(t, r.MustApply())
	require.Equal(t, "0", db.exec(t, "SELECT count(*) FROM v"))

	// A column that was widened gets its natural type back, unless a view needs it as it is.
	set("integer,string")
	r.MustApply()
	set("integer")
	require.Empty(t, r.MustApply(), "jsonb holds integers")
	r.Task.Bindings[0].Backfill = 2
	db.exec(t, "CREATE VIEW w AS SELECT size FROM orders")
	r.MustApply()
	require.Equal(t, "jsonb", db.exec(t, "SELECT pg_typeof(size) FROM (SELECT) x LEFT JOIN orders ON true"))
	db.exec(t, "DROP VIEW w")
	r.Task.Bindings[0].Backfill = 3
	r.MustApply()
	require.Equal(t, "bigint", db.exec(t, "SELECT pg_typeof(size) FROM (SELECT) x LEFT JOIN orders ON true"))

	// What needs a view's column changed says so.
	db.exec(t, "CREATE VIEW w AS SELECT size FROM orders")
	set("string:uuid")
	r.Task.Bindings[0].Backfill = 4
	_, err = r.Apply()
	require.ErrorContains(t, err, "The destination does not allow it: cannot alter type of a column used by a view or rule. If it is because other objects depend on the table (rule _RETURN on view public.w depends on column \"size\"), drop them")
}

// A removed field's column stays, may be empty, and is filled again when the field comes back, whatever its type then is.
func TestFieldsThatComeBack(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	columns := r.Task.Bindings[0].Collection.Columns
	with := func(more ...sinktest.Column) {
		r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), more...)
	}
	same, other, bad := fieldOf("same", "integer"), fieldOf("other", "integer"), fieldOf("bad", "boolean")
	same.May, other.May, bad.May = false, false, false
	r.Log = []sinktest.Change{{Doc: `{"id":1,"same":1,"other":2,"bad":true}`}}
	with(same, other, bad)
	r.MustApply()
	require.NoError(t, r.Run())
	with()
	require.Equal(t, `Altered table public.orders: ALTER COLUMN "bad" DROP NOT NULL, ALTER COLUMN "other" DROP NOT NULL, ALTER COLUMN "same" DROP NOT NULL.`, r.MustApply())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":2}`})
	require.NoError(t, r.Run())
	with(fieldOf("same", "integer"), fieldOf("other", "string"))
	require.Equal(t, `Altered table public.orders: ALTER COLUMN "other" TYPE text USING (to_jsonb("other") #>> '{}').`, r.MustApply())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":3,"same":3,"other":"three"}`})
	require.NoError(t, r.Run())
	require.Equal(t, "1|1|2|t\n2|||\n3|3|three|", db.exec(t, "SELECT id, same, other, bad FROM orders ORDER BY id"))
	with(fieldOf("bad", "string:date"))
	_, err := r.Apply()
	require.ErrorContains(t, err, `Column "bad" of public.orders is of type boolean, which cannot be changed to date`)
}

// A binding that goes to another table leaves the old one as it is; one that comes back goes on with the table that it left.
func TestBindingsThatMove(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Log = []sinktest.Change{{Doc: `{"id":1,"note":"a"}`}}
	r.MustApply()
	require.NoError(t, r.Run())
	first := r.Task.Bindings[0]
	second := first
	second.Resource = json.RawMessage(`{"table":"renamed"}`)
	r.Task.Bindings = []sinktest.Binding{second}
	require.Equal(t, "Created table public.renamed. Left table public.orders as it is; it is no longer updated.", r.MustApply())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":2,"note":"b"}`})
	require.NoError(t, r.Run())
	require.Equal(t, "1|a", db.exec(t, "SELECT id, note FROM orders"))
	require.Equal(t, "2|b", db.exec(t, "SELECT id, note FROM renamed"))

	r.Task.Bindings = []sinktest.Binding{first}
	require.Equal(t, "Left table public.renamed as it is; it is no longer updated.", r.MustApply())
	r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"_meta":{"op":"u"}}`}, sinktest.Change{Doc: `{"id":2,"note":"back"}`})
	require.NoError(t, r.Run())
	require.Equal(t, "1|a|u\n2|back|", db.exec(t, `SELECT id, note, "_meta/op" FROM orders ORDER BY id`), "rows that were there before are loaded")
}

// addTo appends a document to the log and runs; one that cannot be stored is forgotten.
func addTo(r *sinktest.Runtime, doc string) error {
	before := r.Log
	r.Log = append(r.Log, sinktest.Change{Doc: doc})
	err := r.Run()
	if err != nil {
		r.Log = before
	}
	return err
}

// What people did to a table by hand is noticed, before anything is lost.
func TestChangesByHand(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.MustApply()
	require.NoError(t, r.Run())
	db.exec(t, "ALTER TABLE orders DROP COLUMN note")
	_, err := r.Apply()
	require.ErrorContains(t, err, `Table public.orders has no column "note" any more, although this materialization made one. Exclude the field if it is not wanted, or increase the binding's backfill counter to fill the column anew.`)
	require.ErrorContains(t, addTo(r, `{"id":1,"note":"x"}`), `Table public.orders has no column "note". If it was dropped by hand`)
	all := r.Task.Bindings[0].Collection.Columns
	r.Task.Bindings[0].Collection.Columns = append(all[:1:1], all[2])
	r.MustApply()
	r.Task.Bindings[0].Collection.Columns = all
	require.Equal(t, `Altered table public.orders: ADD COLUMN "note" text.`, r.MustApply(), "a field that was excluded meanwhile is a new one")
	db.exec(t, "ALTER TABLE orders DROP COLUMN note")
	r.Task.Bindings[0].Backfill = 1
	require.Equal(t, `Emptied table public.orders for backfill 1. Altered table public.orders: ADD COLUMN "note" text.`, r.MustApply())

	db.exec(t, "ALTER TABLE orders ALTER COLUMN note TYPE uuid USING NULL")
	require.ErrorContains(t, addTo(r, `{"id":1,"note":"x"}`), `The value "x" of field "note" cannot be stored in column "note" of public.orders, which is of type uuid: it is not a UUID`)
	require.Equal(t, `Altered table public.orders: ALTER COLUMN "note" TYPE text USING (to_jsonb("note") #>> '{}').`, r.MustApply(), "it was ours, and is widened again")

	db.exec(t, "ALTER TABLE orders ADD COLUMN mine text NOT NULL DEFAULT ''", "ALTER TABLE orders ALTER COLUMN mine DROP DEFAULT")
	_, err = r.Apply()
	require.ErrorContains(t, err, `Column "mine" of public.orders allows no NULL and has no default`)
	require.ErrorContains(t, addTo(r, `{"id":1}`), `Column "mine" of public.orders does not allow NULL`)
	db.exec(t, "ALTER TABLE orders ALTER COLUMN mine SET DEFAULT 'x'")
	require.NoError(t, addTo(r, `{"id":1}`))
	require.Empty(t, r.MustApply())
	require.Equal(t, "x", db.exec(t, "SELECT mine FROM orders"))
}

// Types that users choose for fields: looked up before use, widened to where that is possible, refused where not.
func TestColumnTypes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, "CREATE TYPE mood AS ENUM ('sad', 'glad')")
	r := newTask(t, db, db.config(nil))
	columns := r.Task.Bindings[0].Collection.Columns
	set := func(types, config string) error {
		f := fieldOf("f", types)
		f.Config = config
		r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), f)
		_, err := r.Apply()
		return err
	}
	require.ErrorContains(t, set("string", `{"columnType":"public.moody"}`), `The destination has no type "public.moody", which is chosen as the columnType of field "f". Correct it; types that are not Postgres' own are written with their schema, such as public.mood.`)
	require.ErrorContains(t, set("string", `{"columnType":"text); DROP TABLE x; --"}`), `The destination has no type "text); DROP TABLE x; --"`)
	r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), fieldOf("f", "string"))
	for config, text := range map[string]string{`{"columntype":1}`: "is not understood", `{"castToText":true}`: `unknown field "castToText"`, `{"castToString":true,"columnType":"date"}`: "castToString and columnType exclude each other"} {
		f := sinktest.Column{Name: "f", Types: []string{"string"}, Key: true, Config: config}
		r.Task.Bindings[0].Collection.Columns[len(columns)] = f
		_, err := r.Apply()
		require.ErrorContains(t, err, text)
	}
	require.NoError(t, set("string", `{"columnType":"public.mood"}`))
	r.Log = []sinktest.Change{{Doc: `{"id":1,"f":"glad"}`}}
	require.NoError(t, r.Run())
	require.Equal(t, "mood", db.exec(t, "SELECT pg_typeof(f) FROM orders"))
	require.ErrorContains(t, set("string", `{"columnType":"inet"}`), `Column "f" of public.orders is of type public.mood, which cannot be changed to inet`)
	require.NoError(t, set("string", `{"castToString":true}`))
	require.Equal(t, "text", db.exec(t, "SELECT pg_typeof(f) FROM orders"))
	r.Task.Bindings[0].Backfill = 1
	require.NoError(t, set("number,string:number", ""))
	require.Equal(t, "double precision", db.exec(t, "SELECT pg_typeof(f) FROM (SELECT) x LEFT JOIN orders ON true"))
	err := addTo(r, `{"id":1,"f":"0.12345678901234567890"}`)
	require.ErrorContains(t, err, `which is of type double precision: it has more digits than a double can hold`)
	require.NoError(t, set("number,string:number", `{"columnType":"numeric"}`), "widened in place")
	require.NoError(t, addTo(r, `{"id":1,"f":"0.12345678901234567890"}`))
	require.Equal(t, "0.12345678901234567890", db.exec(t, "SELECT f FROM orders"))
}

// Keys of types that are not Postgres' own are compared as their indexes do, whatever the schema of the operator: what a change leaves out
// stays, and a history finds the version before.
func TestKeysOfChosenTypes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(t, `CREATE SCHEMA "e x"`, `CREATE EXTENSION citext SCHEMA "e x"`, "CREATE EXTENSION ltree", `CREATE DOMAIN name AS "e x".citext`, "CREATE TYPE mood AS ENUM ('a', 'b')")
	for i, c := range []struct{ columnType, value, same string }{
		{`"e x".citext`, "A", "a"},
		{"public.name", "A", "a"},
		{"public.ltree", "a.b", "a.b"},
		{"public.mood", "a", "a"},
		{"varchar(3)", "a", "a"},
		{"char(3)", "a", "a"},
		{"int4range", "[1,2]", "[1,3)"},
	} {
		for _, history := range []string{"", `,"history":"scd2"`} {
			r := newTask(t, db, db.config(nil))
			name := fmt.Sprintf("t%d_%d", i, len(history))
			r.Task.Name = "acme/" + name
			r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"` + name + `"` + history + `}`)
			columns := slices.Clone(r.Task.Bindings[0].Collection.Columns)
			columns[0] = sinktest.Column{Name: "id", Types: []string{"string"}, Key: true, Config: fmt.Sprintf(`{"columnType":%q}`, c.columnType)}
			r.Task.Bindings[0].Collection.Columns = append(columns, fieldOf("size", "integer"),
				sinktest.Column{Name: "_meta/source/ts_ms", Pointer: "/_meta/source/ts_ms", Types: []string{"integer"}, May: true})
			r.Log, r.Batch = nil, 1
			for n, id := range []string{c.value, c.same, c.value} {
				r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%q,"size":%d,"_meta":{"source":{"ts_ms":%[2]d}}}`, id, n)})
			}
			r.Log[0].Doc = strings.Replace(r.Log[0].Doc, "{", `{"note":"kept",`, 1)
			r.MustApply()
			require.NoError(t, r.Run(), c.columnType)
			if history == "" {
				require.Equal(t, "kept|2", db.exec(t, "SELECT note, size FROM "+name), c.columnType)
			} else {
				require.Equal(t, "kept|0|f|1\nkept|1|f|2\nkept|2|t|3", db.exec(t, "SELECT note, size, is_current, version_number FROM "+name+" ORDER BY 4"), c.columnType)
			}
		}
	}
	r := newTask(t, db, db.config(nil))
	r.Task.Bindings[0].Collection.Columns[0] = sinktest.Column{Name: "id", Types: []string{"string"}, Key: true, Config: `{"columnType":"point"}`}
	_, err := r.Apply()
	require.ErrorContains(t, err, `data type point has no default operator class for access method "btree". If it is about the type of a column, choose another one (columnType), or set castToString`)
}

// Another length or precision of a chosen type: a longer one widens the column in place, a shorter one waits for a backfill.
func TestLengthsOfColumnTypes(t *testing.T) {
	t.Parallel()
	const typeOfF = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'f'"
	for _, c := range []struct{ shorter, longer, types, value, stored string }{
		{"varchar(3)", "varchar(10)", "string", `"abc"`, "character varying(10)"},
		{"varchar(3)", "varchar", "string", `"abc"`, "character varying"},
		{"varbit(3)", "varbit(10)", "string", `"101"`, "bit varying(10)"},
		{"numeric(4,2)", "numeric(10,4)", "string:number", `"12.34"`, "numeric(10,4)"},
		{"numeric(4,2)", "numeric(6,4)", "string:number", `"12.34"`, "numeric(6,4)"},
		{"timestamptz(0)", "timestamptz(3)", "string:date-time", `"2024-01-01T00:00:00Z"`, "timestamp(3) with time zone"},
	} {
		t.Run(c.shorter+" to "+c.longer, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r := newTask(t, db, db.config(nil))
			columns := r.Task.Bindings[0].Collection.Columns
			apply := func(columnType string) error {
				f := fieldOf("f", c.types)
				f.Config = fmt.Sprintf(`{"columnType":%q}`, columnType)
				r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), f)
				_, err := r.Apply()
				return err
			}
			r.Log = nil
			require.NoError(t, apply(c.shorter))
			require.NoError(t, addTo(r, `{"id":1,"f":`+c.value+`}`))
			before := db.exec(t, "SELECT f::text FROM orders")
			require.NoError(t, apply(c.longer))
			require.Empty(t, r.MustApply(), "applying twice must not change anything more")
			require.Equal(t, c.stored, db.exec(t, typeOfF))
			require.Equal(t, "t", db.exec(t, "SELECT f = '"+before+"' FROM orders"))
			require.NoError(t, apply(c.shorter))
			require.Equal(t, c.stored, db.exec(t, typeOfF), "it holds what the shorter one does")
			r.Task.Bindings[0].Backfill = 1
			require.NoError(t, apply(c.shorter))
			require.NotEqual(t, c.stored, db.exec(t, typeOfF))
			require.NoError(t, addTo(r, `{"id":1,"f":`+c.value+`}`))
		})
	}
	for _, c := range []struct {
		have, want string
		longer     bool
	}{{"numeric(10,2)", "numeric(10,4)", false}, {"numeric", "numeric(10,4)", false}, {"bit(3)", "bit(5)", false}, {"numeric(3,-2)", "numeric(5,0)", true}, {"numeric(5,0)", "numeric(3,-2)", false}} {
		have, want := typeOfLength(c.have), typeOfLength(c.want)
		require.Equal(t, c.longer, wanted{modifier: want.modifier}.longer(have), "%s to %s", c.have, c.want)
	}
}

// typeOfLength is a type with a length in the server's form.
func typeOfLength(text string) existingColumn {
	name, length, found := strings.Cut(strings.TrimSuffix(text, ")"), "(")
	c := existingColumn{castName: name, modifier: -1}
	if name == "numeric" {
		c.oid = kinds[kindNumeric].oid
	}
	if found {
		var precision, scale int32
		_, _ = fmt.Sscanf(length, "%d,%d", &precision, &scale)
		c.modifier = (precision<<16 | scale&0x7ff) + 4
	}
	return c
}

// A counter that goes back is refused: the position of the earlier backfill may still be known, beyond the rows that emptying the table
// would lose.
func TestBackfillCounterGoesBack(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	r.Task.Bindings[0].Backfill = 2
	r.MustApply()
	require.NoError(t, r.Run())
	r.Task.Bindings[0].Backfill = 1
	const text = "The binding's backfill counter is 1, but table public.orders was filled with 2 before. Set it to 2 to go on, or to 3 to fill the table anew."
	_, err := r.Apply()
	require.ErrorContains(t, err, text)
	require.Equal(t, "20", db.exec(t, "SELECT count(*) FROM orders"))
	db.exec(t, "DROP TABLE orders")
	_, err = r.Apply()
	require.ErrorContains(t, err, text)
	r.Task.Bindings[0].Backfill = 3
	require.Equal(t, "Created table public.orders.", r.MustApply())
}

// Bindings that change places would mix the rows of their collections.
func TestBindingsThatChangePlaces(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	others := r.Task.Bindings[0]
	others.Collection.Name, others.Resource = "acme/others", json.RawMessage(`{"table":"others"}`)
	r.Task.Bindings = append(r.Task.Bindings, others)
	r.Log = append(r.Log, sinktest.Change{Binding: 1, Doc: `{"id":100,"note":"other"}`})
	r.MustApply()
	require.NoError(t, r.Run())
	b := r.Task.Bindings
	b[0].Resource, b[1].Resource = b[1].Resource, b[0].Resource
	_, err := r.Apply()
	require.ErrorContains(t, err, `Table public.others holds rows of collection "acme/others", and is to take those of "acme/orders". Increase the binding's backfill counter to start the table anew, or choose another one.`)
	b[0].Backfill, b[1].Backfill = 1, 1
	require.Equal(t, "Emptied table public.others for backfill 1. Emptied table public.orders for backfill 1.", r.MustApply())
}

// What people made of a column and that keeps it from being widened is named, and the advice works. A backfill does not insist on the
// column's natural type.
func TestColumnsThatPeopleNeed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ from, to, make, text, remove string }{
		"index":      {"string", "integer,string", "CREATE INDEX mine ON orders (f text_pattern_ops)", `operator class "text_pattern_ops" does not accept data type jsonb`, "DROP INDEX mine"},
		"constraint": {"integer", "string", "ALTER TABLE orders ADD CONSTRAINT mine CHECK (f > 0)", "operator does not exist: text > integer", "ALTER TABLE orders DROP CONSTRAINT mine"},
		"default":    {"integer", "integer,string", "ALTER TABLE orders ALTER COLUMN f SET DEFAULT 5", `default for column "f" cannot be cast automatically to type jsonb`, "ALTER TABLE orders ALTER COLUMN f DROP DEFAULT"},
		"generated":  {"integer", "string", "ALTER TABLE orders ADD COLUMN mine bigint GENERATED ALWAYS AS (f + 1) STORED", `Column "f" is used by generated column "mine"`, "ALTER TABLE orders DROP COLUMN mine"},
		"policy":     {"integer", "string", "CREATE POLICY mine ON orders USING (f > 0)", `policy mine on table public.orders depends on column "f"`, "DROP POLICY mine ON orders"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			r := newTask(t, db, db.config(nil))
			columns := r.Task.Bindings[0].Collection.Columns
			set := func(types string) {
				r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), fieldOf("f", types))
			}
			set(c.from)
			r.MustApply()
			db.exec(t, c.make)
			set(c.to)
			_, err := r.Apply()
			require.ErrorContains(t, err, c.text)
			require.ErrorContains(t, err, "let the table be changed, and create")
			db.exec(t, c.remove)
			require.NotEmpty(t, r.MustApply())
		})
	}
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	columns := r.Task.Bindings[0].Collection.Columns
	r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), fieldOf("f", "object"))
	r.MustApply()
	db.exec(t, "CREATE INDEX mine ON orders USING gin (f)")
	r.Task.Bindings[0].Collection.Columns = append(slices.Clip(columns), fieldOf("f", "integer"))
	r.Task.Bindings[0].Backfill = 1
	r.MustApply()
	require.Equal(t, "jsonb", db.exec(t, "SELECT pg_typeof(f) FROM (SELECT) x LEFT JOIN orders ON true"), "it can hold integers")
}

// Names that need care: those of the connector's own tables and of the server's schemas, and fields whose names become one.
func TestNamesThatCollide(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(nil))
	for _, table := range []string{checkpointsTable, tablesTable} {
		r.Task.Bindings[0].Resource = json.RawMessage(fmt.Sprintf(`{"table":%q,"adopt":true}`, table))
		_, err := r.Apply()
		require.ErrorContains(t, err, "Table public."+table+" is one of the connector's own")
	}
	require.ErrorContains(t, resource{Table: "t", Schema: "pg_catalog"}.Validate(), `Schema "pg_catalog" is one of Postgres' own`)
	require.ErrorContains(t, config{Schema: "information_schema"}.Validate(), `Schema "information_schema" is one of Postgres' own`)

	r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"orders"}`)
	long := strings.Repeat("ü", 31) + "x"
	columns := r.Task.Bindings[0].Collection.Columns
	r.Task.Bindings[0].Collection.Columns = append(columns, fieldOf("xmin", "integer"), fieldOf("xmin_", "integer"), fieldOf(long+"1", "integer"), fieldOf(long+"2", "integer"),
		fieldOf("Order", "integer"), fieldOf("order", "integer"), fieldOf(strings.Repeat("y", 64), "integer"), fieldOf(columnName(strings.Repeat("y", 64)), "integer"))
	r.Log = []sinktest.Change{{Doc: fmt.Sprintf(`{"id":1,"xmin_":2,%q:3,%q:4,"Order":5,"order":6}`, long+"1", long+"2")}}
	r.MustApply()
	require.NoError(t, r.Run())
	require.Equal(t, "2|5|6", db.exec(t, `SELECT xmin_, "Order", "order" FROM orders`), "of xmin and xmin_ the one that needs no other name is stored")
	require.Equal(t, "2", db.exec(t, `SELECT count(*) FROM information_schema.columns WHERE table_name = 'orders' AND column_name LIKE 'üüü%' AND octet_length(column_name) <= 63`))
	r.Task.Bindings[0].Resource = json.RawMessage(`{"table":"others"}`)
	r.Task.Bindings[0].Collection.Columns = append(columns, sinktest.Column{Name: "nul\x00", Types: []string{"string"}, Key: true})
	_, err := r.Apply()
	require.ErrorContains(t, err, "Its name contains a NUL character")
}

// Arrays as such, by option: of any dimension, loaded and stored again, widened when their elements become mixed; and columns
// that are there already stay what they are.
func TestNativeArrays(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := newTask(t, db, db.config(func(c map[string]any) { c["advanced"] = map[string]any{"nativeArrays": true} }))
	columns := r.Task.Bindings[0].Collection.Columns
	set := func(items map[string][]string) {
		r.Task.Bindings[0].Collection.Columns = slices.Clip(columns)
		for _, name := range []string{"flags", "ints", "nums", "texts", "mixed"} {
			f := fieldOf(name, "array")
			f.Items = items[name]
			r.Task.Bindings[0].Collection.Columns = append(r.Task.Bindings[0].Collection.Columns, f)
		}
	}
	items := map[string][]string{"flags": {"boolean", "null"}, "ints": {"array", "integer", "null"}, "nums": {"number"}, "texts": {"string"}, "mixed": {"integer", "string"}}
	set(items)
	r.Log = []sinktest.Change{{Doc: `{"id":1,"flags":[true,null],"ints":[[1,2],[3,4]],"nums":[0.1,1e300],"texts":["a b","q\"\\{},","","NULL"],"mixed":[1,"x"]}`}, {Doc: `{"id":2,"ints":[]}`}}
	r.MustApply()
	require.NoError(t, r.Run())
	require.Equal(t, "boolean[]|bigint[]|double precision[]|text[]|jsonb", db.exec(t, "SELECT pg_typeof(flags), pg_typeof(ints), pg_typeof(nums), pg_typeof(texts), pg_typeof(mixed) FROM orders LIMIT 1"))
	stored := `{t,NULL}|{{1,2},{3,4}}|{0.1,1e+300}|{"a b","q\"\\{},","","NULL"}|[1, "x"]`
	require.Equal(t, stored, db.exec(t, "SELECT flags, ints, nums, texts, mixed FROM orders WHERE id = 1"))
	require.Equal(t, "{}", db.exec(t, "SELECT ints FROM orders WHERE id = 2"))
	require.NoError(t, addTo(r, `{"id":1,"_meta":{"op":"u"}}`))
	require.Equal(t, stored+"|u", db.exec(t, `SELECT flags, ints, nums, texts, mixed, "_meta/op" FROM orders WHERE id = 1`), "loaded and stored again")
	require.ErrorContains(t, addTo(r, `{"id":3,"ints":[[1],[2,3]]}`), `The value [[1],[2,3]] of field "ints" cannot be stored in column "ints" of public.orders, which is of type bigint[]: its parts are not of one length`)

	items["ints"], items["mixed"] = []string{"array", "integer", "null", "string"}, []string{"integer"}
	set(items)
	require.Equal(t, `Altered table public.orders: ALTER COLUMN "ints" TYPE jsonb USING to_jsonb("ints")::jsonb.`, r.MustApply())
	require.NoError(t, addTo(r, `{"id":3,"ints":[[1],["x",3]],"mixed":[7]}`))
	require.Equal(t, "[[1, 2], [3, 4]]\n[]\n[[1], [\"x\", 3]]", db.exec(t, "SELECT ints FROM orders ORDER BY id"))
	require.Equal(t, "jsonb", db.exec(t, "SELECT pg_typeof(mixed) FROM orders LIMIT 1"), "it holds integers")
}
