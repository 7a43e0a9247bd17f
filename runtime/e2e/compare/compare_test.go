package compare_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/compare"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// The source's types, and those that a materialization may give the copy.
const (
	original = `CREATE TABLE rows (id bigint PRIMARY KEY, n numeric(12,2), at timestamptz, local timestamp, day date, u uuid,
		doc jsonb, old json, tags text[], raw bytea, f float8, ok boolean, note text)`
	sameTypes = `CREATE TABLE rows (id bigint PRIMARY KEY, n numeric, at timestamptz, local timestamp, day date, u uuid,
		doc jsonb, old jsonb, tags text[], raw bytea, f float8, ok boolean, note text)`
	otherTypes = `CREATE TABLE rows (note text, id bigint, n text, at text, local timestamptz, day text, u text,
		doc json, old text, tags jsonb, raw text, f text, ok boolean, extra text)`
	someRows = `INSERT INTO rows SELECT i, i * 1.10, '2024-02-29 12:00:00.123456+02'::timestamptz + i * interval '1 day', '2024-07-01 00:00:00'::timestamp + i * interval '1 hour',
		'2024-01-01'::date + i, md5(i::text)::uuid, jsonb_build_object('b', i, 'a', array[i, null]), '{"z": 1,  "a":[1,2]}',
		array['a b', 'c,"d', null, i::text], decode(md5(i::text), 'hex'), i / 3.0::float8, i % 2 = 0, CASE WHEN i % 7 > 0 THEN repeat('x', i) END
		FROM generate_series(1, 50) AS i`
)

type databases struct {
	server              *server.PostgresServer
	source, destination string
	from, to            *pgx.Conn
}

func open(t *testing.T) databases {
	t.Helper()
	pg := server.SharedPostgres(t)
	d := databases{server: pg, source: pg.NewDatabase(t), destination: pg.NewDatabase(t)}
	connect := func(name string) *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), pg.URL(name))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(t.Context()) })
		return conn
	}
	d.from, d.to = connect(d.source), connect(d.destination)
	return d
}

func (d databases) compare(t *testing.T, pair compare.Pair) compare.Result {
	t.Helper()
	result, err := compare.Tables(t.Context(), d.from, d.to, pair)
	require.NoError(t, err)
	return result
}

func pairOf(table string) compare.Pair {
	return compare.Pair{Source: pgx.Identifier{"public", table}, Destination: pgx.Identifier{table}}
}

func TestEqualInTheSameTypes(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.server.ExecIn(t, d.source, original, someRows)
	d.server.ExecIn(t, d.destination, sameTypes, someRows)
	result := d.compare(t, pairOf("rows"))
	require.Equal(t, "50 rows, equal", result.String())
	require.True(t, result.Equal())
}

func TestEqualInOtherTypes(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.server.ExecIn(t, d.source, original, someRows)
	d.server.ExecIn(t, d.destination, sameTypes, someRows, "ALTER TABLE rows RENAME TO given", otherTypes,
		`INSERT INTO rows SELECT note, id, n, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.USZ'), local AT TIME ZONE 'UTC', day, upper(u::text),
			doc::text::json, '{"a": [1,2], "z":1}', to_jsonb(tags), encode(raw, 'base64'), f, ok, 'ignored' FROM given`)
	require.Equal(t, "50 rows, equal", d.compare(t, pairOf("rows")).String())
	d.server.ExecIn(t, d.destination, `UPDATE rows SET local = local + interval '1 second' WHERE id = 1`)
	require.Contains(t, d.compare(t, pairOf("rows")).String(), `id "1" differs: local is`)
}

