package cdc

import (
	"slices"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// reform takes over in which form columns are written from here on (Column.Form), and notes those of which documents have
// values in another one. A column that has changed otherwise since is left to the log. A state that knows of no forms takes those
// that are found: its documents were written by a version whose configuration was most likely the same.
func (t *table) reform(found *Table) error {
	known := t.state.Formed
	t.state.Formed = true
	for i := range t.state.Columns {
		c := &t.state.Columns[i]
		j := slices.IndexFunc(found.Columns, func(f Column) bool {
			if f.Type != c.Type {
				return false
			}
			if f.Incarnation != "" && c.Incarnation != "" {
				return f.Incarnation == c.Incarnation
			}
			return f.Name == c.Name
		})
		if j < 0 || found.Columns[j].Form == c.Form || !t.selection.Has(found.Columns[j]) {
			continue
		}
		if !known {
			c.Form = found.Columns[j].Form
			continue
		}
		if !t.keyless && slices.Contains(t.state.Key, c.Name) {
			return errForm(t.id, c.Name, t.binding.Collection.Name)
		}
		c.Form = found.Columns[j].Form
		t.reformed = append(t.reformed, c.Name)
	}
	return nil
}

// errForm is the answer to a configuration by which documents would get other keys than they have.
func errForm(id TableID, column, collection string) error {
	return usererr.New(nil, "The column %q of the key of table %s would be written in another form than it is in the documents of collection %s, "+
		"because the configuration was changed: every row would be there twice. Undo the change, or backfill the table into an empty collection.", column, id, collection)
}
