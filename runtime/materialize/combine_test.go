package materialize

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/reduce"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/tuple"
)

const rowSchema = `{"type":"object","required":["id"],"reduce":{"strategy":"merge"},
 "if":{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]},"then":{"reduce":{"strategy":"merge","delete":true}},
 "properties":{"id":{"type":"integer"},"a":{"type":"integer"},"b":{"type":"string","default":"none"},"sum":{"type":"integer","reduce":{"strategy":"sum"}},"tags":{"type":"array"},"_meta":{"type":"object","properties":{"op":{"type":"string"}}}}}`

func testBinding(t require.TestingT, delta bool, key ...string) *binding {
	shape, err := schema.Parse([]byte(rowSchema))
	require.NoError(t, err)
	if key == nil {
		key = []string{"/id"}
	}
	spec, err := specs.Collection(&pipeline.Collection{Name: "acme/t", Key: key, Schema: json.RawMessage(rowSchema)}, shape)
	require.NoError(t, err)
	plan, err := reduce.Compile([]byte(rowSchema))
	require.NoError(t, err)
	keys := make([]string, len(key))
	for i, k := range key {
		keys[i] = schema.FieldOf(k)
	}
	b, err := newBinding(0, &flowpb.MaterializationSpec_Binding{
		Collection: spec, DeltaUpdates: delta, FieldSelection: &flowpb.FieldSelection{Keys: keys, Values: []string{"_meta/op", "a", "b", "tags"}, Document: "flow_document"},
	}, &collection.Version{Number: 1, Spec: spec, Plan: plan}, nil)
	require.NoError(t, err)
	return b
}

func TestKeysAndValuesInBothForms(t *testing.T) {
	t.Parallel()
	b := testBinding(t, false, "/id", "/b")
	doc := []byte(`{"id":7,"a":null,"tags":[1, {"x":"y"}],"_meta":{"op":"c"}}`)
	require.Equal(t, `[7,"none"]`, string(b.appendKeyText(nil, doc)), "a location that is missing has its default")
	key, values, err := b.appendRow(nil, nil, frame.JSON, doc)
	require.NoError(t, err)
	require.Equal(t, `[7,"none"]`, string(key))
	require.Equal(t, `["c",null,"none",[1, {"x":"y"}]]`, string(values))
	key, values, err = b.appendRow(nil, nil, frame.Proto, doc)
	require.NoError(t, err)
	elements, err := tuple.Unpack(key)
	require.NoError(t, err)
	require.Equal(t, []any{int64(7), "none"}, elements)
	elements, err = tuple.Unpack(values)
	require.NoError(t, err)
	require.Equal(t, []any{"c", nil, "none", []byte(`[1,{"x":"y"}]`)}, elements)
	packed, deleted, err := b.appendKey(nil, doc)
	require.NoError(t, err)
	require.Equal(t, key, packed)
	require.False(t, deleted)
}

func TestUnusableDocuments(t *testing.T) {
	t.Parallel()
	b := testBinding(t, false)
	x := newTransaction(1, &sync.Mutex{})
	_, err := x.add(b, []byte(`{"id":1,"sum":1}`))
	require.NoError(t, err)
	_, err = x.add(b, []byte(`{"id":1,"sum":"x"}`))
	require.ErrorContains(t, err, `two documents of the collection acme/t cannot be reduced: sum: the reduction strategy sum needs numbers, but got "x"`)
}

// Delta updates are every document, as it is and in the order of the log, also where a transaction has several of a key.
func TestDeltaUpdatesAreNotReduced(t *testing.T) {
	t.Parallel()
	delta, standard := testBinding(t, true), testBinding(t, false)
	standard.index = 1
	x := newTransaction(2, &sync.Mutex{})
	docs := []string{
		`{"id":2,"a":1,"_meta":{"op":"c"}}`, `{"id":1,"sum":1,"_meta":{"op":"c"}}`, `{"id":2,"b":"x","_meta":{"op":"u"}}`,
		`{"id":2,"_meta":{"op":"d"}}`, `{"id":1,"sum":1,"_meta":{"op":"u"}}`, `{"id":2,"_meta":{"op":"c"}}`,
	}
	for _, doc := range docs {
		for _, b := range []*binding{standard, delta} {
			_, err := x.add(b, []byte(doc))
			require.NoError(t, err)
		}
	}
	var got []string
	for _, e := range x.sorted()[:len(docs)] {
		require.Same(t, delta, e.binding)
		require.False(t, e.exists || e.deleted, "a deletion is a row like any other")
		got = append(got, string(e.doc))
	}
	require.Equal(t, docs, got)
	require.Len(t, x.order, len(docs)+2, "the other binding has one row a key")
}

