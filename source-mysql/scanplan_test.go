package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// A chunk asks for as many rows as fill it, and expects rather fewer bytes than it will get: a reader that waits for bytes that never come is late.
func TestRowSizes(t *testing.T) {
	t.Parallel()
	chunk := cdc.Chunk{MaxRows: 20_000, MaxBytes: 1 << 20}
	var z rowSizes
	require.Equal(t, 1000, z.rows(chunk), "to learn from")
	require.Zero(t, z.surely(1000), "nothing is known")
	z.observe(0, 0, 0)
	require.Zero(t, z.surely(1000))
	z.observe(1000, 99_000, 128_000)
	require.Equal(t, 10485, z.rows(chunk))
	require.Equal(t, 124_000, z.surely(1000))
	z.observe(10, 0, 100)
	require.Equal(t, 20_000, z.rows(chunk), "no more than a chunk may have")
	require.Equal(t, 9687, z.surely(1000), "the least counts")
	z.observe(1, 5<<20, 5<<20)
	require.Equal(t, 1, z.rows(chunk), "at least one")
	require.Greater(t, z.surely(1), 1<<20, "it grows, but slowly")
	require.Less(t, z.surely(1), 2<<20)
}

// Only the spaces that the server puts between values are left out.
func TestCompactJSON(t *testing.T) {
	t.Parallel()
	for printed, want := range map[string]string{
		``:                         `null`,
		`{"a": 1, "b c": [1, ""]}`: `{"a":1,"b c":[1,""]}`,
		`"a \" b, \\"`:             `"a \" b, \\"`,
		`["\\", "x, \\\""]`:        `["\\","x, \\\""]`,
		`["never closed, `:         `["never closed, `,
		`["never closed \`:         `["never closed \`,
	} {
		require.Equal(t, want, string(compactJSON(nil, []byte(printed))))
	}
}
