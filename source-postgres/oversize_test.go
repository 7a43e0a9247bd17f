package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/testkit/cdctest"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-postgres/internal/pgoutput"
)

// large is a row with what it lacks because it is too large.
func large(t testing.TB, row cdc.Row) string {
	t.Helper()
	out := cdctest.Fields(t, row)
	o, ok := row.(cdc.OversizedRow)
	require.True(t, ok)
	for _, v := range o.Oversized() {
		out += fmt.Sprintf(" %s=%d", v.Column, v.Bytes)
	}
	return out
}

// Values beyond what a row may have are left out, the largest first, and the same ones by the stream, by scans, and by scans of
// keys (hard case 25).
func TestOversizedValues(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec(
		"CREATE TABLE t (id int PRIMARY KEY, a text, b bytea, c text, n int)", "ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL",
		"CREATE TABLE whole (LIKE t INCLUDING ALL)", "ALTER TABLE whole REPLICA IDENTITY FULL",
		"CREATE TABLE keyless (LIKE t INCLUDING STORAGE)", "ALTER TABLE keyless REPLICA IDENTITY FULL",
	)
	d := db.driver()
	d.maxRow = 300_000 // more than the wire's buffer, in which messages are whole
	tables := db.tables(d, "t", "whole", "keyless")
	slices.SortFunc(tables, func(a, b *cdc.Table) int { return strings.Compare(b.ID.Name, a.ID.Name) }) // whole, t, keyless
	s := db.open(d, tables...)
	next := func() (row, before string) {
		for {
			ev, err := s.Next(t.Context(), patience)
			require.NoError(t, err)
			if ev.Row == nil && ev.Before == nil {
				continue
			}
			if ev.Row != nil {
				row = large(t, ev.Row)
			}
			if ev.Before != nil {
				before = large(t, ev.Before)
			}
			return row, before
		}
	}
	text := func(n int) string { return fmt.Sprintf("repeat('x', %d)", n) }
	raw := func(n int) string { return fmt.Sprintf("decode(repeat('ab', %d), 'hex')", n) }
	x, ab := func(n int) string { return strings.Repeat("x", n) }, "q6urq6ur" // six bytes
	for i, c := range []struct{ a, b, c, want string }{
		{text(10), raw(6), text(20), `"a":"` + x(10) + `","b":"` + ab + `","c":"` + x(20) + `"`},
		{text(900_000), raw(6), text(20), `"b":"` + ab + `","c":"` + x(20) + `" a=900000`},
		{text(297_000), raw(6), text(150_000), `"b":"` + ab + `","c":"` + x(150_000) + `" a=297000`},
		{text(180_000), raw(6), text(210_000), `"a":"` + x(180_000) + `","b":"` + ab + `" c=210000`},
		{text(10), raw(270_000), "NULL", `"a":"` + x(10) + `","c":null b=270000`},
		{text(600_000), raw(600_000), text(600_000), `a=600000 b=600000 c=600000`},
	} {
		want := strings.Replace(c.want, " ", fmt.Sprintf(`,"id":%d,"n":1} `, i), 1)
		switch {
		case strings.HasPrefix(c.want, "a="):
			want = fmt.Sprintf(`{"id":%d,"n":1} %s`, i, c.want)
		case want == c.want:
			want = "{" + c.want + fmt.Sprintf(`,"id":%d,"n":1}`, i)
		default:
			want = "{" + want
		}
		for _, table := range tables {
			name := table.ID.Name
			db.exec(fmt.Sprintf("INSERT INTO %s VALUES (%d, %s, %s, %s, 1)", name, i, c.a, c.b, c.c))
			row, _ := next()
			require.True(t, want == row, "%s %d: %.200s … %.60s", name, i, row, row[max(len(row)-60, 0):])
		}
		key := keyOf(t, d, tables[1], i)
		var scanned []string
		collect := func(row cdc.Row) error { scanned = append(scanned, large(t, row)); return nil }
		_, err := d.ScanKeys(t.Context(), cdc.Chunk{Table: tables[1], MaxRows: 1, MaxBytes: 1 << 20}, [][]byte{key}, collect)
		require.NoError(t, err)
		for _, table := range tables[:2] {
			plan, err := d.Plan(t.Context(), table)
			require.NoError(t, err)
			for _, r := range plan.Ranges {
				for r != "" {
					out, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: r, MaxRows: 1000, MaxBytes: 1 << 20}, collect)
					require.NoError(t, err)
					r = out.Rest
				}
			}
		}
		require.Len(t, slices.DeleteFunc(scanned, func(r string) bool { return r != want }), 3, "%d: by key, by scans of both tables", i)
	}
	// Old rows: they give way to the row; an unchanged value that is too large still is.
	db.exec("UPDATE whole SET n = 2 WHERE id = 5", "UPDATE whole SET a = 'y', b = NULL, c = NULL WHERE id = 5", "DELETE FROM whole WHERE id = 1", "UPDATE t SET n = 2 WHERE id = 1", "DELETE FROM keyless WHERE id = 1")
	row, before := next()
	require.Equal(t, []string{`{"id":5,"n":2} a=600000 b=600000 c=600000`, `{"id":5,"n":1} a=600000 b=600000 c=600000`}, []string{row, before})
	row, before = next()
	require.Equal(t, []string{`{"a":"y","b":null,"c":null,"id":5,"n":2}`, `{"id":5,"n":2} a=600000 b=600000 c=600000`}, []string{row, before})
	_, before = next()
	require.Equal(t, `{"b":"`+ab+`","c":"`+x(20)+`","id":1,"n":1} a=900000`, before)
	row, _ = next()
	require.Equal(t, `{"b":"`+ab+`","c":"`+x(20)+`","id":1,"n":2}`, row, "unchanged, so it is not in the log")
	_, before = next()
	require.Equal(t, `{"b":"`+ab+`","c":"`+x(20)+`","id":1,"n":1} a=900000`, before)
	require.Empty(t, s.fence())
}