// Documents are loaded while others are still gathered and asked for: whichever comes first, each key ends with both.
func TestLoadedWhileGathering(t *testing.T) {
	t.Parallel()
	b := testBinding(t, false)
	x := newTransaction(1, &sync.Mutex{})
	const keys = 500
	asked := make(chan int, keys)
	var receiver errgroup.Group
	receiver.Go(func() error {
		for id := range asked {
			if err := x.loaded(b, fmt.Appendf(nil, `{"id":%d,"sum":100,"tags":["stored"],"_meta":{"op":"c"}}`, id)); err != nil {
				return err
			}
		}
		return nil
	})
	for round := range 3 {
		for id := range keys {
			e, err := x.add(b, fmt.Appendf(nil, `{"id":%d,"sum":1,"a":%d,"_meta":{"op":"u"}}`, id, round))
			require.NoError(t, err)
			require.Equal(t, round == 0, e != nil)
			if e != nil {
				require.Equal(t, fmt.Sprintf("[%d]", id), string(x.appendKeyText(nil, e)))
				asked <- id
			}
		}
	}
	close(asked)
	require.NoError(t, receiver.Wait())
	require.Len(t, x.sorted(), keys)
	for _, e := range x.sorted() {
		require.True(t, e.exists)
		require.Contains(t, string(e.doc), `"sum":103,"tags":["stored"],"_meta":{"op":"u"},"a":2}`)
	}
	x.reset()
	require.True(t, x.empty())
	e, err := x.add(b, []byte(`{"id":1,"sum":1}`))
	require.NoError(t, err)
	require.False(t, e.exists || e.deleted || e.fresh, "nothing is left of the last transaction")
}

// TestCombineIsTheSequence: whatever the transactions' boundaries are, and whatever is loaded, a key ends as if its
// documents had been applied to it one by one.
func TestCombineIsTheSequence(t *testing.T) {
	t.Parallel()
	type row struct {
		A, B any
		Sum  int
	}
	rapid.Check(t, func(t *rapid.T) {
		b := testBinding(t, false)
		model, stored := map[int]*row{}, map[int][]byte{}
		for range rapid.IntRange(1, 4).Draw(t, "transactions") {
			x := newTransaction(1, &sync.Mutex{})
			touched := map[int]bool{}
			for n := range rapid.IntRange(1, 8).Draw(t, "documents") {
				id := rapid.IntRange(0, 2).Draw(t, "id")
				op := rapid.SampledFrom([]string{"c", "u", "u", "d"}).Draw(t, "op")
				fields := fmt.Sprintf(`{"id":%d,"sum":1,"_meta":{"op":%q}`, id, op)
				old := model[id]
				if old == nil {
					old = &row{}
				}
				next := &row{old.A, old.B, old.Sum + 1}
				if rapid.Bool().Draw(t, "a") {
					fields += fmt.Sprintf(`,"a":%d`, n)
					next.A = float64(n)
				}
				if rapid.Bool().Draw(t, "b") {
					fields += fmt.Sprintf(`,"b":"b%d"`, n)
					next.B = fmt.Sprintf("b%d", n)
				}
				if model[id] = next; op == "d" {
					delete(model, id)
				}
				touched[id] = true
				_, err := x.add(b, []byte(fields+"}"))
				require.NoError(t, err)
			}
			for id := range touched {
				if stored[id] != nil {
					require.NoError(t, x.loaded(b, stored[id]))
				}
			}
			require.NoError(t, x.loaded(b, []byte(`{"id":99}`)), "what nobody asked for does no harm")
			require.Len(t, x.sorted(), len(touched))
			for _, e := range x.sorted() {
				var v struct{ ID int }
				require.NoError(t, json.Unmarshal(e.doc, &v))
				require.Equal(t, stored[v.ID] != nil, e.exists)
				if stored[v.ID] = e.doc; e.deleted {
					delete(stored, v.ID)
				}
			}
		}
		require.Len(t, stored, len(model))
		for id, want := range model {
			var got row
			require.NoError(t, json.Unmarshal(stored[id], &got))
			require.Equal(t, *want, got)
		}
	})
}

// plainBinding is a binding of a table's changes whose destination keeps columns and needs no loads.
func plainBinding(t require.TestingT) *binding {
	const tableSchema = `{"type":"object","required":["id"],"reduce":{"strategy":"merge"},
 "if":{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]},"then":{"reduce":{"strategy":"merge","delete":true}},
 "properties":{"id":{"type":"integer"},"a":{"type":["integer","null"]},"b":{"type":"string"},"_meta":{"type":"object","reduce":{"strategy":"merge"},"properties":{"op":{"enum":["c","u","d"]},"before":{"reduce":{"strategy":"firstWriteWins"}}}}}}`
	shape, err := schema.Parse([]byte(tableSchema))
	require.NoError(t, err)
	collected, err := specs.Collection(&pipeline.Collection{Name: "acme/t", Key: []string{"/id"}, Schema: json.RawMessage(tableSchema)}, shape)
	require.NoError(t, err)
	plan, err := reduce.Compile([]byte(tableSchema))
	require.NoError(t, err)
	spec := &flowpb.MaterializationSpec_Binding{Collection: collected, FieldSelection: &flowpb.FieldSelection{Keys: []string{"id"}, Values: []string{"_meta/op", "a", "b"}}}
	b, err := newBinding(0, spec, &collection.Version{Number: 1, Spec: collected, Plan: plan}, nil)
	require.NoError(t, err)
	require.NoError(t, b.skipLoads(spec))
	return b
}

