// Package lake writes the SQL by which query engines read what materialize-s3-parquet appends: every change of a collection as
// a row of a Parquet file.
//
// The order of a key's changes is that of their place in the source (_meta/source/loc), which neither clocks nor repetitions
// can confuse; where there is none, or where it is the same, that of the files and of the rows in them, which is the order of
// the collection.
//
// A row may lack values: a change that leaves a large value as it was does not have it. The column _meta/absent names them, and
// the key's last value that is not absent holds. A creation or a deletion begins anew: nothing is carried over from before it.
package lake

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Columns that the SQL gives a meaning.
const (
	absentColumn = "_meta/absent"
	opPointer    = "/_meta/op"
	locPointer   = "/_meta/source/loc"
)

// Table is one binding's files.
type Table struct {
	Name string // of the views and tables that are made
	// Files is the pattern of the files' names, as DuckDB's glob has it.
	Files string
	Keys  []Column
	// Values are all other columns, metadata included.
	Values []Column
	// Op and Loc name the columns of the operation and of the place in the source; empty if there is none.
	Op, Loc string
	// Keyless says that rows are identified by their place in the source: such a table has a history and nothing else.
	Keyless bool
}

// Column is one column.
type Column struct {
	Name string
	// Partial says that documents may lack it, so that its last value holds.
	Partial bool
}

// Tables derives the tables of a materialization from its specification. Bindings that are not delta updates to paths are not
// of materialize-s3-parquet: that is an error for people.
func Tables(spec *flowpb.MaterializationSpec) ([]Table, error) {
	var endpoint struct {
		Bucket string `json:"bucket"`
		Prefix string `json:"prefix"`
	}
	if err := json.Unmarshal(spec.ConfigJson, &endpoint); err != nil || endpoint.Bucket == "" {
		return nil, usererr.New(err, "The materialization %s has no bucket in its configuration, so it does not write Parquet files.", spec.Name)
	}
	out := make([]Table, 0, len(spec.Bindings))
	for _, b := range spec.Bindings {
		if !b.DeltaUpdates || len(b.ResourcePath) != 1 {
			return nil, usererr.New(nil, "The materialization %s does not append files to paths, so it is not of materialize-s3-parquet.", spec.Name)
		}
		out = append(out, tableOf(b, endpoint.Bucket, endpoint.Prefix))
	}
	return out, nil
}

func tableOf(b *flowpb.MaterializationSpec_Binding, bucket, prefix string) Table {
	path := b.ResourcePath[0]
	t := Table{Name: strings.NewReplacer("/", "_", ".", "_", "-", "_").Replace(path), Files: pattern(bucket, prefix, path, b.Backfill)}
	for _, field := range b.FieldSelection.Keys {
		t.Keys = append(t.Keys, Column{Name: field})
		t.Keyless = t.Keyless || strings.HasPrefix(projection(b.Collection, field).GetPtr(), locPointer)
	}
	for _, field := range b.FieldSelection.Values {
		p := projection(b.Collection, field)
		switch p.GetPtr() {
		case opPointer:
			t.Op = field
		case locPointer:
			t.Loc = field
		}
		partial := p.GetInference().GetExists() != flowpb.Inference_MUST && !strings.HasPrefix(p.GetPtr(), "/_meta/") && b.FieldSelection.Document != ""
		t.Values = append(t.Values, Column{Name: field, Partial: partial})
	}
	return t
}

func projection(c *flowpb.CollectionSpec, field string) *flowpb.Projection {
	i := slices.IndexFunc(c.GetProjections(), func(p *flowpb.Projection) bool { return p.Field == field })
	if i < 0 {
		return nil
	}
	return c.Projections[i]
}

// pattern matches a table's files, whatever time their prefix was made of.
func pattern(bucket, prefix, path string, backfill uint32) string {
	base, local := strings.CutPrefix(bucket, "file://")
	if !local {
		base = "s3://" + bucket
	}
	parts := []string{strings.TrimRight(base, "/")}
	for segment := range strings.SplitSeq(strings.Trim(prefix, "/"), "/") {
		if segment != "" {
			parts = append(parts, expanded(segment))
		}
	}
	return strings.Join(append(parts, path, fmt.Sprintf("v%04d", backfill), "**", "*.parquet"), "/")
}

// expanded replaces a prefix's parts of the time by what matches any of them.
func expanded(segment string) string {
	var out strings.Builder
	for i := 0; i < len(segment); i++ {
		switch {
		case segment[i] != '%' || i+1 == len(segment):
			out.WriteByte(segment[i])
		case segment[i+1] == '%':
			out.WriteByte('%')
			i++
		default:
			out.WriteByte('*')
			i++
		}
	}
	return out.String()
}