// A chunk of rows that turn out to be very large is given up at once, and the next one covers what it should.
func TestVeryLargeRows(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY, a text)", "ALTER TABLE t ALTER a SET STORAGE EXTERNAL", "INSERT INTO t SELECT g, repeat('x', 3000000) FROM generate_series(1, 6) g")
	d := db.driver()
	table := db.tables(d, "t")[0]
	plan, err := d.Plan(t.Context(), table)
	require.NoError(t, err)
	rows, given := 0, 0
	for r := plan.Ranges[0]; r != ""; {
		out, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: r, MaxRows: 1000, MaxBytes: 1 << 20}, func(cdc.Row) error { rows++; return nil })
		if err != nil {
			require.ErrorIs(t, err, cdc.ErrInterrupted)
			given++
			rows = 0
			continue
		}
		r = out.Rest
	}
	require.Equal(t, []int{6, 1}, []int{rows, given})
}

// A page whose rows are large out of line is read in parts, so that a chunk stays bounded: each row once, whatever the
// chunks before and behind are like.
func TestPageOfLargeRows(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	key := " PRIMARY KEY"
	if db.pg.Major() < 14 {
		key = "" // tables with a key are read by it
	}
	db.exec("CREATE TABLE t (id int"+key+", a text)", "ALTER TABLE t ALTER a SET STORAGE EXTERNAL", "ALTER TABLE t REPLICA IDENTITY FULL",
		"INSERT INTO t SELECT g, 'small' FROM generate_series(1, 1000) g",
		"INSERT INTO t SELECT g, repeat('x', 1500000) FROM generate_series(1001, 1040) g",
		"INSERT INTO t SELECT g, 'small' FROM generate_series(1041, 2000) g")
	d := db.driver()
	table := db.tables(d, "t")[0]
	db.open(d, table)
	ranges, _ := planned(t, d, table)
	require.True(t, ranges[0].Pages)
	const most = 1 << 20
	var ids []string
	chunks, failures := 0, 0
	for r := ranges[0].encode(); r != ""; {
		var read []string
		bytes := 0
		out, err := d.Scan(t.Context(), cdc.Chunk{Table: table, Range: r, MaxRows: 1000, MaxBytes: most}, func(row cdc.Row) error {
			text := cdctest.Fields(t, row)
			bytes += len(text)
			_, id, _ := strings.Cut(text, `"id":`)
			read = append(read, id)
			return nil
		})
		require.LessOrEqual(t, bytes, 4<<20)
		chunks++
		if err != nil {
			require.ErrorIs(t, err, cdc.ErrInterrupted)
			failures++
			require.Less(t, failures, 15, "the core gives up after twenty")
			continue
		}
		r, ids = out.Rest, append(ids, read...)
	}
	require.Len(t, ids, 2000)
	slices.Sort(ids)
	require.Len(t, slices.Compact(ids), 2000)
	require.Less(t, chunks, 100, "small rows come by pages again")
}

