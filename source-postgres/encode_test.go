package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/pgtypes"
)

func TestConfigForm(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[config](t)
}

// Encoding a row of a scan or of the stream allocates nothing.
func TestRowsDoNotAllocate(t *testing.T) {
	names := []string{"id", "n", "txt", "ts", "amount", "doc", "u"}
	types := []*dataType{scalars[20], scalars[23], scalars[25], scalars[1184], scalars[1700], scalars[3802], scalars[2950]}
	scanned := newRowPlan(cdc.TableID{Schema: "public", Name: "t"}, []string{"id"}, names, types, true)
	vals := [][]byte{
		{0, 0, 0, 0, 0, 0, 0, 7},
		{0, 0, 0, 9},
		[]byte("some text"),
		{0, 2, 0x9a, 0x1d, 0x2c, 0x2f, 0x4d, 0x10},
		[]byte("12.34"),
		[]byte(`{"a": 1}`), make([]byte, 16),
	}
	dst := make([]byte, 0, 4096)
	row := scanRow{plan: &scanPlan{rows: scanned}, vals: vals}
	run := func() {
		out, err := row.AppendFields(dst)
		if err == nil {
			out, err = row.AppendSource(out)
		}
		if err == nil {
			_, err = row.AppendKey(out)
		}
		if err != nil {
			t.Error(err)
		}
	}
	require.Zero(t, testing.AllocsPerRun(100, run))
	text, err := row.AppendFields([]byte{'{'})
	require.NoError(t, err)
	require.True(t, json.Valid(append(text, '}')))
}

// Nor do arrays, whatever has to be unescaped in them.
func TestArraysDoNotAllocate(t *testing.T) {
	catalog := newTypeCatalog(lossless{})
	dst := make([]byte, 0, 4096)
	for oid, v := range map[uint32]string{
		1016: `{1,NULL,3}`, 1009: `{plain,"with \"quotes\" and \\ in it"}`, 3807: `{"{\"a\": 1}",2}`, 1185: `{"2024-02-29 12:34:56+00",infinity}`,
		1007: `[0:1][1:1]={{1},{2}}`,
	} {
		enc, text := catalog.get(oid).textEncoder(false), []byte(v)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			out, err := enc(dst, text)
			if err != nil || !json.Valid(out) {
				t.Errorf("%s became %s: %v", text, out, err)
			}
		}), v)
	}
}

// No text that a server could send makes an encoder panic or write what is not JSON; those that trust the server's own
// notation (numbers, and types that are JSON or never need quotes) are given what they trust.
func FuzzEncoders(f *testing.F) {
	for _, c := range slices.Concat(pgtypes.BuiltIn(), pgtypes.ArrayShapes()) {
		for _, v := range c.Values {
			f.Add([]byte(strings.Trim(v.SQL, "'")))
			f.Add([]byte(v.JSON))
		}
	}
	arrays := []*dataType{{kind: kindArray, elem: scalars[25], delim: ','}, {kind: kindArray, elem: scalars[17], delim: ';'}}
	f.Fuzz(func(t *testing.T, v []byte) {
		for _, dt := range append(arrays, scalars[16], scalars[17], scalars[25]) {
			out, err := dt.textEncoder(false)(nil, v)
			if err == nil {
				require.True(t, json.Valid(out), "%q became %q", v, out)
			}
		}
		for _, oid := range []uint32{1082, 1083, 1114, 1184, 1266} {
			_, _ = scalars[oid].textEncoder(false)(nil, v)
		}
		for _, oid := range []uint32{20, 21, 23, 17, 1082, 1114, 1184, 2950} {
			if _, enc := scalars[oid].scanEncoder(false); enc != nil {
				out, err := enc(nil, v)
				require.True(t, err != nil || json.Valid(out), "%x became %q", v, out)
			}
		}
		if json.Valid(v) {
			out, err := appendJSON(nil, v)
			require.NoError(t, err)
			require.True(t, json.Valid(out), "%q became %q", v, out)
			require.NotContains(t, string(out), "\n")
			again, err := appendJSON(nil, out)
			require.NoError(t, err)
			require.Equal(t, string(out), string(again))
		}
	})
}

func TestDerivedNames(t *testing.T) {
	t.Parallel()
	for task, want := range map[string]string{
		"acme/shop":                "sluice_acme_shop_",
		"Acme/Shop":                "sluice_acme_shop_",
		"":                         "sluice_",
		strings.Repeat("long", 30): "sluice_",
	} {
		name := derivedName(task)
		require.True(t, strings.HasPrefix(name, want), name)
		require.Regexp(t, slotNames, name)
	}
	require.NotEqual(t, derivedName("acme/shop"), derivedName("Acme/Shop"))
	require.Equal(t, derivedName("acme/shop"), derivedName("acme/shop"))
}
