package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// wide is a row of table s.t with columns a, b and c, of which the driver has left out some.
func wide(lengths map[string]int, left ...LargeValue) *simRow {
	r := &simRow{shape: wideTable(), vals: map[string]string{"k": "7"}, v: 1, large: left}
	for c, n := range lengths {
		r.vals[c] = strings.Repeat(c, n)
	}
	return r
}

func wideTable() *Table {
	t := &Table{ID: tableID, Key: []string{"k"}, Incarnation: "1"}
	for _, c := range []string{"a", "b", "c", "k"} {
		t.Columns = append(t.Columns, Column{Name: c, Type: "text", Schema: json.RawMessage(`{"type":"string"}`)})
	}
	return t
}

func TestOversizedRows(t *testing.T) {
	t.Parallel()
	const limit = 300
	for name, c := range map[string]struct {
		event Event
		skip  bool // what the policy skip emits is nothing
		place string
		fails string // under the policy fail; none means that the document is the same under all policies
	}{
		"a value that the driver left out": {
			event: Event{Op: Insert, Row: wide(map[string]int{"b": 3}, LargeValue{"a", 200 << 20})},
			skip:  true, place: `{"a":null,"b":"bbb","c":null,"k":"7","_meta":{"op":"c","omitted":{"a":209715200},"source":{"v":"1"}}}`,
			fails: "The row of table s.t whose key (k) is [7] is too large for a document, of which no more than 62.0 MiB can be: a (200.0 MiB). " +
				"Set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.",
		},
		"the largest value goes, and no more than needed": {
			event: Event{Op: Update, Row: wide(map[string]int{"a": 120, "b": 130, "c": 125})},
			skip:  true, place: `{"a":"` + strings.Repeat("a", 120) + `","b":null,"c":null,"k":"7","_meta":{"op":"u","omitted":{"b":132,"c":127},"source":{"v":"1"}}}`,
			fails: "The row of table s.t whose key (k) is [7] is too large for a document, of which no more than 62.0 MiB can be: b (132 bytes), c (127 bytes). " +
				"Set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.",
		},
		"the old row gives way first": {
			event: Event{Op: Update, Row: wide(map[string]int{"a": 100}), Before: wide(map[string]int{"a": 99, "b": 80})},
			place: `{"a":"` + strings.Repeat("a", 100) + `","b":null,"c":null,"k":"7","_meta":{"op":"u","before":{"c":null,"k":"7"},"source":{"v":"1"}}}`,
		},
		"a value of the old row that the driver left out": {
			event: Event{Op: Update, Row: wide(map[string]int{"a": 1}), Before: wide(nil, LargeValue{"a", 1 << 30})},
			place: `{"a":"a","b":null,"c":null,"k":"7","_meta":{"op":"u","before":{"b":null,"c":null,"k":"7"},"source":{"v":"1"}}}`,
		},
		"a delete": {
			event: Event{Op: Delete, Before: wide(map[string]int{"a": 400, "b": 1}, LargeValue{"c", 1 << 30})},
			place: `{"b":"b","k":"7","_meta":{"op":"d","source":{"v":"1"}}}`,
		},
		"a key": {
			event: Event{Op: Insert, Row: wide(nil, LargeValue{"k", 100 << 20})},
			skip:  true,
			fails: `A row of table s.t is too large for a document by its key alone: k (100.0 MiB) (its source is {"v":"1"}). Leave the table out of the capture, or set onOversizedRow to skip to go on without such rows.`,
		},
		"an old key": {
			event: Event{Op: Delete, Before: wide(nil, LargeValue{"k", 100 << 20})},
			skip:  true,
			fails: `A row of table s.t is too large for a document by its key alone: k (100.0 MiB) (its source is {"v":"1"}). Leave the table out of the capture, or set onOversizedRow to skip to go on without such rows.`,
		},
		"a key that is too large as JSON": {
			event: Event{Op: Insert, Row: func() Row { r := wide(nil); r.vals["k"] = strings.Repeat("9", 300); return r }()},
			skip:  true,
			fails: `A row of table s.t is too large for a document by its key alone: k (307 bytes) (its key (k) is [` + strings.Repeat("9", 199) + `…). Leave the table out of the capture, or set onOversizedRow to skip to go on without such rows.`,
		},
	} {
		for _, policy := range []OversizePolicy{"", OversizePlaceholder, OversizeSkip} {
			t.Run(name+", "+string(policy), func(t *testing.T) {
				t.Parallel()
				c.event.Table, c.event.Txn = tableID, "1"
				d := &scriptDriver{tables: []*Table{wideTable()}, events: []Event{c.event, {Op: Commit, Txn: "1", Cursor: "2"}}}
				s := script(t, d, bind(Live))
				s.opts.OnOversizedRow, s.limits.document = policy, limit
				tx, err := s.read()
				switch {
				case c.fails != "" && (policy == "" || policy == OversizePlaceholder && c.place == ""):
					require.Error(t, err)
					require.Equal(t, c.fails, usererr.Message(err))
					return
				case policy == OversizeSkip && c.skip:
					require.NoError(t, err)
					require.Empty(t, tx.docs)
				default:
					require.NoError(t, err)
					require.Len(t, tx.docs, 1)
					require.JSONEq(t, c.place, tx.docs[0])
					require.LessOrEqual(t, len(c.place), limit)
				}
				require.Equal(t, c.skip, s.logs.LastEntry() != nil && s.logs.LastEntry().Data["eventType"] == tooLargeEvent)
			})
		}
	}
}

