package cdc

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A name in a selection that the table never had may be a misspelt one that must not leave.
func TestErrorsOfSelections(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(b *capture.Binding[Resource, TableState]){
		`Table s.t has no column "y", which excludeColumns names. Its columns are: k, x.`: func(b *capture.Binding[Resource, TableState]) {
			b.Resource.ExcludeColumns = []string{"y"}
		},
		`The column "k" is part of the key of table s.t, by which its documents are told apart, so it cannot be left out. Take it out of excludeColumns, or add it to columns.`: func(b *capture.Binding[Resource, TableState]) {
			b.Resource.Columns = []string{"x"}
		},
		"": func(b *capture.Binding[Resource, TableState]) {
			b.Resource.ExcludeColumns = []string{"y"}
			b.State.Withheld = []ColumnState{{Name: "y"}} // it was dropped since
		},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			b := bind(Live)
			change(b)
			_, err := script(t, &scriptDriver{tables: []*Table{tableST()}}, b).open()
			if want == "" {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			require.Equal(t, want, usererr.Message(err))
		})
	}
}

// A table that was taken out of what the log carries is put back, and read again; where that mends nothing, the capture ends.
func TestScopeOfTheLog(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(b *capture.Binding[Resource, TableState])
		phase  Phase
		fails  string
	}{
		"with a key":     {func(*capture.Binding[Resource, TableState]) {}, Pending, ""},
		"without":        {func(b *capture.Binding[Resource, TableState]) { b.Collection.Key = fallbackKey() }, "", "The log did not carry table s.t for a while"},
		"only changes":   {func(b *capture.Binding[Resource, TableState]) { b.Resource.Mode = OnlyChanges }, "", "The log did not carry table s.t for a while"},
		"unknown before": {func(b *capture.Binding[Resource, TableState]) { b.State.Scope = "" }, Live, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := tableST()
			d := &scriptDriver{tables: []*Table{out}}
			b := bind(Live)
			b.State.Scope = "1"
			c.change(b)
			s := script(t, d, b)
			r, err := s.open()
			require.NoError(t, err)
			require.NoError(t, r.read(t.Context(), &scriptTx{}), "the stream that is opened puts it back")
			back := *out
			back.Scope = "2"
			d.tables = []*Table{&back}
			s.pool.idle, r.out = true, &scriptTx{}
			err = r.adopt(r.tables[0], &back)
			if c.fails != "" {
				require.ErrorContains(t, err, c.fails)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.phase, b.State.Phase)
			require.Equal(t, "2", b.State.Scope)
			back.Behind = true
			require.NoError(t, r.adopt(r.tables[0], &back))
			require.True(t, r.reopen)
		})
	}
}

func TestSelectionOfResources(t *testing.T) {
	t.Parallel()
	require.EqualError(t, Resource{Namespace: "s", Stream: "t", Columns: []string{"a", ""}, ExcludeColumns: []string{"a"}}.Validate(),
		`1. A name in columns or excludeColumns of table s.t is empty.
2. The column "a" of table s.t is in columns and in excludeColumns.`)
	d := &scriptDriver{tables: []*Table{tableST()}}
	errs := checkSelections(t.Context(), d, []Resource{{Namespace: "s", Stream: "t", BackfillFilter: "x"}, {Namespace: "s", Stream: "gone"}}, d.tables)
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], errNoFilters)
}
