package sinktest

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// partial updates rows by documents that leave members out, which is not the same as null: insertion, update and partial
// update of a key meet in one transaction or come in several, and the document is stored whole or rebuilt from columns.
func (s suite) partial(t *testing.T) {
	for batch, name := range map[int]string{1: "partial_each", 4: "partial_some", 100: "partial_all"} {
		whole := s.binding(basic("acme/t"), name+"_whole", false)
		whole.Document = true
		r := s.runtime(t, s.c.Config, name, s.binding(basic("acme/t"), name, false), whole)
		r.Batch = batch
		for _, doc := range []string{
			change(1, "x", `"note":"large","size":1,"_meta":{"op":"c"}`),
			change(1, "x", `"size":2,"_meta":{"op":"u"}`),
			change(2, "x", `"note":"other","size":null,"_meta":{"op":"c"}`),
			change(1, "x", `"size":null,"_meta":{"op":"u"}`),
			change(1, "x", `"_meta":{"op":"u"}`),
			change(2, "x", `"note":null,"size":5,"_meta":{"op":"u"}`),
			change(2, "x", `"size":6,"_meta":{"op":"u"}`),
			change(3, "x", `"size":1,"_meta":{"op":"u"}`), // the first that is known of it
			change(3, "x", `"note":"late","_meta":{"op":"u"}`),
			change(4, "x", `"note":"gone","_meta":{"op":"c"}`),
			change(4, "x", `"_meta":{"op":"d"}`),
		} {
			r.Log = append(r.Log, Change{0, doc}, Change{1, doc})
		}
		r.MustApply()
		require.NoError(t, r.Run())
		r.RequireTable(t, 0, s.table(name), false)
		r.RequireTable(t, 1, s.table(name+"_whole"), false)
	}
}