// A row that a backfill reads is treated like one of the log.
func TestOversizedRowsOfABackfill(t *testing.T) {
	t.Parallel()
	row := wide(map[string]int{"b": 3, "c": 400}, LargeValue{"a", 200 << 20})
	for policy, want := range map[OversizePolicy][]string{
		OversizePlaceholder: {`{"b":"bbb","c":null,"k":"7","a":null,"_meta":{"op":"c","omitted":{"a":209715200,"c":402},"source":{"v":"1","snapshot":true}}}`},
		OversizeSkip:        nil,
		OversizeFail:        nil,
	} {
		d := &scriptDriver{tables: []*Table{wideTable()}, rows: []Row{row}}
		b := bind("")
		s := script(t, d, b)
		s.opts.OnOversizedRow, s.limits.document = policy, 300
		r, err := s.open()
		require.NoError(t, err)
		tx := &scriptTx{}
		for err == nil && b.State.Phase != Live {
			err = r.read(t.Context(), tx)
		}
		require.Equal(t, want, tx.docs)
		if policy == OversizeFail {
			require.Equal(t, "The row of table s.t whose key (k) is [7] is too large for a document, of which no more than 62.0 MiB can be: a (200.0 MiB), c (402 bytes). "+
				"Set onOversizedRow to placeholder to go on with null for such values, or to skip to go on without such rows.", usererr.Message(err))
			continue
		}
		require.NoError(t, err)
		i := slices.IndexFunc(s.logs.AllEntries(), func(e *logrus.Entry) bool { return e.Data["eventType"] == tooLargeEvent })
		e := s.logs.AllEntries()[i]
		require.Equal(t, []any{"s.t", "key (k) is [7]", map[string]int64{"a": 200 << 20, "c": 402}}, []any{e.Data["table"], e.Data["row"], e.Data["columns"]})
		if policy == OversizePlaceholder {
			require.Equal(t, []string{"a", "c"}, b.State.Omitted)
		}
	}
}

// What was omitted once is said to be there when it is, also in the sessions that follow; otherwise nothing is said of it.
func TestOmittedIsTakenBack(t *testing.T) {
	t.Parallel()
	b := bind(Live)
	read := func(ev Event) string {
		ev.Table, ev.Txn = tableID, "1"
		s := script(t, &scriptDriver{tables: []*Table{wideTable()}, events: []Event{ev, {Op: Commit, Txn: "1", Cursor: "2"}}}, b)
		s.opts.OnOversizedRow = OversizePlaceholder
		tx, err := s.read()
		require.NoError(t, err)
		require.Len(t, tx.docs, 1)
		var doc struct {
			Meta struct{ Omitted json.RawMessage } `json:"_meta"`
		}
		require.NoError(t, json.Unmarshal([]byte(tx.docs[0]), &doc))
		return string(doc.Meta.Omitted)
	}
	small := func(omitted ...string) *simRow {
		r := wide(map[string]int{"a": 1, "b": 1})
		r.omitted = omitted
		return r
	}
	require.Empty(t, read(Event{Op: Insert, Row: small()}))
	require.Equal(t, `{"a":1073741824}`, read(Event{Op: Insert, Row: wide(nil, LargeValue{"a", 1 << 30})}))
	require.Equal(t, `{"a":0}`, read(Event{Op: Update, Row: small()}))
	require.Empty(t, read(Event{Op: Update, Row: small("a")}), "it did not change, so it still is what it was")
	require.Equal(t, `{"b":9,"a":0}`, read(Event{Op: Insert, Row: wide(nil, LargeValue{"b", 9})}))
	require.Empty(t, read(Event{Op: Delete, Before: small()}))
}

