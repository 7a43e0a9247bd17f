package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/pgtypes"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Every type of the server either has values in the cases or a reason not to: a type that a new version of Postgres brings
// fails here until somebody has looked at it.
func TestEveryBuiltInTypeIsTested(t *testing.T) {
	withTypes(t, func(t *testing.T, bed *typeBed) {
		var names []string
		for _, c := range bed.all() {
			names = append(names, c.Type)
		}
		tested := bed.ask("SELECT DISTINCT n::regtype::oid::text FROM unnest($1::text[]) n", names)
		types := bed.ask(`SELECT concat_ws('|', t.oid, t.typname, t.typtype, coalesce(e.typname, ''), coalesce(e.typtype, ''))
			FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typoutput = 'array_out'::regproc
			WHERE t.typnamespace = 'pg_catalog'::regnamespace`)
		require.Greater(t, len(types), 250)
		never := pgtypes.NeverStored()
		for _, line := range types {
			f := strings.Split(line, "|")
			oid, name, class, elem, elemClass := f[0], f[1], f[2], f[3], f[4]
			switch {
			case slices.Contains(tested, oid):
			case class == "p" || elemClass == "p": // no column can be of a pseudo-type or of an array of it
			case class == "c" || elemClass == "c": // a system catalog's rows, which print as every composite does
			case never[name] != "" || never[elem] != "":
			default:
				t.Errorf("the type %s of Postgres %d has neither values in pgtypes.BuiltIn nor a reason in pgtypes.NeverStored", name, bed.pg.Major())
			}
		}
	})
}

// Every type gives the same bytes by the backfill and by the stream, they are what is documented, and the discovered JSON
// schema is true for them; with and without lossless text.
func TestTypesThroughBothPaths(t *testing.T) {
	withTypes(t, func(t *testing.T, bed *typeBed) {
		bed.makeKinds()
		type reader struct {
			d      *driver
			table  *cdc.Table
			stream *testStream
		}
		readers := map[string]reader{}
		for name, option := range bothOptions() {
			d := bed.driver(option)
			table := bed.tables(d, "kinds")[0]
			readers[name] = reader{d, table, bed.open(d, table)}
		}
		rows := bed.fillKinds(0)
		for name, r := range readers {
			streamed := r.stream.fence()
			scanned, _ := bed.scanAll(r.d, r.table, 1000)
			require.Len(t, streamed, rows)
			require.Len(t, scanned, rows)
			for row, text := range streamed {
				require.Equal(t, "c kinds "+scanned[row], text, "row %d", row)
				bed.checkRow(r.table, scanned[row], row, name == "lossless")
			}
		}
	})
}

// checkRow compares a row of the table kinds with the cases, and with the schemas.
func (b *typeBed) checkRow(table *cdc.Table, text string, row int, exact bool) {
	b.t.Helper()
	var doc map[string]json.RawMessage
	require.NoError(b.t, json.Unmarshal([]byte(text), &doc))
	cases := b.all()
	for i, c := range table.Columns[1:] {
		want, of := "null", cases[i]
		if row < len(of.Values) {
			want = of.Values[row].Want(exact)
		}
		got := doc[c.Name]
		if want != "" {
			require.Equal(b.t, want, string(got), "%s, lossless %v", of.Type, exact)
		}
		validate(b.t, compileSchema(b.t, c.Schema), got)
	}
}

// A key has the same bytes whether it comes from the log or from a scan, whole or row by row; it is a string, an integer or
// a boolean, and another one for every row; and a row can be found by it again.
func TestKeysThroughBothPaths(t *testing.T) {
	withTypes(t, func(t *testing.T, bed *typeBed) {
		tables := bed.makeKeyed()
		require.Greater(t, len(tables), 60)
		names := make([]string, len(tables))
		for i, k := range tables {
			names[i] = k.table
		}
		type reader struct {
			d      *driver
			tables []*cdc.Table
			stream *testStream
		}
		readers := map[string]reader{}
		for name, option := range bothOptions() {
			d := bed.driver(option)
			found := bed.tables(d, names...)
			readers[name] = reader{d, found, bed.open(d, found...)}
		}
		for _, k := range tables {
			k.fill(bed, true)
		}
		for name, r := range readers {
			streamed := map[string][]keyedRow{}
			r.stream.each(func(ev *cdc.Event) {
				if ev.Row != nil {
					streamed[ev.Table.Name] = append(streamed[ev.Table.Name], readKeyed(t, ev.Row))
				}
			})
			for _, k := range tables {
				i := slices.IndexFunc(r.tables, func(table *cdc.Table) bool { return table.ID.Name == k.table })
				bed.checkKeys(r.d, k, r.tables[i], streamed[k.table], name == "lossless")
			}
		}
	})
}

// keyedRow is a row of a table of makeKeyed: its key as a tuple, and as a document has it.
type keyedRow struct {
	key     string
	doc     string
	refused bool
}

