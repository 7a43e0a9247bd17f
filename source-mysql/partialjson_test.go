package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// jsonWriter writes random expressions of JSON in the server's SQL.
type jsonWriter struct{ *rand.Rand }

// name is a member's name. Few, so that paths meet what is there; some that a path has to quote.
func (w jsonWriter) name() string {
	names := []string{"a", "b", "cc", "ddd", "a_long_name", "ä", "日本", "with space", "1digit", `quo"te`, `back\slash`, "", "dot.ted", "br[1]", "tab\t"}
	return names[w.IntN(len(names))]
}

// value is an expression of a random value.
func (w jsonWriter) value(depth int) string {
	switch n := w.IntN(22); {
	case n < 4 && depth > 0:
		members := make([]string, w.IntN(5))
		for i := range members {
			members[i] = quoteText(w.name()) + ", " + w.value(depth-1)
		}
		return "JSON_OBJECT(" + strings.Join(members, ", ") + ")"
	case n < 7 && depth > 0:
		items := make([]string, w.IntN(5))
		for i := range items {
			items[i] = w.value(depth - 1)
		}
		return "JSON_ARRAY(" + strings.Join(items, ", ") + ")"
	case n < 9:
		plus, minus := w.Int64()>>w.IntN(64), w.Int64()>>w.IntN(64)
		return fmt.Sprintf("CAST(%d AS SIGNED)", plus-minus)
	case n == 9:
		return fmt.Sprintf("CAST(%d AS UNSIGNED)", w.Uint64()>>w.IntN(64))
	case n < 12:
		return fmt.Sprintf("CAST(%d.%0*d AS DECIMAL(30, %d))", w.IntN(1000)-500, 9, w.IntN(1e9), w.IntN(10))
	case n == 12:
		return fmt.Sprintf("%e", (w.Float64()-0.5)*[]float64{1e-300, 1e-3, 1, 1e9, 1e300}[w.IntN(5)])
	case n == 13:
		return fmt.Sprintf("CAST('%d-02-03' AS DATE)", 1000+w.IntN(9000))
	case n == 14:
		return fmt.Sprintf("CAST('2024-12-31 23:59:59.%06d' AS DATETIME(6))", w.IntN(1e6))
	case n == 15:
		return fmt.Sprintf("CAST('-%d:59:59.5' AS TIME(3))", w.IntN(838))
	case n == 16:
		return fmt.Sprintf("CAST(X'%016x' AS BINARY)", w.Uint64())
	case n == 17:
		return []string{"CAST('null' AS JSON)", "CAST('true' AS JSON)", "CAST('false' AS JSON)"}[w.IntN(3)]
	default:
		return quoteText(strings.Repeat("text ü \"\\\n", w.IntN(30)))
	}
}

// path is a path of one to four steps.
func (w jsonWriter) path() string {
	path := "$"
	for range 1 + w.IntN(4) {
		switch w.IntN(5) {
		case 0:
			path += fmt.Sprintf("[%d]", w.IntN(4))
		case 1:
			path += []string{"[last]", "[last-1]"}[w.IntN(2)]
		default:
			path += "." + `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\t", `\t`).Replace(w.name()) + `"`
		}
	}
	return path
}

// change is a statement that changes a part of a column.
func (w jsonWriter) change(column string) string {
	verb := []string{"JSON_SET", "JSON_REPLACE", "JSON_REMOVE"}[w.IntN(3)]
	args := []string{column}
	for range 1 + w.IntN(4) {
		path := w.path()
		if args = append(args, quoteText(path)); verb != "JSON_REMOVE" {
			args = append(args, w.value(2))
		}
	}
	return column + " = " + verb + "(" + strings.Join(args, ", ") + ")"
}

// Whatever part of a JSON value a statement changes: what the log's changes make of the old value is to the last byte what the server has.
func TestPartialJSON(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, mysqld.MySQL)
	db.exec("CREATE TABLE p (id INT PRIMARY KEY, a JSON, n INT, b JSON, c JSON)", "CREATE TABLE copy (n INT PRIMARY KEY, a JSON, b JSON, c JSON)")
	d := db.driver()
	tables := db.tables(d, "p", "copy")
	s := db.open(d, tables...)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := jsonWriter{rand.New(rand.NewPCG(seed, 0))}
	var from place
	require.NoError(t, d.conns.with(t.Context(), func(q *session) (err error) {
		from, err = d.end(t.Context(), q)
		return err
	}))
	conn := db.session(db.name)
	const changes = 400
	for n := range changes {
		if n%20 == 0 {
			require.NoError(t, conn.exec(t.Context(), "DELETE FROM p"))
			require.NoError(t, conn.exec(t.Context(), fmt.Sprintf("INSERT INTO p VALUES (1, JSON_OBJECT('a', %s, 'filler', REPEAT('x', 300), 'cc', %s), -1, JSON_ARRAY(%s, REPEAT('y', 300)), JSON_ARRAY(%s, JSON_OBJECT(), %s))",
				w.value(4), w.value(4), w.value(4), w.value(4), w.value(4))))
		}
		sql := fmt.Sprintf("UPDATE p SET n = %d, %s, %s, %s WHERE id = 1", n, w.change("a"), w.change("b"), w.change("c"))
		require.NoError(t, conn.exec(t.Context(), "SET binlog_row_value_options = PARTIAL_JSON"))
		if err := conn.exec(t.Context(), sql); err != nil {
			continue // the path is not one of an array, or of a member that can be removed
		}
		require.NoError(t, conn.exec(t.Context(), fmt.Sprintf("INSERT INTO copy SELECT n, a, b, c FROM p WHERE id = 1 AND n = %d", n)))
	}
	var got []string
	require.NoError(t, s.each(func(ev *cdc.Event) {
		if ev.Op != cdc.Update || ev.Table.Name != "p" {
			return
		}
		require.False(t, ev.Unlogged)
		require.Empty(t, ev.Row.Omitted())
		got = append(got, strings.Replace(cdctest.Fields(t, ev.Row), `"id":1,`, "", 1))
	}))
	rows, _ := db.scanAll(d, tables[1], 1000)
	require.Greater(t, len(rows), changes/2)
	require.Equal(t, len(rows), len(got)) //nolint:testifylint // the rows are not worth to be printed
	for i, row := range rows {
		require.Equal(t, row, got[i])
	}
	partial := 0
	for _, row := range db.query(fmt.Sprintf("SHOW BINLOG EVENTS IN '%s' FROM %d", from.file, from.at)) {
		if strings.Contains(row[2], "partial") {
			partial++
		}
	}
	require.Greater(t, partial, len(rows)/2, "the log had few parts of values")
}

