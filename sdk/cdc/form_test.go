package cdc

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A configuration that writes columns in another form has their table read again, once, and no other; where that mends
// nothing it says so, and where it would double rows it is refused.
func TestFormOfColumns(t *testing.T) {
	t.Parallel()
	formed := func(column, form string) *Table {
		now := tableST()
		for i := range now.Columns {
			if now.Columns[i].Name == column {
				now.Columns[i].Form = form
			}
		}
		return now
	}
	stored := func(b *capture.Binding[Resource, TableState], forms ...string) {
		b.State.setShape(tableST())
		for i, form := range forms {
			b.State.Columns[i].Form = form
		}
	}
	for name, c := range map[string]struct {
		column, form string
		change       func(b *capture.Binding[Resource, TableState])
		phase        Phase
		said         string
		fails        string
	}{
		"as it was":   {"x", "text", func(b *capture.Binding[Resource, TableState]) { stored(b, "", "text") }, Live, "", ""},
		"another":     {"x", "text", func(b *capture.Binding[Resource, TableState]) { stored(b) }, Pending, "columns are written in another form than before", ""},
		"the default": {"x", "", func(b *capture.Binding[Resource, TableState]) { stored(b, "", "text") }, Pending, "columns are written in another form than before", ""},
		"not captured": {"x", "text", func(b *capture.Binding[Resource, TableState]) {
			stored(b)
			b.Resource.ExcludeColumns = []string{"x"}
		}, Live, "", ""},
		"never noted": {"x", "text", func(b *capture.Binding[Resource, TableState]) {
			stored(b)
			b.State.Formed = false
		}, Live, "", ""},
		"key, never noted": {"k", "text", func(b *capture.Binding[Resource, TableState]) {
			stored(b)
			b.State.Formed = false
		}, Live, "", ""},
		"retyped": {"x", "text", func(b *capture.Binding[Resource, TableState]) {
			stored(b)
			b.State.Columns[1].Type = "date" // the log will say so
		}, Pending, "backfilling the table again because it changed as a whole", ""},
		"key": {
			"k", "text", func(b *capture.Binding[Resource, TableState]) { stored(b) }, "", "",
			`The column "k" of the key of table s.t would be written in another form than it is in the documents of collection acme/t, because the configuration was changed: ` +
				"every row would be there twice. Undo the change, or backfill the table into an empty collection.",
		},
		"without a key": {"k", "text", func(b *capture.Binding[Resource, TableState]) {
			stored(b)
			b.Collection.Key = fallbackKey()
		}, Live, "rows that were captured before keep their form", ""},
		"only changes": {"x", "text", func(b *capture.Binding[Resource, TableState]) {
			stored(b)
			b.Resource.Mode = OnlyChanges
		}, Live, "rows that were there before stay as they are", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bind(Live)
			c.change(b)
			s := script(t, &scriptDriver{tables: []*Table{formed(c.column, c.form)}}, b)
			s.pool.idle = true
			r, err := s.open()
			if c.fails != "" {
				require.Equal(t, c.fails, usererr.Message(err))
				return
			}
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}))
			require.Equal(t, c.phase, b.State.Phase)
			said := ""
			for _, line := range s.logs.AllEntries() {
				said += line.Message + "\n"
			}
			require.Contains(t, said, c.said)
			require.Equal(t, c.said == "", said == "", said)
			if c.phase == Pending && name != "retyped" {
				b.State.Phase = Live
				s.logs.Reset()
				r, err = s.open()
				require.NoError(t, err)
				require.NoError(t, r.read(t.Context(), &scriptTx{}))
				require.Equal(t, Live, b.State.Phase, "once is enough")
			}
		})
	}
}
