package pgoutput

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The messages below were captured from Postgres 15.18: of a table public.t (id bigint primary key, a text, big text with an
// out-of-line value) an insert, an update that leaves the big value alone, a change of key and a delete; of a table with
// REPLICA IDENTITY FULL a delete; and a truncate of both.
func message(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	require.NoError(t, err)
	return b
}

const (
	begin    = "42 000000003d6c7560 000303c500c4a7a4 000002ed"
	commit   = "43 00 000000003d6c7560 000000003d6c7590 000303c500c4a7a4"
	relation = "52 00004023 7075626c696300 7400 64 0003 01 696400 00000014 ffffffff 00 6100 00000019 ffffffff 00 62696700 00000019 ffffffff"
	insert   = "49 00004023 4e 0003 74 00000001 31 74 00000001 78 6e"
	update   = "55 00004023 4e 0003 74 00000001 32 74 00000001 79 75"
	keyed    = "55 00004023 4b 0003 74 00000001 32 6e 6e 4e 0003 74 00000001 33 74 00000001 79 75"
	deletion = "44 00004023 4b 0003 74 00000001 33 6e 6e"
	whole    = "44 0000402a 4f 0003 74 00000001 32 74 00000001 79 74 00000000"
	truncate = "54 00000002 02 00004023 0000402a"
)

func TestParse(t *testing.T) {
	t.Parallel()
	b, err := ParseBegin(message(t, begin))
	require.NoError(t, err)
	require.Equal(t, Begin{FinalLSN: 0x3d6c7560, CommitTime: 0x303c500c4a7a4, Xid: 749}, b)

	c, err := ParseCommit(message(t, commit))
	require.NoError(t, err)
	require.Equal(t, Commit{LSN: 0x3d6c7560, EndLSN: 0x3d6c7590, CommitTime: 0x303c500c4a7a4}, c)

	r, err := ParseRelation(message(t, relation))
	require.NoError(t, err)
	require.Equal(t, &Relation{ID: 0x4023, Schema: "public", Name: "t", Identity: 'd', Columns: []Column{
		{Name: "id", Key: true, Type: 20, Modifier: -1}, {Name: "a", Type: 25, Modifier: -1}, {Name: "big", Type: 25, Modifier: -1},
	}}, r)

	tr, err := ParseTruncate(message(t, truncate))
	require.NoError(t, err)
	require.Equal(t, Truncate{RestartIdentity: true, Relations: []uint32{0x4023, 0x402a}}, tr)
}

func TestParseRow(t *testing.T) {
	t.Parallel()
	show := func(vals [][]byte) string {
		var parts []string
		for _, v := range vals {
			switch {
			case v == nil:
				parts = append(parts, "null")
			case Unchanged(v):
				parts = append(parts, "unchanged")
			default:
				parts = append(parts, "'"+string(v)+"'")
			}
		}
		return strings.Join(parts, " ")
	}
	for name, c := range map[string]struct{ msg, before, old, new string }{
		"insert":                 {insert, "\x00", "", "'1' 'x' null"},
		"update":                 {update, "\x00", "", "'2' 'y' unchanged"},
		"change of key":          {keyed, "K", "'2' null null", "'3' 'y' unchanged"},
		"delete":                 {deletion, "K", "'3' null null", ""},
		"delete, identity full":  {whole, "O", "'2' 'y' ''", ""},
		"a text that is just u":  {"49 00004002 4e 0001 74 00000001 75", "\x00", "", "'u'"},
		"a row without a column": {"49 00004002 4e 0000", "\x00", "", ""},
	} {
		var r Row
		require.NoError(t, r.Parse(message(t, c.msg)), name)
		id, ok := RelationOf(message(t, c.msg))
		require.True(t, ok)
		require.Equal(t, id, r.Relation, name)
		require.Equal(t, c.before, string(rune(r.Before)), name)
		require.Equal(t, c.old, show(r.Old), name)
		require.Equal(t, c.new, show(r.New), name)
	}
}

// Every proper prefix of every message is an error, never a panic or a value.
func TestTruncatedMessages(t *testing.T) {
	t.Parallel()
	for _, text := range []string{begin, commit, relation, insert, update, keyed, deletion, whole, truncate} {
		m := message(t, text)
		for n := 1; n < len(m); n++ {
			require.Error(t, parseAny(m[:n]), "%x", m[:n])
		}
		require.NoError(t, parseAny(m))
	}
}

func TestRowErrors(t *testing.T) {
	t.Parallel()
	for msg, want := range map[string]string{
		"49 00004002 4b 0000":               `unexpected tuple 'K' in a message 'I'`,
		"44 00004002 4e 0000":               `unexpected tuple 'N' in a message 'D'`,
		"49 00004002 4e 0001 79":            `unknown kind of value 'y'`,
		"49 00004002 4e 0001 78 0000":       `too short`,
		"49 00004002 4e 0000 00":            `1 bytes too many`,
		"49 00004002 4e 0001 74 ffffffff":   `too short`,
		"54":                                `too short`,
		"52":                                `too short`,
		"49 00004002 4e 0001 74 7fffffff 0": `too short`,
	} {
		if strings.HasSuffix(msg, " 0") {
			msg += "0"
		}
		require.ErrorContains(t, parseAny(message(t, msg)), want)
	}
}

func TestRowParseDoesNotAllocate(t *testing.T) {
	m := message(t, keyed)
	var r Row
	require.NoError(t, r.Parse(m))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = r.Parse(m) }))
}

func parseAny(m []byte) error {
	if len(m) == 0 {
		return nil
	}
	var err error
	switch Kind(m[0]) {
	case KindBegin:
		_, err = ParseBegin(m)
	case KindCommit:
		_, err = ParseCommit(m)
	case KindRelation:
		_, err = ParseRelation(m)
	case KindTruncate:
		_, err = ParseTruncate(m)
	default:
		err = new(Row).Parse(m)
	}
	return err
}

// Whatever the bytes are: no panic, no value outside the message, and no more values than the message has bytes.
func FuzzParse(f *testing.F) {
	for _, text := range []string{begin, commit, relation, insert, update, keyed, deletion, whole, truncate} {
		f.Add(message(f, text))
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		_ = parseAny(m)
		if _, ok := RelationOf(m); !ok {
			return
		}
		var r Row
		if r.Parse(m) != nil {
			return
		}
		size := 0
		for _, v := range append(r.Old, r.New...) {
			if !Unchanged(v) {
				size += len(v)
			}
		}
		require.LessOrEqual(t, size, len(m))
		require.LessOrEqual(t, len(r.Old)+len(r.New), len(m))
	})
}

func BenchmarkParseRow(b *testing.B) {
	m := message(b, insert)
	var r Row
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Parse(m); err != nil {
			b.Fatal(err)
		}
	}
}
