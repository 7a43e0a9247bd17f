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
	rowNumber    = "file_row_number" // DuckDB's name for the number of a row in its file
)

// Table is one binding's files.
type Table struct {
	Name string // of the view of the present state
	// Stem begins the names of what else is made; empty stands for Name.
	Stem string
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
		t := tableOf(b, endpoint.Bucket, endpoint.Prefix)
		if err := t.check(); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	tellApart(out)
	return out, nil
}

// check says why a table cannot be read: DuckDB does not tell names apart that differ in case only.
func (t Table) check() error {
	seen := map[string]string{rowNumber: rowNumber}
	for _, c := range slices.Concat(t.Keys, t.Values) {
		folded := strings.ToLower(c.Name)
		if other, taken := seen[folded]; taken && folded == rowNumber {
			return usererr.New(nil, "The table %s has a field %q, which is what DuckDB calls the number of a row in its file. Exclude the field from the binding, or give its location another name.", t.Name, c.Name)
		} else if taken {
			return usererr.New(nil, "The table %s has the fields %q and %q, which are one to DuckDB, since it does not look at case. Exclude one from the binding, or give its location another name.", t.Name, other, c.Name)
		}
		seen[folded] = c.Name
	}
	return nil
}

// Names are the names of all views and tables that are made. They are told apart without regard to case.
func (t Table) Names() []string {
	stem := t.stem()
	return []string{t.Name, stem + "_history", stem + "_merged", stem + "_merged_files", stem + "_merged_current"}
}

func (t Table) stem() string {
	if t.Stem == "" {
		return t.Name
	}
	return t.Stem
}

// tellApart makes all names differ: paths such as a/b and a_b, and a table orders_history beside orders, would have the same.
func tellApart(tables []Table) {
	taken := map[string]bool{}
	free := func(name string) bool { return !taken[strings.ToLower(name)] }
	take := func(name string) { taken[strings.ToLower(name)] = true }
	for i := range tables {
		t := &tables[i]
		name := t.Name
		for n := 2; !free(t.Name); n++ {
			t.Name = fmt.Sprintf("%s_%d", name, n)
		}
		take(t.Name)
	}
	for i := range tables {
		t := &tables[i]
		for slices.ContainsFunc(t.Names()[1:], func(name string) bool { return !free(name) }) {
			t.Stem = t.stem() + "_"
		}
		for _, name := range t.Names()[1:] {
			take(name)
		}
	}
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
	parts := []string{literally(strings.TrimRight(base, "/"))}
	for segment := range strings.SplitSeq(strings.Trim(prefix, "/"), "/") {
		if segment != "" {
			parts = append(parts, expanded(segment))
		}
	}
	return strings.Join(append(parts, literally(path), fmt.Sprintf("v%04d", backfill), "**", "*.parquet"), "/")
}

// expanded replaces a prefix's parts of the time by what matches any of them, and nothing else.
func expanded(segment string) string {
	const digit = "[0-9]"
	var out strings.Builder
	for i := 0; i < len(segment); i++ {
		switch {
		case segment[i] != '%' || i+1 == len(segment):
			out.WriteString(literally(segment[i : i+1]))
			continue
		case segment[i+1] == '%':
			out.WriteByte('%')
		case segment[i+1] == 'Y':
			out.WriteString(strings.Repeat(digit, len("2006")))
		default:
			out.WriteString(strings.Repeat(digit, len("01")))
		}
		i++
	}
	return out.String()
}

// literally is a pattern that matches a text only.
func literally(text string) string {
	return strings.NewReplacer("[", "[[]", "*", "[*]", "?", "[?]").Replace(text)
}