func keyOf(t testing.TB, d *driver, table *cdc.Table, id int) []byte {
	t.Helper()
	p := newRowPlan(table.ID, table.Key, []string{"id"}, []*dataType{d.types.get(23)}, false)
	key, err := p.appendKey(nil, [][]byte{[]byte(fmt.Sprint(id))})
	require.NoError(t, err)
	return key
}

// A value of 200 MB is passed over by the stream and by a scan, and never held.
func TestHugeValue(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE docs (id int PRIMARY KEY, title text, body text NOT NULL)", "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL")
	d := db.driver()
	table := db.tables(d, "docs")[0]
	s := db.open(d, table)
	db.exec("INSERT INTO docs VALUES (2, 'huge', repeat('x', 200000000))")
	const want = `{"id":2,"title":"huge"} body=200000000`
	for deadline := time.Now().Add(3 * patience); ; {
		require.True(t, time.Now().Before(deadline))
		ev, err := s.Next(t.Context(), time.Second)
		require.NoError(t, err)
		wire := s.Stream.(*stream).wire
		require.LessOrEqual(t, len(wire.buf), wireBuffer)
		if r, ok := wire.big.(*reducer); ok {
			require.Less(t, cap(r.out), wireBuffer)
		}
		if ev.Op == cdc.Insert {
			require.Equal(t, want, large(t, ev.Row))
			break
		}
	}
	var scanned []string
	collect := func(row cdc.Row) error { scanned = append(scanned, large(t, row)); return nil }
	heavy := 0
	_, err := d.ScanKeys(t.Context(), cdc.Chunk{
		Table: table, MaxRows: 1, MaxBytes: 1 << 20, Heavy: func(context.Context) error { heavy++; return nil },
	}, [][]byte{keyOf(t, d, table, 2)}, collect)
	require.NoError(t, err)
	require.Equal(t, []string{want}, scanned)
	require.Equal(t, 1, heavy, "the core is asked before a row of more than 8 MiB")
}

// What users choose becomes of it, in the whole connector, which is told that rows are large from 100,000 bytes on.
func TestOversizedRowPolicies(t *testing.T) {
	t.Parallel()
	const huge = "repeat('x', 200000)"
	for _, policy := range []string{"", "placeholder", "skip"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			db.cfg.Advanced.OnOversizedRow = policy
			db.exec("CREATE TABLE docs (id int PRIMARY KEY, title text, body text NOT NULL)", "ALTER TABLE docs ALTER body SET STORAGE EXTERNAL",
				"INSERT INTO docs VALUES (1, 'small', 'x'), (2, 'huge', "+huge+")")
			c := newCapture(t, db, frame.Proto)
			c.connector = func() capture.Connector {
				return capture.New(cdc.New(spec(), func(ctx context.Context, env capture.Env, cfg config) (cdc.Driver, cdc.Options, error) {
					drv, opts, err := connect(ctx, env, cfg)
					if d, ok := drv.(*driver); ok {
						d.maxRow = 100_000
					}
					return drv, opts, err
				}))
			}
			if policy == "" {
				require.Equal(t, "The row of table public.docs whose key (id) is [2] is too large for a document, of which no more than 62.0 MiB can be: body (200000 bytes). "+
					"Set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.", usererr.Message(c.fails(frame.Proto)))
				return
			}
			want := map[string]string{"1|": `{"body":"x","id":1,"title":"small"}`}
			if policy == "placeholder" {
				want["2|"] = `{"body":null,"id":2,"title":"huge"}`
			}
			holds := func(*session.Transaction) bool {
				got := map[string]string{}
				for k, row := range c.rows["docs"] {
					text, err := json.Marshal(row)
					require.NoError(t, err)
					got[k] = string(text)
				}
				return maps.Equal(want, got) && strings.Contains(string(c.state), `"phase":"live"`)
			}
			c.run(frame.Proto, holds)
			db.exec("INSERT INTO docs VALUES (3, 'huge as well', "+huge+")", "UPDATE docs SET body = 'y' WHERE id = 2", "INSERT INTO docs VALUES (4, '', '')")
			want["2|"], want["4|"] = `{"body":"y","id":2,"title":"huge"}`, `{"body":"","id":4,"title":""}`
			if policy == "placeholder" {
				want["3|"] = `{"body":null,"id":3,"title":"huge as well"}`
			}
			c.run(frame.Proto, holds)
		})
	}
}

