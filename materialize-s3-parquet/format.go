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
			// How far values can be compressed is known when a row group was written. One that is larger than a file may be would
			// make files that are, too.
			RowGroupRows: cfg.Advanced.RowGroupRows, RowGroupBytes: min(cfg.Advanced.RowGroupBytes, cfg.FileSizeLimit),
		}})
	}
	return f, nil
}

// writer begins a file of a table; it writes to w until it is closed, and does not close w. Before it turns values into pages it
// asks for room.
func (f format) writer(table int, w io.Writer, room func() (release func())) (*parquet.Writer, error) {
	options := f.tables[table].options
	options.Room = room
	return parquet.NewWriter(w, f.tables[table].schema, options)
}

// columns is how many columns a table's files have.
func (f format) columns(table int) int { return len(f.tables[table].schema.Columns()) }