func readKeyed(t testing.TB, row cdc.Row) keyedRow {
	t.Helper()
	key, err := row.AppendKey(nil)
	require.NoError(t, err)
	text, err := row.AppendFields([]byte{'{'})
	if errors.Is(err, errBeyond) {
		return keyedRow{key: string(key), refused: true}
	}
	require.NoError(t, err)
	var doc struct{ K json.RawMessage }
	require.NoError(t, json.Unmarshal(append(text, '}'), &doc))
	return keyedRow{key: string(key), doc: string(doc.K)}
}

func (b *typeBed) checkKeys(d *driver, k keyed, table *cdc.Table, streamed []keyedRow, exact bool) {
	b.t.Helper()
	require.NotEmpty(b.t, streamed, k.Type)
	require.ElementsMatch(b.t, streamed, b.scanByKey(d, table, len(streamed), exact), k.Type)
	schema := compileSchema(b.t, table.Columns[0].Schema)
	var (
		keys    [][]byte
		refused int
		seen    = map[string]bool{}
	)
	for _, row := range streamed {
		keys = append(keys, []byte(row.key))
		if row.refused {
			refused++
			continue
		}
		validate(b.t, schema, []byte(row.doc))
		require.Regexp(b.t, `^("|-?[0-9]+$|true|false)`, row.doc, k.Type)
		require.False(b.t, seen[row.doc], "two rows of type %s have the key %s", k.Type, row.doc)
		seen[row.doc] = true
	}
	want := 0
	for _, v := range k.Values {
		if k.refused(v, exact) {
			want++
		}
	}
	require.Equal(b.t, want, refused, k.Type)
	found := 0
	_, err := d.ScanKeys(b.t.Context(), cdc.Chunk{Table: table, MaxRows: 1, MaxBytes: 1}, keys, func(cdc.Row) error { found++; return nil })
	require.NoError(b.t, err, k.Type)
	require.Equal(b.t, len(streamed), found, k.Type)
}

// scanByKey reads a table in ranges of its key: row by row, each found by the one before it, or all at once.
func (b *typeBed) scanByKey(d *driver, table *cdc.Table, rows int, each bool) (scanned []keyedRow) {
	b.t.Helper()
	oid, err := strconv.ParseUint(table.Incarnation, 10, 32)
	require.NoError(b.t, err)
	rng := scanRange{Table: quoteTable("public", table.ID.Name), OID: uint32(oid)}.encode()
	atOnce := 1000
	if each {
		atOnce = 1
	}
	for chunks := 0; rng != ""; chunks++ {
		require.LessOrEqual(b.t, chunks, rows, table.ID)
		chunk, err := d.Scan(b.t.Context(), cdc.Chunk{Table: table, Range: rng, MaxRows: atOnce, MaxBytes: 1 << 20}, func(row cdc.Row) error {
			scanned = append(scanned, readKeyed(b.t, row))
			return nil
		})
		require.NoError(b.t, err, table.ID)
		rng = chunk.Rest
	}
	return scanned
}

// What RFC 3339 cannot hold is no key: it would be replaced by what another row may have. The error names table and column,
// and the way out.
func TestKeysBeyondRFC3339(t *testing.T) {
	t.Parallel()
	for typ, v := range map[uint32]string{1082: "infinity", 1083: "24:00:00", 1114: "0044-03-15 00:00:00 BC", 1184: "10000-01-01 00:00:00+00", 1266: "01:00:00+00:53:28"} {
		for _, scanned := range []bool{false, true} {
			types := []*dataType{scalars[23], scalars[typ]}
			plan := newRowPlan(cdc.TableID{Schema: "public", Name: "t"}, []string{"id", "at"}, []string{"id", "at"}, types, scanned)
			id := []byte("1")
			if scanned {
				id = []byte{0, 0, 0, 1}
			}
			_, err := plan.shape.AppendFields(nil, [][]byte{id, []byte(v)}, nil)
			require.ErrorIs(t, err, errBeyond)
			require.Equal(t, `A row of the table public.t has "`+v+`" in the column "at" of its key. RFC 3339 cannot hold that, and the nearest value `+
				`that it can hold may be another row's key. Add "times" to advanced.lossless, so that such values are kept as the server prints them, `+
				`and discover again; the column is plain text then.`, usererr.Message(err))
		}
	}
}

