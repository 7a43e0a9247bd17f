package main

import (
	"io"

	"github.com/sluicedata/sluice/materialize-s3-parquet/internal/parquet"
	"github.com/sluicedata/sluice/sdk/materialize"
)

// format makes the writers of files, a plan for each table.
type format struct {
	tables []formatTable
}

type formatTable struct {
	schema  *parquet.Schema
	options parquet.Options
}

func newFormat(cfg config, bindings []*materialize.Binding[resource]) (format, error) {
	var f format
	for _, b := range bindings {
		schema, err := parquet.Plan(parquet.Selection{
			Keys: b.Keys, Values: b.Values, Document: b.Document, StoreDocument: cfg.Advanced.StoreDocument,
		})
		if err != nil {
			return format{}, err
		}
		f.tables = append(f.tables, formatTable{schema, parquet.Options{
			Table: b.Resource.Path, Compression: cfg.Compression, BloomFilters: cfg.Advanced.BloomFilters,
			RowGroupRows: cfg.Advanced.RowGroupRows, RowGroupBytes: cfg.Advanced.RowGroupBytes,
		}})
	}
	return f, nil
}

// writer begins a file of a table; it writes to w until it is closed, and does not close w.
func (f format) writer(table int, w io.Writer) (*parquet.Writer, error) {
	return parquet.NewWriter(w, f.tables[table].schema, f.tables[table].options)
}
