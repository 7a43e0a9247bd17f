package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

func orders() sinktest.Collection {
	return sinktest.Collection{Name: "acme/orders", Columns: []sinktest.Column{
		{Name: "id", Types: []string{"integer"}, Key: true},
		{Name: "note", Types: []string{"string", "null"}, May: true},
		{Name: "_meta/op", Pointer: "/_meta/op", Types: []string{"string"}, May: true},
	}}
}

func TestSessionStoresRows(t *testing.T) {
	t.Parallel()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		db := newDatabase(t)
		c := db.sinkCase()
		r := sinktest.NewRuntime(t, c, codec, sinktest.Task{Name: "acme/sink", Config: c.Config, Bindings: []sinktest.Binding{
			{Collection: orders(), Resource: c.Resource("orders", false)},
		}})
		require.Equal(t, "Created table public.orders.", r.MustApply())
		r.Log = []sinktest.Change{
			{Doc: `{"id":1,"note":"one","_meta":{"op":"c"}}`},
			{Doc: `{"id":2,"note":"two","_meta":{"op":"c"}}`},
			{Doc: `{"id":1,"_meta":{"op":"u"}}`},
		}
		r.Batch = 2
		require.NoError(t, r.Run())
		require.Equal(t, "1|one|u\n2|two|c", db.exec(t, `SELECT id, note, "_meta/op" FROM orders ORDER BY id`))
	}
}