// The reducer takes a message apart wherever it is cut, and what it keeps is a message again.
func TestReducer(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		message, row := randomChange(rnd)
		limit := 200 + rnd.IntN(3000)
		cut := 1 + rnd.IntN(50)
		r := newReducer(len(message), limit, func(_ uint32, _, n int) int { return n })
		for p := message; len(p) > 0; {
			n := min(cut, len(p))
			took, err := r.take(p[:n])
			require.NoError(t, err)
			require.Equal(t, n, took)
			p = p[n:]
		}
		require.Zero(t, r.left)
		require.Equal(t, len(r.out), 1+int(binary.BigEndian.Uint32(r.out[1:])))
		var got pgoutput.Row
		require.NoError(t, got.Parse(r.out[copyDataHead:]))
		var sieve cdc.Sieve
		sieve.Reset(limit)
		kept := map[int]bool{}
		all := slices.Concat(row.Old, row.New)
		for i, v := range all {
			if len(v) < smallValue {
				kept[i] = true
				continue
			}
			keep, drop := sieve.Offer(i, len(v), i < len(row.Old))
			kept[i] = keep
			for _, p := range drop {
				kept[p] = false
			}
		}
		for i, v := range slices.Concat(got.Old, got.New) {
			require.Equal(t, kept[i], !pgoutput.TooLarge(v), "seed %d value %d", seed, i)
			if kept[i] {
				require.Equal(t, all[i], v)
			}
		}
		for _, l := range got.Large {
			i := l.Column
			if !l.Old {
				i += len(row.Old)
			}
			require.EqualValues(t, len(all[i]), l.Bytes)
		}
	}
	r := newReducer(100, 10, nil)
	_, err := r.take(append([]byte{'d', 0, 0, 0, 99}, slices.Concat(make([]byte, 25), []byte("M12345678"))...))
	require.ErrorIs(t, err, errNoRow)
}

// randomChange is a CopyData message with an update, and what is in it.
func randomChange(rnd *rand.Rand) ([]byte, pgoutput.Row) {
	m := append([]byte{'d', 0, 0, 0, 0, 'w'}, make([]byte, 24)...)
	m = append(m, 'U', 0, 0, 0, 7)
	tuple := func(tag byte) (vals [][]byte) {
		n := 1 + rnd.IntN(6)
		m = append(m, tag, 0, byte(n))
		for range n {
			if rnd.IntN(6) == 0 {
				m, vals = append(m, 'n'), append(vals, nil)
				continue
			}
			v := bytes.Repeat([]byte{byte('a' + rnd.IntN(26))}, rnd.IntN(10)*rnd.IntN(200))
			m = append(binary.BigEndian.AppendUint32(append(m, 't'), uint32(len(v))), v...)
			vals = append(vals, v)
		}
		return vals
	}
	var row pgoutput.Row
	if rnd.IntN(2) == 0 {
		row.Old = tuple('O')
	}
	row.New = tuple('N')
	binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
	return m, row
}

// Whatever the pieces in which a session is read, its driver gets every message but the rows of a chunk, and the chunk gets these in
// place, those that are too large without what does not fit.
func TestRowReader(t *testing.T) {
	t.Parallel()
	const limit, held = 400_000, 300_000
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		var in, other []byte
		var want, got rowsTaken
		for range 1 + rnd.IntN(20) {
			if rnd.IntN(4) == 0 {
				m := append([]byte{'C', 0, 0, 0, 0}, make([]byte, rnd.IntN(3)*rnd.IntN(200_000))...)
				binary.BigEndian.PutUint32(m[1:], uint32(len(m)-1))
				in, other = append(in, m...), append(other, m...)
				continue
			}
			small, n := rnd.IntN(300), rnd.IntN(2)*rnd.IntN(700_000)
			in = appendDataRow(in, small, n)
			size, counted := 4+2+8+small+n, n
			if small >= smallValue {
				counted += small
			}
			want.heavies += min(size/(held+1), 1)
			if size > held && counted > limit {
				want.rows, want.left = append(want.rows, appendDataRow(nil, small, -1)[5:]), append(want.left, []leftValue{{column: 1, bytes: n}})
			} else {
				want.rows, want.left = append(want.rows, appendDataRow(nil, small, n)[5:]), append(want.left, nil)
			}
		}
		r := newRowReader(t)
		r.read(pieces{bytes.NewReader(in), rnd})
		r.begin(t.Context(), 0, limit, &got)
		var gave []byte
		piece := make([]byte, 1+rnd.IntN(10_000))
		for {
			n, err := r.Read(piece)
			gave = append(gave, piece[:n]...)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
		require.NoError(t, r.end())
		require.True(t, bytes.Equal(other, gave), "seed %d", seed)
		require.Len(t, got.rows, len(want.rows), "seed %d", seed)
		for i, row := range want.rows {
			require.True(t, bytes.Equal(row, got.rows[i]), "seed %d row %d", seed, i)
		}
		require.Equal(t, want.left, got.left, "seed %d", seed)
		require.Equal(t, want.heavies > 0, got.heavies > 0, "seed %d", seed)
	}
}