func TestPlantedDifferencesAreFound(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.server.ExecIn(t, d.source, original, someRows)
	d.server.ExecIn(t, d.destination, sameTypes, someRows)
	for _, test := range []struct{ name, plant, want string }{
		{"missing row", "DELETE FROM rows WHERE id = 7", `id "7" is missing in the copy: n "7.70", at`},
		{"missing last row", "DELETE FROM rows WHERE id = 9", `id "9" is missing in the copy`}, // 9 sorts last as text
		{"row in excess", "INSERT INTO rows (id, note) VALUES (51, 'new')", `id "51" is in the copy but not in the source: n NULL`},
		{"integer", "UPDATE rows SET id = 100 WHERE id = 50", `id "50" is missing in the copy`},
		{"numeric", "UPDATE rows SET n = n + 0.01 WHERE id = 3", `id "3" differs: n is "3.30", the copy has "3.31"`},
		{"scale", "UPDATE rows SET n = 3.3 WHERE id = 3", `id "3" differs: n is "3.30", the copy has "3.3"`},
		{"microsecond", "UPDATE rows SET at = at + interval '1 microsecond' WHERE id = 3", `id "3" differs: at is "2024-03-03 10:00:00.123456+00", the copy has "2024-03-03 10:00:00.123457+00"`},
		{"timestamp", "UPDATE rows SET local = local + interval '1 hour' WHERE id = 3", `differs: local is`},
		{"date", "UPDATE rows SET day = day + 1 WHERE id = 3", `differs: day is`},
		{"uuid", "UPDATE rows SET u = md5('') ::uuid WHERE id = 3", `differs: u is`},
		{"null", "UPDATE rows SET note = NULL WHERE id = 3", `id "3" differs: note is "xxx", the copy has NULL`},
		{"not null", "UPDATE rows SET note = '' WHERE id = 7", `id "7" differs: note is NULL, the copy has ""`},
		{"document", "UPDATE rows SET doc = doc || '{\"c\": 1}' WHERE id = 3", `differs: doc is`},
		{"array", "UPDATE rows SET tags = array['a b'] WHERE id = 3", `differs: tags is`},
		{"bytes", "UPDATE rows SET raw = '' WHERE id = 3", `differs: raw is`},
		{"two columns", "UPDATE rows SET ok = NULL, f = 0 WHERE id = 4", `id "4" differs: f is "1.3333333333333333", the copy has "0"; ok is "true", the copy has NULL`},
	} {
		t.Run(test.name, func(t *testing.T) {
			tx, err := d.to.Begin(t.Context())
			require.NoError(t, err)
			_, err = tx.Exec(t.Context(), test.plant)
			require.NoError(t, err)
			result := d.compare(t, pairOf("rows"))
			require.NoError(t, tx.Rollback(t.Context()))
			require.False(t, result.Equal())
			require.Contains(t, result.String(), test.want)
		})
	}
	require.True(t, d.compare(t, pairOf("rows")).Equal(), "all that was planted is gone")
}

func TestManyDifferencesAreCut(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.server.ExecIn(t, d.source, original, someRows)
	d.server.ExecIn(t, d.destination, sameTypes)
	result := d.compare(t, pairOf("rows"))
	require.Equal(t, 50, result.Differences)
	require.Len(t, result.Examples, 8)
	require.Contains(t, result.String(), "50 rows against 0 in the copy, 50 different")
	require.Contains(t, result.String(), "… and 42 more")
}

// A table without a key is a bag: a row that came twice, or once of two, is seen.
func TestBags(t *testing.T) {
	t.Parallel()
	d := open(t)
	rows := []string{"CREATE TABLE bag (a int, b text)", "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (2, NULL), (NULL, 'y')"}
	d.server.ExecIn(t, d.source, rows...)
	d.server.ExecIn(t, d.destination, rows...)
	require.True(t, d.compare(t, pairOf("bag")).Equal())

	d.server.ExecIn(t, d.destination, "INSERT INTO bag VALUES (2, NULL)")
	require.Contains(t, d.compare(t, pairOf("bag")).String(), `a row is in the copy but not in the source: a "2", b NULL`)
	d.server.ExecIn(t, d.source, "INSERT INTO bag VALUES (2, NULL), (1, 'x')")
	require.Contains(t, d.compare(t, pairOf("bag")).String(), `a row is missing in the copy: a "1", b "x"`)
}

// Keys sort bytewise on both sides, whatever the databases' collations are.
func TestTextKeysRenamedColumnsAndFilters(t *testing.T) {
	t.Parallel()
	d := open(t)
	values := ` VALUES ('a', 1), ('B', 2), ('ä', 3), ('a b', 4), ('', 5), ('a"b', 6)`
	d.server.ExecIn(t, d.source, `CREATE TABLE k (name text PRIMARY KEY, op int)`, "INSERT INTO k"+values)
	d.server.ExecIn(t, d.destination, `CREATE TABLE k (name text COLLATE "C", "_meta/op" int, gone boolean DEFAULT false)`, `INSERT INTO k (name, "_meta/op")`+values)
	d.server.ExecIn(t, d.destination, `INSERT INTO k VALUES ('deleted', 1, true)`)
	pair := pairOf("k")
	pair.Renamed = map[string]string{"op": "_meta/op"}
	pair.Only = "NOT gone"
	require.True(t, d.compare(t, pair).Equal())
	pair.Only = ""
	require.Contains(t, d.compare(t, pair).String(), `name "deleted" is in the copy but not in the source`)
}

func TestOtherShapesAreNamed(t *testing.T) {
	t.Parallel()
	d := open(t)
	d.server.ExecIn(t, d.source, `CREATE TABLE s (id int PRIMARY KEY, a int)`)
	_, err := compare.Tables(t.Context(), d.from, d.to, pairOf("s"))
	require.ErrorIs(t, err, compare.ErrShape)
	require.ErrorContains(t, err, "comparing public.s: in the copy: the tables do not have the same columns: there is no table s")
	d.server.ExecIn(t, d.destination, `CREATE TABLE s (id int PRIMARY KEY)`)
	_, err = compare.Tables(t.Context(), d.from, d.to, pairOf("s"))
	require.ErrorIs(t, err, compare.ErrShape)
	require.ErrorContains(t, err, "the copy has no column a")
}
