package sinktest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
)

// Run runs the whole suite. Every test uses tables of its own.
func Run(t *testing.T, c Case) {
	t.Helper()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		suffix := "_proto"
		if codec == frame.JSON {
			suffix = "_json"
		}
		s := suite{c: c, codec: codec, suffix: suffix}
		for name, test := range map[string]func(*testing.T){
			"Evolve":       s.evolve,
			"Fence":        s.fence,
			"HardDelete":   s.hardDelete,
			"Killed":       s.killed,
			"ManyKeys":     s.manyKeys,
			"Names":        s.names,
			"OutOfOrder":   s.outOfOrder,
			"Partial":      s.partial,
			"Recreate":     s.recreate,
			"SoftDelete":   s.softDelete,
			"WholeDocs":    s.wholeDocuments,
			"WrongBeliefs": s.wrongBeliefs,
		} {
			t.Run(name+suffix, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	}
}

type suite struct {
	c      Case
	codec  frame.Codec
	suffix string
}

func (s suite) table(name string) string { return name + s.suffix }

// basic is a collection with a value that can be absent and the mark of deletions.
func basic(name string) Collection {
	return Collection{Name: name, Columns: []Column{
		{Name: "id", Types: []string{"integer"}, Key: true},
		{Name: "region", Types: []string{"string"}, Key: true},
		{Name: "note", Types: []string{"string", "null"}, May: true},
		{Name: "size", Types: []string{"integer", "null"}, May: true},
		{Name: "_meta/op", Pointer: "/_meta/op", Types: []string{"string"}, May: true},
	}}
}

func (s suite) runtime(t *testing.T, config json.RawMessage, task string, bindings ...Binding) *Runtime {
	t.Helper()
	return NewRuntime(t, s.c, s.codec, Task{Name: "acme/" + task + s.suffix, Config: config, Bindings: bindings})
}

func (s suite) binding(c Collection, table string, delta bool) Binding {
	return Binding{Collection: c, Resource: s.c.Resource(s.table(table), delta)}
}

func change(id int, region, rest string) string {
	return fmt.Sprintf(`{"id":%d,"region":%q,%s}`, id, region, rest)
}

// smallLog inserts, updates in part, deletes and inserts again, for a table and a history of it.
func smallLog() []Change {
	docs := []string{
		change(1, "north", `"note":"a","size":10,"_meta":{"op":"c"}`),
		change(2, "north", `"note":"b","size":20,"_meta":{"op":"c"}`),
		change(1, "south", `"note":null,"_meta":{"op":"c"}`),
		change(1, "north", `"size":11,"_meta":{"op":"u"}`),
		change(2, "north", `"_meta":{"op":"d"}`),
		change(3, "east", `"note":"c","_meta":{"op":"c"}`),
		change(2, "north", `"note":"b again","_meta":{"op":"c"}`),
		change(1, "south", `"note":"now","size":5,"_meta":{"op":"u"}`),
	}
	var log []Change
	for _, d := range docs {
		log = append(log, Change{0, d}, Change{1, d})
	}
	return log
}

// killed kills the connector at every message that crosses the pipe, and lets the runtime start it anew: whatever the
// moment, the table and the history must come out as if nothing had happened.
func (s suite) killed(t *testing.T) {
	messages := 0
	run := func(t *testing.T, name string, killAt int) {
		t.Helper()
		r := s.runtime(t, s.c.Config, name, s.binding(basic("acme/t"), name, false), s.binding(basic("acme/t"), name+"_history", true))
		r.Batch = 4
		r.Log = smallLog()
		r.MustApply()
		count := 0
		r.Step = func(p *Peer, _ string) {
			if count == killAt {
				p.Kill()
			}
			count++
		}
		for attempt := 0; ; attempt++ {
			err := r.Run()
			if err == nil {
				break
			}
			require.True(t, ErrKilled(err), "after message %d: %v", killAt, err)
			require.Less(t, attempt, 3)
		}
		messages = count
		r.RequireTable(t, 0, s.table(name), false)
		r.RequireTable(t, 1, s.table(name+"_history"), false)
	}
	run(t, "undisturbed", -1)
	total := messages
	require.Greater(t, total, 40)
	for at := range total {
		run(t, fmt.Sprintf("killed_at_%d", at), at)
	}
}

// fence runs two instances at once: the older one must not be able to commit any more, and must say why.
func (s suite) fence(t *testing.T) {
	r := s.runtime(t, s.c.Config, "fence", s.binding(basic("acme/t"), "fenced", false))
	r.Batch = 2
	for i := range 8 {
		r.Log = append(r.Log, Change{0, change(i, "x", fmt.Sprintf(`"size":%d`, i))})
	}
	r.MustApply()
	p := Start(t, s.c, s.codec)
	older := &session{Runtime: r, p: p}
	require.NoError(t, r.Open(p))
	require.NoError(t, older.acknowledge())
	require.NoError(t, older.transaction())
	require.NoError(t, older.acknowledge())

	newer := *r
	newer.Position = 0
	p2 := Start(t, s.c, s.codec)
	second := &session{Runtime: &newer, p: p2}
	require.NoError(t, newer.Open(p2))
	if !newer.authoritative {
		t.Skip("this destination leaves the position to the runtime, so it has no fence")
	}
	require.Equal(t, 2, newer.Position, "the newer instance goes on where the older one committed")

	err := older.transaction()
	if err == nil {
		err = older.acknowledge()
	}
	require.Error(t, err, "the older instance must not commit")
	require.ErrorContains(t, p.reason(err), "nother instance took over")

	require.NoError(t, second.transactions())
	require.NoError(t, p2.Wait())
	r.Position = newer.Position
	r.RequireTable(t, 0, s.table("fenced"), false)
}

func (s suite) softDelete(t *testing.T) {
	r := s.runtime(t, s.c.Config, "soft", s.binding(basic("acme/t"), "soft", false), s.binding(basic("acme/t"), "soft_history", true))
	r.Log = smallLog()
	r.Batch = 12 // the history has several changes of a key in one transaction
	r.MustApply()
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, s.table("soft"), false)
	r.RequireTable(t, 1, s.table("soft_history"), false)
}