// An error of who takes the rows is given at the end, and the rows behind are passed over; one before a large row ends the reading.
func TestRowReaderRefusals(t *testing.T) {
	t.Parallel()
	refused, busy := errors.New("refused"), errors.New("busy")
	r := newRowReader(t)
	r.read(bytes.NewReader(append(appendDataRow(appendDataRow(nil, 1), 2), 'Z', 0, 0, 0, 5, 'I')))
	taken := &rowsTaken{refuses: refused}
	r.begin(t.Context(), 0, cdc.MaxRow, taken)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "Z\x00\x00\x00\x05I", string(got))
	require.Len(t, taken.rows, 1)
	require.Equal(t, refused, r.end())

	row := appendDataRow(nil, 200_000)
	r.read(bytes.NewReader(row))
	r.begin(t.Context(), 0, 100_000, &rowsTaken{busy: busy})
	_, err = io.ReadAll(r)
	require.Equal(t, busy, err)
	require.NoError(t, r.end())

	r.read(bytes.NewReader(appendDataRow(nil, 4*cdc.HeavyRow)))
	taken = &rowsTaken{busy: busy}
	r.begin(t.Context(), 0, cdc.MaxRow, taken)
	r.refuse(refused)
	_, err = io.ReadAll(r)
	require.NoError(t, err)
	require.Empty(t, taken.rows)
	require.Less(t, len(r.wire.buf), 2*cdc.HeavyRow, "a row that nobody takes is not held")
	require.Equal(t, refused, r.end())

	r.read(bytes.NewReader(row))
	got, err = io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(row, got), "nobody takes rows: the driver gets them, of any size")
}

// Rows that are not what they say they are are refused.
func TestBrokenRows(t *testing.T) {
	t.Parallel()
	vals, err := appendValues(nil, appendDataRow(nil, 3, -1, 0)[5:])
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte("vvv"), nil, {}}, vals)
	whole := appendDataRow(nil, 3, 2)[5:]
	for n := range whole {
		_, err := appendValues(nil, whole[:n])
		require.ErrorIs(t, err, errFrame)
	}
}

func newRowReader(t *testing.T) *rowReader {
	t.Helper()
	socket, err := endpoint.NewLowWater(nil) // what is below is read by somebody else
	require.NoError(t, err)
	return &rowReader{socket: socket}
}

// rowsTaken implements rowTaker.
type rowsTaken struct {
	rows          [][]byte
	left          [][]leftValue
	heavies       int
	refuses, busy error
}

func (r *rowsTaken) take(row []byte, left []leftValue) error {
	r.rows, r.left = append(r.rows, bytes.Clone(row)), append(r.left, left)
	return r.refuses
}

func (r *rowsTaken) heavy(context.Context) error {
	r.heavies++
	return r.busy
}

func (r *rowsTaken) inDocument(_, n int) int { return n }

// pieces reads in pieces of random sizes.
type pieces struct {
	io.Reader
	rnd *rand.Rand
}

func (p pieces) Read(b []byte) (int, error) {
	return p.Reader.Read(b[:min(len(b), 1+p.rnd.IntN(2)*p.rnd.IntN(9)+p.rnd.IntN(3)*p.rnd.IntN(60_000))])
}

// appendDataRow appends a row of two values of so many bytes; below zero is null.
func appendDataRow(dst []byte, sizes ...int) []byte {
	start := len(dst)
	dst = append(dst, 'D', 0, 0, 0, 0, 0, byte(len(sizes)))
	for _, n := range sizes {
		dst = binary.BigEndian.AppendUint32(dst, uint32(int32(n)))
		dst = append(dst, bytes.Repeat([]byte{'v'}, max(n, 0))...)
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}
