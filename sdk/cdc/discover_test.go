package cdc

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/golden"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestCollectionNames(t *testing.T) {
	t.Parallel()
	var tables []*Table
	for _, id := range []TableID{
		{"public", "orders"}, {"public", "Orders"}, {"public", "ORDERS"}, {"Sales", "Ünïts"}, {"a b", "c/d"}, {"a_b", "c_d"}, {"x", "1.2-3"},
	} {
		tables = append(tables, &Table{ID: id, Key: []string{"id"}})
	}
	names := collectionNames(tables)
	require.Equal(t, map[TableID]string{
		{"public", "orders"}: "public/orders", // its own name is kept
		{"public", "Orders"}: "public/orders_e311b711",
		{"public", "ORDERS"}: "public/orders_9ec64cb1",
		{"Sales", "Ünïts"}:   "sales/ünïts",
		{"a b", "c/d"}:       "a_b/c_d_5fbdc7cc",
		{"a_b", "c_d"}:       "a_b/c_d",
		{"x", "1.2-3"}:       "x/1.2-3",
	}, names)
}

func discoverable() []*Table {
	return []*Table{
		{ID: TableID{"public", "orders"}, Key: []string{"region/~", "id"}, Columns: []Column{
			{Name: "id", Schema: json.RawMessage(`{"type":"integer"}`)},
			{Name: "region/~", Schema: json.RawMessage(`{"type":"string"}`)},
			{Name: "note", Schema: json.RawMessage(`{"type":["string","null"],"description":"text"}`), Nullable: true},
			{Name: "anything"},
		}},
		{ID: TableID{"public", "events"}, Columns: []Column{{Name: "id", Schema: json.RawMessage(`{"type":"integer"}`)}}},
		{ID: TableID{"public", "odd"}, Key: []string{"_meta"}, Columns: []Column{{Name: "_meta"}}},
	}
}

func TestCollectionsGolden(t *testing.T) {
	t.Parallel()
	cs, err := collections(discoverable(), Options{SourceSchema: json.RawMessage(`{"ts_ms":{"type":"integer"},"loc":{"type":"array","items":{"type":"integer"},"minItems":3}}`)})
	require.NoError(t, err)
	raw, err := json.Marshal(cs)
	require.NoError(t, err)
	golden.CompareJSON(t, "collections.json", raw)
	_, err = collections(discoverable(), Options{SourceSchema: json.RawMessage(`[]`)})
	require.ErrorContains(t, err, "parsing the schema of _meta.source")
}

func TestSourcedSchemaIsClosed(t *testing.T) {
	t.Parallel()
	require.JSONEq(t, `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}},"additionalProperties":false}`,
		string(sourcedSchema(discoverable()[1], false)))
}

func TestResource(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[Resource](t)
	require.NoError(t, Resource{Namespace: "s", Stream: "t", Mode: OnlyChanges}.Validate())
	err := Resource{Mode: "Precise"}.Validate()
	require.EqualError(t, err, `1. The name of a table (stream) is empty.
2. The schema (namespace) of table "" is empty.
3. The mode of table . is "Precise"; it can be empty or "Only Changes".`)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	o := Options{SkipBackfills: []string{"public.*", "*.audit_?"}}
	require.NoError(t, o.Validate())
	require.True(t, o.skips(TableID{"public", "a/b"}))
	require.True(t, o.skips(TableID{"x", "audit_1"}))
	require.False(t, o.skips(TableID{"x", "audit_10"}))
	require.False(t, o.skips(TableID{"publicly", "t"}))
	require.EqualError(t, Options{SkipBackfills: []string{"orders", "a.[", "a.b"}}.Validate(),
		`1. "orders" does not name tables whose backfill is skipped: write schema.table; * and ? stand for anything.
2. "a.[" does not name tables whose backfill is skipped: write schema.table; * and ? stand for anything.: syntax error in pattern`)
	require.EqualError(t, Options{OnTruncate: "delete"}.Validate(),
		`The policy for truncations (onTruncate) is "delete"; it can be ignore, backfill or stop.`)
	d := Options{}.withDefaults()
	require.Positive(t, d.BackfillWorkers)
	require.Positive(t, d.ChunkRows)
	require.Positive(t, d.ChunkBytes)
	require.Positive(t, d.Rediscovery)
}

type noConfig struct{}

func (noConfig) Validate() error { return nil }

func TestSource(t *testing.T) {
	t.Parallel()
	d := &scriptDriver{tables: discoverable()[:1]}
	src := New(capture.Spec{Title: "Script"}, func(context.Context, capture.Env, noConfig) (Driver, Options, error) {
		return d, Options{SkipBackfills: []string{"everything"}}, nil
	})
	require.Equal(t, []string{"/namespace", "/stream"}, src.Spec().ResourcePath)
	cs, err := src.Discover(t.Context(), capture.Env{}, noConfig{})
	require.NoError(t, err)
	require.Len(t, cs, 1)
	require.Equal(t, []string{"/region~1~0", "/id"}, cs[0].Key)

	checker, ok := src.(capture.Checker[noConfig, Resource])
	require.True(t, ok)
	err = checker.Check(t.Context(), capture.Env{}, noConfig{}, []Resource{{Namespace: "s", Stream: "t"}})
	require.EqualError(t, err, `1. "everything" does not name tables whose backfill is skipped: write schema.table; * and ? stand for anything.
2. s.t cannot be captured.`)

	_, err = src.Open(t.Context(), capture.Env{Range: capture.KeyRange{Begin: 1, End: 2}}, noConfig{}, nil)
	require.Equal(t, "This capture was split over several processes, but a log can only be read by one. Merge its shards into one.", usererr.Message(err))
	require.Len(t, d.closed, 2, "every driver is closed")
}

func TestStateRoundTrips(t *testing.T) {
	t.Parallel()
	s := TableState{
		Phase: Scanning, Incarnation: "16384", Key: []string{"id"}, Origin: "10:20:", Ranges: []Range{"p:1"}, Fixed: true,
		Columns: []ColumnState{{Name: "id", Type: "bigint", Incarnation: "1"}, {Name: "x", Type: "text", Nullable: true}},
		Unseen:  []TxnID{"7"}, Holes: [][]byte{{2, 0xff, 0}}, Rows: 5, Estimate: -1,
	}
	raw, err := json.Marshal(s)
	require.NoError(t, err)
	golden.CompareJSON(t, "state.json", raw) // what older versions wrote must be readable for ever
	var back TableState
	require.NoError(t, json.Unmarshal(raw, &back))
	require.Equal(t, s, back)
}

func TestPatch(t *testing.T) {
	t.Parallel()
	doc := []byte(`{"id":1,"a\"b":"x","big":{"op":"c"},"_meta":{"op":"c","source":{"snapshot":true}}}`)
	got, err := appendPatch(nil, doc, []string{"id"}, []string{"big", "gone"})
	require.NoError(t, err)
	require.JSONEq(t, `{"id":1,"big":{"op":"c"},"_meta":{"op":"u","source":{"snapshot":true}}}`, string(got))
	got, err = appendPatch([]byte("kept"), doc, []string{"id"}, []string{"gone"})
	require.NoError(t, err)
	require.Equal(t, "kept", string(got))
}