func (s suite) hardDelete(t *testing.T) {
	if len(s.c.HardDelete) == 0 {
		t.Skip("this destination does not delete")
	}
	for _, batch := range []int{1, 2, 100} {
		name := fmt.Sprintf("hard_%d", batch)
		r := s.runtime(t, s.c.HardDelete, name, s.binding(basic("acme/t"), name, false))
		r.Batch = batch
		for i, op := range []string{"c", "c", "c", "d", "u", "d", "d"} {
			r.Log = append(r.Log, Change{0, change(i%3, "x", fmt.Sprintf(`"size":%d,"_meta":{"op":%q}`, i, op))})
		}
		// Created and deleted within one transaction, perhaps.
		r.Log = append(r.Log, Change{0, change(9, "x", `"_meta":{"op":"c"}`)}, Change{0, change(9, "x", `"_meta":{"op":"d"}`)})
		r.MustApply()
		require.NoError(t, r.Run())
		r.RequireTable(t, 0, s.table(name), true)
	}
}

// recreate takes a binding away and brings it back with a higher backfill counter: its table starts anew.
func (s suite) recreate(t *testing.T) {
	b := s.binding(basic("acme/t"), "recreated", false)
	r := s.runtime(t, s.c.Config, "recreate", b)
	r.Log = []Change{{0, change(1, "x", `"size":1`)}, {0, change(2, "x", `"size":2`)}}
	r.MustApply()
	require.NoError(t, r.Run())

	r.Task.Bindings = nil
	r.MustApply()
	b.Backfill = 1
	r.Task.Bindings = []Binding{b}
	r.MustApply()
	if !s.c.AppendOnly { // which may leave the old rows beside the new ones, under another name
		require.Empty(t, s.c.Rows(t, s.table("recreated")))
	}
	// A real runtime reads the collection from its beginning for the new binding, at the position that it is at.
	log := r.Log
	r.Log = append(log, Change{0, change(3, "x", `"size":3`)})
	require.NoError(t, r.Run())
	r.Log = r.Log[2:]
	r.RequireTable(t, 0, s.table("recreated"), false)
}