// TestUnloadedIsTheSame: a transaction ends with the same rows whether or not what replaces a row was asked for, and asks for all
// that does not.
func TestUnloadedIsTheSame(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		loading, skipping := plainBinding(t), plainBinding(t)
		loading.skips = false
		stored := map[int]string{0: `{"id":0,"a":100,"b":"stored","_meta":{"op":"c"}}`, 1: `{"id":1,"a":null,"b":"stored","_meta":{"op":"d"}}`}
		asked := func(x *transaction, b *binding, docs []string) (keys []int) {
			for _, doc := range docs {
				e, err := x.add(b, []byte(doc))
				require.NoError(t, err)
				if e != nil && !e.unasked {
					var v struct{ ID int }
					require.NoError(t, json.Unmarshal([]byte(doc), &v))
					keys = append(keys, v.ID)
				}
			}
			for _, id := range keys {
				if doc, has := stored[id]; has {
					require.NoError(t, x.loaded(b, []byte(doc)))
				}
			}
			return keys
		}
		var docs []string
		first := map[int]string{}
		for n := range rapid.IntRange(1, 8).Draw(t, "documents") {
			id := rapid.IntRange(0, 2).Draw(t, "id")
			op := rapid.SampledFrom([]string{"c", "u", "d"}).Draw(t, "op")
			doc := fmt.Sprintf(`{"id":%d,"_meta":{"before":{},"op":%q}`, id, op)
			whole := true
			for _, column := range []string{`"a":` + fmt.Sprint(n), `"b":"b` + fmt.Sprint(n) + `"`} {
				if rapid.IntRange(0, 3).Draw(t, "has") > 0 {
					doc += "," + column
				} else {
					whole = false
				}
			}
			if _, has := first[id]; !has {
				if first[id] = ""; whole {
					first[id] = op
				}
			}
			docs = append(docs, doc+"}")
		}
		x, y := newTransaction(1, &sync.Mutex{}), newTransaction(1, &sync.Mutex{})
		require.Len(t, asked(x, loading, docs), len(first))
		for _, id := range asked(y, skipping, docs) {
			require.Empty(t, first[id], "it was asked for, though its first document says all")
			delete(first, id)
		}
		loaded, unloaded := x.sorted(), y.sorted()
		require.Len(t, unloaded, len(loaded))
		for i, e := range unloaded {
			key, values, err := loading.appendRow(nil, nil, frame.JSON, loaded[i].doc)
			require.NoError(t, err)
			gotKey, got, err := skipping.appendRow(nil, nil, frame.JSON, e.doc)
			require.NoError(t, err)
			require.Equal(t, string(key)+string(values), string(gotKey)+string(got))
			require.Equal(t, loaded[i].deleted, e.deleted)
			var id []int
			require.NoError(t, json.Unmarshal(key, &id))
			if op, skipped := first[id[0]]; skipped {
				require.NotEmpty(t, op, "it was not asked for, though its first document leaves something out")
				require.Equal(t, op != "c", e.exists)
			} else {
				require.Equal(t, stored[id[0]] != "", e.exists)
			}
		}
	})
}

// Where more than a replaced row is at stake, every key is asked for.
func TestWhatIsAlwaysLoaded(t *testing.T) {
	t.Parallel()
	for why, c := range map[string]struct {
		b      *binding
		values []string
		change func(b *binding)
	}{
		"nothing":                 {plainBinding(t), []string{"a"}, func(*binding) {}},
		"whole documents":         {plainBinding(t), []string{"a"}, func(b *binding) { b.document = true }},
		"an older value counts":   {plainBinding(t), []string{"a", "_meta/before"}, func(*binding) {}},
		"nobody says what is new": {testBinding(t, false), []string{"a"}, func(b *binding) { b.document = false }},
	} {
		c.b.skips = false
		c.change(c.b)
		require.NoError(t, c.b.skipLoads(&flowpb.MaterializationSpec_Binding{Collection: c.b.version.Spec, FieldSelection: &flowpb.FieldSelection{Keys: []string{"id"}, Values: c.values}}))
		require.Equal(t, why == "nothing", c.b.skips, why)
	}
}
