package shard

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// The ranges of all shards are the whole, without a gap, and each of equally large parts is one shard's.
func TestRangesAreTheWhole(t *testing.T) {
	t.Parallel()
	for count := range 70 {
		next := uint64(0)
		for _, s := range Of(count) {
			r := s.Range()
			require.Equal(t, next, uint64(r.KeyBegin))
			next = uint64(r.KeyEnd) + 1
			require.Equal(t, s.Index == 0, s.Leads())
		}
		require.Equal(t, uint64(math.MaxUint32)+1, next)
		for parts := 1; parts < 20; parts++ {
			for part := range parts {
				owners := 0
				for _, s := range Of(count) {
					if s.Owns(part, parts) {
						owners++
						require.True(t, s.Whole() || uint64(s.Range().KeyBegin) <= uint64(part)<<32/uint64(parts), "%v has part %d of %d", s, part, parts)
					}
				}
				require.Equal(t, 1, owners, "part %d of %d with %d shards", part, parts, count)
			}
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	require.Empty(t, Shard{}.Suffix()+Shard{0, 1}.Suffix()+Shard{}.Label())
	require.True(t, Shard{}.Leads())
	require.Equal(t, ";40000000-7fffffff", Shard{1, 4}.Suffix())
	require.Equal(t, ";aaaaaaaa-ffffffff", Shard{2, 3}.Suffix())
	require.Equal(t, " 2/4", Shard{1, 4}.Label())
	require.True(t, Shard{}.Range().KeyEnd == math.MaxUint32 && Shard{}.Range().RClockEnd == math.MaxUint32)
}

func TestStale(t *testing.T) {
	t.Parallel()
	require.False(t, Division{}.Stale(1, "a"), "what is whole needs no division, whatever the pipeline was")
	require.False(t, Division{Shards: 1, Pipeline: "b"}.Stale(1, "a"))
	require.True(t, Division{}.Stale(2, "a"))
	require.True(t, Division{Shards: 2, Pipeline: "a"}.Stale(1, "a"))
	require.True(t, Division{Shards: 2, Pipeline: "b"}.Stale(2, "a"), "shards of another pipeline may still run")
	require.False(t, Division{Shards: 2, Pipeline: "a"}.Stale(2, "a"))
	d := Division{Shards: 2, Pipeline: "x", Versions: map[string]uint32{"acme/a": 3}}
	text, err := d.Encode()
	require.NoError(t, err)
	got, err := Parse(text)
	require.NoError(t, err)
	require.Equal(t, d, got)
	none, err := Parse(nil)
	require.NoError(t, err)
	require.Zero(t, none)
	_, err = Parse([]byte("{"))
	require.ErrorContains(t, err, "reading how a task is divided")
}

// Shards that each change a part of a document of their own have, together, changed one document; whatever they put there, and whatever they take away.
func TestUnion(t *testing.T) {
	t.Parallel()
	value := rapid.OneOf(rapid.Just(`null`), rapid.Just(`18446744073709551615`), rapid.Just(`"x"`), rapid.Just(`[1,{"a":null}]`), rapid.Just(`{"in":{"deep":1}}`), rapid.Just(`{"in":null,"b":2}`))
	rapid.Check(t, func(t *rapid.T) {
		shards := rapid.IntRange(1, 4).Draw(t, "shards")
		base, whole := []byte(`{}`), []byte(`{}`)
		patch := func(doc []byte, shard int) []byte {
			p := fmt.Appendf(nil, `{"s%d":%s,"all":{"s%d":{"x%d":%s}}}`, shard, value.Draw(t, "own"), shard, rapid.IntRange(0, 2).Draw(t, "member"), value.Draw(t, "inner"))
			doc, err := flowpb.ReduceState(doc, &flowpb.ConnectorState{UpdatedJson: p, MergePatch: true})
			require.NoError(t, err)
			return doc
		}
		for shard := range shards {
			base = patch(base, shard)
		}
		whole = append(whole[:0], base...)
		states := make([][]byte, shards)
		for shard := range shards {
			states[shard] = base
		}
		type step struct {
			shard int
			patch []byte
		}
		for range rapid.IntRange(0, 6).Draw(t, "steps") {
			shard := rapid.IntRange(0, shards-1).Draw(t, "shard")
			s := step{shard, fmt.Appendf(nil, `{"s%d":%s,"all":{"s%d":{"x%d":%s}}}`, shard, value.Draw(t, "own"), shard, rapid.IntRange(0, 2).Draw(t, "member"), value.Draw(t, "inner"))}
			for _, doc := range []*[]byte{&states[s.shard], &whole} {
				var err error
				*doc, err = flowpb.ReduceState(*doc, &flowpb.ConnectorState{UpdatedJson: s.patch, MergePatch: true})
				require.NoError(t, err)
			}
		}
		union, err := Union(base, states)
		require.NoError(t, err)
		require.JSONEq(t, string(whole), string(union))
	})
	_, err := Union(nil, [][]byte{[]byte("{")})
	require.ErrorContains(t, err, "reading a state")
}
