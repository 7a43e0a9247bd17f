package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// The oldest and the newest Postgres on this machine (all other tests use the default one): tables made, altered, updated and loaded, rows deleted.
func TestVersions(t *testing.T) {
	t.Parallel()
	all := server.Versions()
	for _, major := range slices.Compact([]int{all[0], all[len(all)-1]}) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			pg := server.Postgres(t, server.WithVersion(major))
			db := database{pg, pg.NewDatabase(t)}
			c := db.sinkCase()
			r := newTask(t, db, c.HardDelete)
			r.Task.Bindings = append(r.Task.Bindings, sinktest.Binding{Collection: orders(), Resource: c.Resource("history", true)})
			r.Codec = frame.Proto
			r.MustApply()
			for i := range 20 {
				r.Log = append(r.Log, sinktest.Change{Binding: 1, Doc: fmt.Sprintf(`{"id":%d,"note":"n"}`, i)})
			}
			require.NoError(t, r.Run())
			for i := range r.Task.Bindings {
				cols := r.Task.Bindings[i].Collection.Columns
				r.Task.Bindings[i].Collection.Columns = append(cols, sinktest.Column{Name: "extra", Types: []string{"object"}, May: true})
			}
			r.Task.Bindings[0].Collection.Columns[1].Types = []string{"string", "integer"}
			require.NotEmpty(t, r.MustApply())
			r.Log = append(r.Log, sinktest.Change{Doc: `{"id":1,"note":7,"extra":{"a":1}}`}, sinktest.Change{Doc: `{"id":2,"_meta":{"op":"d"}}`},
				sinktest.Change{Doc: `{"id":3,"extra":{"b":2}}`}, sinktest.Change{Binding: 1, Doc: `{"id":3,"extra":{"b":2}}`})
			require.NoError(t, r.Run())
			r.RequireTable(t, 0, "orders", true)
			r.RequireTable(t, 1, "history", false)
		})
	}
}

// Servers before 17 take an infinite interval for a finite one that they can never show again.
func TestInfiniteIntervals(t *testing.T) {
	t.Parallel()
	for _, major := range server.Versions() {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			pg := server.Postgres(t, server.WithVersion(major))
			db := database{pg, pg.NewDatabase(t)}
			r := newTask(t, db, db.config(nil))
			r.Task.Bindings[0].Collection.Columns = append(r.Task.Bindings[0].Collection.Columns, fieldOf("f", "string:duration"))
			r.Log = nil
			r.MustApply()
			err := addTo(r, `{"id":1,"f":"-infinity"}`)
			if major >= 17 {
				require.NoError(t, err)
				require.Equal(t, "-infinity", db.exec(t, "SELECT f FROM orders"))
				return
			}
			require.ErrorContains(t, err, `The value "-infinity" of field "f" cannot be stored in column "f" of public.orders, which is of type interval: an infinite interval needs Postgres 17`)
		})
	}
}