// The choice does not depend on how values come, and what is kept never exceeds the limit.
func TestSieve(t *testing.T) {
	t.Parallel()
	type value struct {
		size int
		old  bool
	}
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		limit := 50 + rnd.IntN(100)
		var values []value
		for range rnd.IntN(12) {
			values = append(values, value{rnd.IntN(90), false})
		}
		for i := range rnd.IntN(len(values) + 1) {
			values[i].old = true
		}
		var s Sieve
		s.Reset(limit)
		kept := map[int]bool{}
		for i, v := range values {
			keep, drop := s.Offer(i, v.size, v.old)
			kept[i] = keep
			for _, p := range drop {
				require.True(t, kept[p])
				kept[p] = false
			}
			sum := 0
			for p, in := range kept {
				if in {
					sum += values[p].size
				}
			}
			require.LessOrEqual(t, sum, limit)
		}
		// All at once: what is too large by itself, then old ones, then the largest.
		want := map[int]bool{}
		var order []int
		sum := 0
		for i, v := range values {
			want[i] = v.size <= limit
			if want[i] {
				order, sum = append(order, i), sum+v.size
			}
		}
		slices.SortStableFunc(order, func(a, b int) int {
			if values[a].old != values[b].old {
				if values[a].old {
					return -1
				}
				return 1
			}
			if values[a].size != values[b].size {
				return values[b].size - values[a].size
			}
			return b - a
		})
		for ; sum > limit; order = order[1:] {
			want[order[0]] = false
			sum -= values[order[0]].size
		}
		require.Equal(t, want, kept, "seed %d", seed)
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	fields := `"a \"q\\":1,"b":{"x":[1,2,{"y":"},]\\\""}],"z":null},"c":"","d":[],"é":"a,b","f":true`
	members, err := membersOf([]byte(fields))
	require.NoError(t, err)
	var got []string
	for _, m := range members {
		got = append(got, fmt.Sprintf("%s %s", m.name, fields[m.start:m.end]))
	}
	require.Equal(t, []string{`a "q\ "a \"q\\":1`, `b ,"b":{"x":[1,2,{"y":"},]\\\""}],"z":null}`, `c ,"c":""`, `d ,"d":[]`, `é ,"é":"a,b"`, `f ,"f":true`}, got)
	members, err = membersOf(nil)
	require.NoError(t, err)
	require.Empty(t, members)
}

func TestPlaceholderSchemas(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		``:                               ``,
		`{}`:                             `{}`,
		`{"type":"string"}`:              `{"type":["string","null"]}`,
		`{"type":["string","null"]}`:     `{"type":["string","null"]}`,
		`{"type":["integer","string"]}`:  `{"type":["integer","string","null"]}`,
		`{"enum":["a"],"type":"string"}`: `{"anyOf":[{"enum":["a"],"type":"string"},{"type":"null"}]}`,
		`{"format":"date"}`:              `{"anyOf":[{"format":"date"},{"type":"null"}]}`,
	} {
		require.Equal(t, want, string(orNull(json.RawMessage(schema))))
	}
	table := wideTable()
	table.Columns[1].Small = true
	cs, err := collections([]*Table{table}, Options{OnOversizedRow: OversizePlaceholder})
	require.NoError(t, err)
	var schema struct {
		Properties map[string]struct {
			Type       any
			Properties map[string]json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(cs[0].Schema, &schema))
	require.Equal(t, []any{"string", "null"}, schema.Properties["a"].Type)
	require.Equal(t, "string", schema.Properties["b"].Type, "small values always fit")
	require.Equal(t, "string", schema.Properties["k"].Type, "a key is never left out")
	require.Contains(t, schema.Properties["_meta"].Properties, "omitted")
	require.Contains(t, string(sourcedSchema(table, true)), `"a":{"type":["string","null"]}`)
}

// Of all chunks in memory one at a time has heavy rows.
func TestHeavyChunksOneAtATime(t *testing.T) {
	t.Parallel()
	r, err := script(t, &scriptDriver{tables: []*Table{tableST()}}, bind(Live)).open()
	require.NoError(t, err)
	a, b := r.newChunk(r.tables[0]), r.newChunk(r.tables[0])
	require.NoError(t, a.ask.Heavy(t.Context()))
	require.NoError(t, a.ask.Heavy(t.Context()), "it has the place already")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, b.ask.Heavy(ended), context.Canceled)
	got := make(chan error)
	go func() { got <- b.ask.Heavy(t.Context()) }()
	select {
	case err := <-got:
		require.Fail(t, "two chunks have heavy rows", err)
	default:
	}
	r.recycle(a)
	require.NoError(t, <-got)
	r.recycle(b)
	require.Empty(t, r.heavy)
}
