// Package parquet writes the rows of one binding into Parquet files.
//
// A Schema is planned once from the selected fields. A Writer gathers values in one buffer for each column, and turns a row
// group at a time into pages, column by column: so memory is bounded by the row group's bytes, whatever a row's width, and
// nothing is allocated for a row.
//
//	Append(row) ─▶ column buffers (values, levels) ─▶ row group full: column by column ─▶ pages, compressed ─▶ w
//
// A value that its column cannot hold is an error that names the field and the row's key; nothing is cut, clamped or rounded.
package parquet
