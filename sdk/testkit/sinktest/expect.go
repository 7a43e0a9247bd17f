package sinktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// columnsOf maps the fields that were selected to the columns that the connector said it would store them in.
func columnsOf(v *materializepb.Response_Validated_Binding) map[string]string {
	out := map[string]string{}
	for field, cs := range v.FieldConstraints() {
		out[field] = field
		if c := strictest(cs); c.GetFoldedField() != "" {
			out[field] = c.GetFoldedField()
		}
	}
	return out
}

// expected is what a binding's table must hold after the whole log: the values of every selected field, a row a line, in
// the order of their text.
func (r *Runtime) expected(binding int, hard bool) []string {
	b := r.Applied.GetBindings()[binding]
	fields := slices.Concat(b.GetFieldSelection().GetKeys(), b.GetFieldSelection().GetValues())
	docs := map[string]map[string]json.RawMessage{}
	var deltas []map[string]json.RawMessage
	for _, ch := range r.Log {
		if ch.Binding != binding {
			continue
		}
		_, packed, err := extract(b, b.GetFieldSelection().GetKeys(), []byte(ch.Doc))
		require.NoError(r.t, err)
		var doc map[string]json.RawMessage
		require.NoError(r.t, json.Unmarshal([]byte(ch.Doc), &doc))
		deltas = append(deltas, doc)
		docs[string(packed)] = merge(maps.Clone(docs[string(packed)]), doc)
		if hard && deleted(docs[string(packed)]) {
			delete(docs, string(packed))
		}
	}
	if !b.GetDeltaUpdates() {
		deltas = slices.Collect(maps.Values(docs))
	}
	var out []string
	for _, doc := range deltas {
		raw, err := json.Marshal(doc)
		require.NoError(r.t, err)
		row := map[string]json.RawMessage{}
		for _, f := range fields {
			value, err := locate(raw, projection(b, f).GetPtr())
			require.NoError(r.t, err)
			row[f] = value
		}
		out = append(out, describe(r.t, fields, row))
	}
	slices.Sort(out)
	return out
}

// stored is what the table really holds, in the form of expected.
func (r *Runtime) stored(binding int, table string) []string {
	b := r.Applied.GetBindings()[binding]
	fields := slices.Concat(b.GetFieldSelection().GetKeys(), b.GetFieldSelection().GetValues())
	var out []string
	for _, raw := range r.c.Rows(r.t, table) {
		var columns map[string]json.RawMessage
		require.NoError(r.t, json.Unmarshal(raw, &columns))
		row := map[string]json.RawMessage{}
		for _, f := range fields {
			value, ok := columns[r.columns[binding][f]]
			require.True(r.t, ok, "table %s has no column %q for field %q: %s", table, r.columns[binding][f], f, raw)
			row[f] = value
		}
		out = append(out, describe(r.t, fields, row))
	}
	slices.Sort(out)
	return out
}

// RequireTable fails unless a table holds exactly what the log says. The connector may take a moment to make its last
// transaction visible.
func (r *Runtime) RequireTable(t testing.TB, binding int, table string, hard bool) {
	t.Helper()
	want := r.expected(binding, hard)
	var got []string
	for deadline := time.Now().Add(patience); ; {
		got = r.stored(binding, table)
		if slices.Equal(want, got) || time.Now().After(deadline) || len(got) > len(want) {
			break
		}
		time.Sleep(20 * time.Millisecond) //nolint:forbidigo // polls with a deadline
	}
	require.Equal(t, want, got)
}

// describe writes a row in a form that does not depend on how JSON is written.
func describe(t testing.TB, fields []string, row map[string]json.RawMessage) string {
	t.Helper()
	var out strings.Builder
	for _, f := range fields {
		var v any
		if len(row[f]) > 0 {
			d := json.NewDecoder(bytes.NewReader(row[f]))
			d.UseNumber()
			require.NoError(t, d.Decode(&v))
		}
		fmt.Fprintf(&out, "%s=%s ", f, canonical(v))
	}
	return out.String()
}

func canonical(v any) string {
	switch v := v.(type) {
	case json.Number:
		if r, ok := new(big.Rat).SetString(v.String()); ok {
			return r.RatString()
		}
		return v.String()
	case map[string]any:
		var s strings.Builder
		s.WriteString("{")
		for _, k := range slices.Sorted(maps.Keys(v)) {
			fmt.Fprintf(&s, "%q:%s,", k, canonical(v[k]))
		}
		return s.String() + "}"
	case []any:
		var s strings.Builder
		s.WriteString("[")
		for _, item := range v {
			s.WriteString(canonical(item) + ",")
		}
		return s.String() + "]"
	default:
		return fmt.Sprintf("%#v", v)
	}
}