// evolve adds fields, lets them be null and widens their types while data flows.
func (s suite) evolve(t *testing.T) {
	c := Collection{Name: "acme/t", Columns: []Column{
		{Name: "id", Types: []string{"integer"}, Key: true},
		{Name: "count", Types: []string{"integer"}},
		{Name: "flag", Types: []string{"boolean"}},
	}}
	r := s.runtime(t, s.c.Config, "evolve", s.binding(c, "evolved", false))
	r.Log = []Change{{0, `{"id":1,"count":9007199254740993,"flag":true}`}, {0, `{"id":2,"count":2,"flag":false}`}}
	r.MustApply()
	require.NoError(t, r.Run())

	steps := []struct {
		columns []Column
		docs    []string
	}{
		{ // a new field, and one that may be null now
			[]Column{
				{Name: "id", Types: []string{"integer"}, Key: true},
				{Name: "count", Types: []string{"integer", "null"}, May: true},
				{Name: "extra", Types: []string{"string"}, May: true},
				{Name: "flag", Types: []string{"boolean"}},
			},
			[]string{`{"id":3,"count":null,"flag":true,"extra":"x"}`, `{"id":1,"flag":true,"extra":"y"}`},
		},
		{ // wider types
			[]Column{
				{Name: "id", Types: []string{"integer"}, Key: true},
				{Name: "count", Types: []string{"number", "null"}, May: true},
				{Name: "extra", Types: []string{"string", "integer"}, May: true},
				{Name: "flag", Types: []string{"boolean", "string"}},
			},
			[]string{`{"id":4,"count":1.5,"flag":"maybe","extra":4}`, `{"id":2,"flag":true}`},
		},
		{ // a field goes away
			[]Column{
				{Name: "id", Types: []string{"integer"}, Key: true},
				{Name: "count", Types: []string{"number", "null"}, May: true},
			},
			[]string{`{"id":5,"count":5}`, `{"id":1,"count":1}`},
		},
		{ // and comes back
			[]Column{
				{Name: "id", Types: []string{"integer"}, Key: true},
				{Name: "count", Types: []string{"number", "null"}, May: true},
				{Name: "extra", Types: []string{"string", "integer"}, May: true},
			},
			[]string{`{"id":6,"extra":"z"}`, `{"id":1,"count":2}`, `{"id":3,"extra":7}`},
		},
	}
	for _, step := range steps {
		r.Task.Bindings[0].Collection.Columns = step.columns
		r.MustApply()
		require.Empty(t, r.MustApply(), "applying twice must not change anything more")
		for _, d := range step.docs {
			r.Log = append(r.Log, Change{0, d})
		}
		require.NoError(t, r.Run())
		r.RequireTable(t, 0, s.table("evolved"), false)
	}
}

// manyKeys loads and stores ten thousand keys in one transaction, then updates and extends them.
func (s suite) manyKeys(t *testing.T) {
	const n = 10_000
	r := s.runtime(t, s.c.Config, "many", s.binding(basic("acme/t"), "many", false))
	r.Batch = n
	for i := range n {
		r.Log = append(r.Log, Change{0, change(i, "x", fmt.Sprintf(`"size":%d,"note":"first"`, i))})
	}
	for i := n / 2; i < n/2+n; i++ {
		r.Log = append(r.Log, Change{0, change(i, "x", fmt.Sprintf(`"size":%d`, -i))})
	}
	r.MustApply()
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, s.table("many"), false)
}