// Types, their labels, attributes and schemas may come and change while a capture runs.
func TestTypesMadeWhileRunning(t *testing.T) {
	t.Parallel()
	bed := newTypeBed(t, newDatabase(t).pg)
	bed.do("CREATE TABLE live (id int PRIMARY KEY, m mood, ms mood[], p pair)")
	d := bed.driver()
	stream := bed.open(d, bed.tables(d, "live")...)
	bed.do(`INSERT INTO live VALUES (1, 'sad', '{sad}', '(1,a)')`)
	bed.do(`ALTER TYPE mood ADD VALUE 'new' BEFORE 'sad'`)
	bed.do(`ALTER TYPE pair ADD ATTRIBUTE c date`)
	bed.do(`INSERT INTO live VALUES (2, 'new', '{new,sad}', '(1,a,infinity)')`)
	bed.do(`ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'`)
	bed.do(`CREATE SCHEMA later`)
	bed.do(`CREATE TYPE later.state AS ENUM ('on', 'off'); CREATE DOMAIN later.states AS later.state[]; CREATE DOMAIN later.at AS timestamptz`)
	bed.do(`ALTER TYPE mood SET SCHEMA later`)
	bed.do(`ALTER TABLE live ADD s later.states, ADD a later.at, ADD c ext.citext, ADD cs ext.citext[]`)
	bed.do(`INSERT INTO live VALUES (3, 'blue', '{blue}', '(2,b,2024-01-01)', '{on,off}', 'infinity', 'X', '{X,y}')`)
	var streamed []string
	for _, text := range stream.fence() {
		if row, ok := strings.CutPrefix(text, "c live "); ok {
			streamed = append(streamed, row)
		}
	}
	scanned, _ := bed.scanAll(d, bed.tables(d, "live")[0], 10)
	require.Equal(t, []string{
		`{"id":1,"m":"sad","ms":["sad"],"p":"(1,a)"}`,
		`{"id":2,"m":"new","ms":["new","sad"],"p":"(1,a,infinity)"}`,
		`{"a":"9999-12-31T23:59:59Z","c":"X","cs":["X","y"],"id":3,"m":"blue","ms":["blue"],"p":"(2,b,2024-01-01)","s":["on","off"]}`,
	}, streamed)
	require.Equal(t, streamed[2], scanned[2])
}

// The documents of a capture of all types follow the schemas that were discovered: those of the backfill, and inserts,
// updates with whole old rows, and deletes.
func TestDocumentsFollowTheirSchemas(t *testing.T) {
	withTypes(t, func(t *testing.T, bed *typeBed) {
		bed.makeKinds()
		rows := bed.fillKinds(0)
		tables := bed.makeKeyed()
		for name, option := range bothOptions() {
			t.Run(name, func(t *testing.T) {
				cfg := bed.cfg
				option(&cfg)
				sub := typeBed{database: &database{t: t, pg: bed.pg, cfg: cfg, sessions: bed.sessions}, conn: bed.conn, cases: bed.cases, lists: bed.lists}
				sub.capture(tables, rows, name == "lossless")
			})
			bed.do("DELETE FROM kinds WHERE id >= 1000")
			for _, k := range tables {
				bed.do("DELETE FROM " + k.table)
			}
		}
	})
}

// capture runs a capture of all tables and checks its documents.
func (b *typeBed) capture(tables []keyed, rows int, exact bool) {
	t := b.t
	t.Helper()
	for _, k := range tables {
		k.fill(b, exact)
	}
	c := newCapture(t, b.database, frame.Proto)
	schemas := make([]func(doc []byte), len(c.spec.Bindings))
	for i, binding := range c.spec.Bindings {
		compiled := compileSchema(t, binding.Collection.WriteSchemaJson)
		schemas[i] = func(doc []byte) { validate(t, compiled, doc) }
	}
	snapshots, changes := 0, map[string]int{}
	wrote := false
	c.run(frame.Proto, func(tx *session.Transaction) bool {
		if tx == nil {
			return false
		}
		for _, doc := range tx.Documents {
			schemas[doc.Binding](doc.Doc)
			if strings.Contains(string(doc.Doc), `"snapshot":true`) {
				snapshots++
				continue
			}
			var meta struct {
				Meta struct{ Op string } `json:"_meta"`
			}
			require.NoError(t, json.Unmarshal(doc.Doc, &meta))
			if c.spec.Bindings[doc.Binding].ResourcePath[1] == "kinds" {
				changes[meta.Meta.Op]++
			}
		}
		if !wrote && snapshots >= rows+len(tables) {
			wrote = true
			require.Equal(t, rows, b.fillKinds(1000))
			b.do("UPDATE kinds SET id = id + 1000 WHERE id BETWEEN 1000 AND 1001; UPDATE kinds SET c0 = NULL WHERE id >= 1002")
			b.do("DELETE FROM kinds WHERE id >= 1000")
			for _, k := range tables {
				b.do("UPDATE " + k.table + " SET n = n + 1")
			}
		}
		return changes["d"] >= rows+2
	})
	require.Equal(t, rows+2, changes["d"], "the capture ended: %v", c.ended)
	require.Equal(t, map[string]int{"c": rows + 2, "u": rows, "d": rows + 2}, changes)
}

func mustLSN(t testing.TB, text string) lsn {
	t.Helper()
	at, err := parseLSN(strings.TrimSpace(text))
	require.NoError(t, err)
	return at
}
