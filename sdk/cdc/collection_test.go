package cdc

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// What discovery put into a collection's schema and a binding leaves out is named; it cannot be required.
func TestCollectionHasColumnsThatAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		schema, columns, fails string
		exclude                []string
	}{
		"left out": {schema: `{"properties":{"k":{},"x":{},"gone":{}}}`, exclude: []string{"x"}, columns: "x"},
		"captured": {schema: `{"properties":{"k":{},"x":{}},"required":["k","x"]}`},
		"none":     {exclude: []string{"x"}},
		"required": {
			schema: `{"properties":{"k":{},"x":{}},"required":["k","x"]}`, exclude: []string{"x"},
			fails: `The binding of table s.t leaves out the column "x", but the schema of collection acme/t requires it, so no document could follow the schema. ` +
				`Take the column out of "required" there, and out of "properties".`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := bind("")
			b.Resource.ExcludeColumns, b.Collection.Schema = c.exclude, json.RawMessage(c.schema)
			s := script(t, &scriptDriver{tables: []*Table{tableST()}}, b)
			_, err := s.open()
			if c.fails != "" {
				require.Equal(t, c.fails, usererr.Message(err))
				return
			}
			require.NoError(t, err)
			said := ""
			for _, line := range s.logs.AllEntries() {
				if columns, ok := line.Data["columns"].(string); ok {
					said += columns
				}
			}
			require.Equal(t, c.columns, said)
		})
	}
}
