package cdc

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// leftOver compares the schema of the table's collection with what its binding leaves out. Discovery knows of no bindings, so
// the schema that it proposes has all columns. It returns those that the schema still has; to have them required is an error,
// because no document would follow the schema.
func (t *table) leftOver(found *Table) (names []string, err error) {
	if t.selection.Whole() || len(t.binding.Collection.Schema) == 0 {
		return nil, nil
	}
	var s struct {
		Required   []string                   `json:"required"`
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(t.binding.Collection.Schema, &s); err != nil {
		return nil, fmt.Errorf("reading the schema of collection %s: %w", t.binding.Collection.Name, err)
	}
	for _, c := range found.Columns {
		if t.selection.Has(c) {
			continue
		}
		if slices.Contains(s.Required, c.Name) {
			return nil, usererr.New(nil, "The binding of table %s leaves out the column %q, but the schema of collection %s requires it, so no document could follow the schema. "+
				"Take the column out of \"required\" there, and out of \"properties\".", t.id, c.Name, t.binding.Collection.Name)
		}
		if _, ok := s.Properties[c.Name]; ok {
			names = append(names, c.Name)
		}
	}
	return names, nil
}

// sayLeftOver says in the log what a collection's schema has beyond what its binding captures.
func (r *reader) sayLeftOver(t *table, found *Table) error {
	if found == nil {
		return nil
	}
	names, err := t.leftOver(found)
	if len(names) > 0 {
		r.log.WithFields(logrus.Fields{"table": t.id.String(), "collection": t.binding.Collection.Name, "columns": join(names)}).
			Info("the collection's schema has columns that the binding leaves out, so destinations get them, without values; take them out of the schema")
	}
	return err
}