// names uses tables and fields whose names need care: keywords, quotes, spaces, capitals, other scripts, long ones that
// differ only beyond what a destination may keep, and characters that JSON pointers escape.
func (s suite) names(t *testing.T) {
	long := strings.Repeat("long_", 14)
	c := Collection{Name: "acme/t", Columns: []Column{
		{Name: "select", Types: []string{"integer"}, Key: true},
		{Name: "Key", Types: []string{"string"}, Key: true},
	}}
	names := []string{
		"order", "a b", `quo"te`, "quo'te", "größe", "表", "a.b", "a/b~c", "xmin", "key", "KEY", "c0", "percent%s", "semi;colon", "back\\slash",
		long + "1", long + "2", strings.Repeat("ü", 40),
	}
	doc := map[string]any{"select": 1, "Key": "k"}
	for i, n := range names {
		c.Columns = append(c.Columns, Column{Name: n, Types: []string{"integer"}, May: true})
		doc[n] = i
	}
	for i, table := range []string{"select", `ta"ble`, "Table Name", "täbel'"} {
		r := s.runtime(t, s.c.Config, fmt.Sprintf("names%d", i), s.binding(c, table, false))
		first, err := json.Marshal(doc)
		require.NoError(t, err)
		r.Batch = 1
		r.Log = []Change{{0, string(first)}, {0, `{"select":1,"Key":"k","order":7}`}, {0, `{"select":2,"Key":"k"}`}}
		r.MustApply()
		require.NoError(t, r.Run())
		r.RequireTable(t, 0, s.table(table), false)
	}
}

// wholeDocuments stores documents whole, and gives them back to the letter where that matters.
func (s suite) wholeDocuments(t *testing.T) {
	b := s.binding(basic("acme/t"), "whole", false)
	b.Document = true
	r := s.runtime(t, s.c.Config, "whole", b)
	r.Batch = 1
	r.Log = []Change{
		{0, change(1, "x", `"size":1,"unknown":{"deep":[1,2.50,"\u0000"]},"_meta":{"op":"c"}`)},
		{0, change(1, "x", `"note":"n","_meta":{"op":"u"}`)},
	}
	r.MustApply()
	var last string
	r.OnLoaded = func(doc []byte) { last = string(doc) }
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, s.table("whole"), false)
	if s.c.AppendOnly {
		return
	}
	require.JSONEq(t, change(1, "x", `"size":1,"unknown":{"deep":[1,2.50,"\u0000"]},"_meta":{"op":"c"}`), last)
}

// wrongBeliefs lies about which keys exist. What is stored and deleted must not depend on it.
func (s suite) wrongBeliefs(t *testing.T) {
	keys := basic("acme/keys")
	keys.Columns = keys.Columns[:2]
	config, hard := s.c.Config, len(s.c.HardDelete) > 0
	if hard {
		config = s.c.HardDelete
	}
	for name, lie := range map[string]func(exists bool) bool{
		"none":  func(bool) bool { return false },
		"all":   func(bool) bool { return true },
		"other": func(exists bool) bool { return !exists },
	} {
		table, plain := "beliefs_"+name, "beliefs_keys_"+name
		r := s.runtime(t, config, "beliefs"+name, s.binding(basic("acme/t"), table, false), s.binding(keys, plain, false))
		r.Batch, r.lie = 4, lie
		for round, ops := range []string{"cccc", "uuuu", "dudu", "ccud"} {
			for i, op := range ops {
				r.Log = append(r.Log, Change{0, change(i, "x", fmt.Sprintf(`"size":%d,"note":"n","_meta":{"op":%q}`, i*10+round, string(op)))})
			}
			for i := range 4 {
				r.Log = append(r.Log, Change{1, fmt.Sprintf(`{"id":%d,"region":"x"}`, i+2*round)})
			}
		}
		r.MustApply()
		require.NoError(t, r.Run())
		r.RequireTable(t, 0, s.table(table), hard)
		r.RequireTable(t, 1, s.table(plain), hard)
	}
}