// Where the log does not have the old value either (binlog_row_image), the core is told to read the row by key.
func TestPartialJSONOfPartialImages(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, mysqld.MySQL)
	db.exec("CREATE TABLE p (id INT PRIMARY KEY, a JSON, n INT)", "INSERT INTO p VALUES (1, JSON_OBJECT('a', REPEAT('x', 300), 'b', 1), 1)")
	d := db.driver()
	tables := db.tables(d, "p")
	s := db.open(d, tables...)
	db.exec("SET binlog_row_image = MINIMAL, binlog_row_value_options = PARTIAL_JSON", "UPDATE p SET n = n + 1, a = JSON_SET(a, '$.b', n)")
	var events []string
	require.NoError(t, s.each(func(ev *cdc.Event) {
		events = append(events, s.text(ev))
		require.True(t, ev.Unlogged)
	}))
	require.Equal(t, []string{`u p {"id":1,"n":2} before {"id":1} omitted [a]`}, events)
}

// A collection has what its table has, whatever of JSON values the log lacks.
func TestPartialJSONIsCaptured(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, mysqld.MySQL)
	db.exec("CREATE TABLE a (id INT PRIMARY KEY, v JSON)", "INSERT INTO a VALUES (1, JSON_OBJECT('a', REPEAT('x', 100), 'b', 0))")
	c := newCapture(t, db)
	value := func(b int) string { return fmt.Sprintf(`{"a":"%s","b":%d}`, strings.Repeat("x", 100), b) }
	require.NoError(t, c.run("s a 1 v="+value(0)))
	db.exec("SET binlog_row_value_options = PARTIAL_JSON", "UPDATE a SET v = JSON_SET(v, '$.b', 1)", "SET binlog_row_image = MINIMAL", "UPDATE a SET v = JSON_SET(v, '$.b', 2)")
	require.NoError(t, c.run("u a 1 v="+value(1), "s a 1 v="+value(2)))
}

// A new value that is null is null, also where the log says that it is told by what changed.
func TestPartialJSONThatIsNull(t *testing.T) {
	t.Parallel()
	table, err := binlog.ParseTable([]byte("\x01\x00\x00\x00\x00\x00\x01\x00\x01s\x00\x01t\x00\x02\x03\xf5\x01\x04\x02"), false)
	require.NoError(t, err)
	const head, old = "\x01\x00\x00\x00\x00\x00\x01\x00\x02\x00\x02\x03\x03", "\x00\x07\x00\x00\x00\x03\x00\x00\x00\x05\x01\x00"
	rows, err := binlog.ParseRows(binlog.PartialUpdateRows, []byte(head+old+"\x01\x01\x02\x07\x00\x00\x00"))
	require.NoError(t, err)
	m := &mapping{log: table, table: &streamed{}, rows: &rowPlan{names: []string{"id", "a"}, kept: []bool{true, true}}}
	s := &stream{rows: rows, rowsOf: m, op: cdc.Update}
	ev, err := s.nextPart()
	require.NoError(t, err)
	require.False(t, ev.Unlogged)
	require.Equal(t, []byte{5, 1, 0}, s.before.vals[1])
	require.Nil(t, s.row.vals[1])
}

// What does not fit the old value ends the capture.
func TestJSONDiffsThatDoNotFit(t *testing.T) {
	t.Parallel()
	object := []byte("\x00\x01\x00\x0c\x00\x0b\x00\x01\x00\x05\x01\x00a") // {"a":1}
	for _, c := range []struct {
		value []byte
		diffs string
		want  string
	}{
		{object, "\x00\x03$.b\x02\x04\x01", "does not fit the value, at $.b"},
		{object, "\x01\x03$.a\x02\x04\x01", "does not fit the value, at $.a"},
		{object, "\x02\x03$.b", "does not fit the value, at $.b"},
		{object, "\x02\x05$.a.b", "does not fit the value, at $.a.b"},
		{object, "\x02\x04$[0]", "does not fit the value, at $[0]"},
		{object, "\x02\x01$", "does not fit the value, at $"},
		{nil, "\x02\x03$.a", "does not fit the value: there is none"},
		{object, "\x03\x03$.a", "binary JSON"},
		{object, "\x02\x09$.a", "binary JSON"},
		{object, "\x00\x03$.a", "binary JSON"},
		{object, "\x02\x03a.a", `path "a.a"`},
		{object, "\x02\x04$[x]", `path "$[x]"`},
	} {
		_, err := applyJSONDiffs(c.value, []byte(c.diffs))
		require.ErrorContains(t, err, c.want)
	}
}
