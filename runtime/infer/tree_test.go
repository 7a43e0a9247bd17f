package infer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

func parse(t testing.TB, text string) *schema.Shape {
	t.Helper()
	if text == "" {
		return nil
	}
	s, err := schema.Parse([]byte(text))
	require.NoError(t, err)
	return s
}

const open = `{"type":"object","x-infer-schema":true,"properties":{"id":{"type":"integer"},"any":{},"asked":{"x-infer-schema":true,"description":"d"},"_meta":{"type":"object"}}}`

// What documents have is learned where the schema says that it is to be, and only there.
func TestLearning(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, written, sourced string
		depth                  int
		docs                   []string
		want                   string // what was learned
	}{
		{"nothing", open, "", 1, []string{`{}`, `{"id":"declared","any":{"a":1},"_meta":{"x":1}}`}, `{"type":["object"]}`},
		{
			"kinds", open, "", 1,
			[]string{`{"a":1,"b":"x","c":null,"d":true,"e":[1],"f":{"g":1},"h":1.5,"i":1e2}`},
			`{"type":["object"],"properties":{"a":{"type":["integer"]},"b":{"type":["string"]},"c":{"type":["null"]},"d":{"type":["boolean"]},"e":{"type":["array"]},"f":{"type":["object"]},"h":{"type":["number"]},"i":{"type":["number"]}}}`,
		},
		{"widening", open, "", 1, []string{`{"a":1}`, `{"a":null}`, `{"a":1.0}`, `{"a":7}`, `{"a":"x"}`}, `{"type":["object"],"properties":{"a":{"type":["null","number","string"]}}}`},
		{"a member without a type", open, "", 1, []string{`{"asked":-1}`}, `{"type":["object"],"properties":{"asked":{"type":["integer"]}}}`},
		{"deeper", open, "", 2, []string{`{"a":{"b":1,"c":{"d":1}}}`}, `{"type":["object"],"properties":{"a":{"type":["object"],"properties":{"b":{"type":["integer"]},"c":{"type":["object"]}}}}}`},
		{
			"without limit", open, "", -1,
			[]string{`{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}`},
			`{"type":["object"],"properties":{"a":{"type":["object"],"properties":{"b":{"type":["object"],"properties":{"c":{"type":["object"],"properties":{"d":{"type":["object"],"properties":{"e":{"type":["object"]}}}}}}}}}}}`,
		},
		{"names", open, "", 1, []string{`{"\u0061":1,"a":"x","\"":1,"":1}`}, `{"type":["object"],"properties":{"a":{"type":["integer","string"]},"\"":{"type":["integer"]}}}`},
		{
			"large integers", open, "", 1,
			[]string{`{"a":9223372036854775807,"b":9223372036854775808,"c":-9223372036854775809,"d":` + strings.Repeat("9", 39) + `}`},
			`{"type":["object"],"properties":{"a":{"type":["integer"]},"b":{"type":["integer"],"minimum":-9e+37,"maximum":9e+37},"c":{"type":["integer"],"minimum":-9e+37,"maximum":9e+37},"d":{"type":["number"]}}}`,
		},
		{
			"announced", open, `{"type":"object","additionalProperties":false,"properties":{"a":{"type":"integer"},"b":{"type":"string","format":"date"}}}`, 1,
			[]string{`{"a":1,"b":"2025-03-01"}`, `{"a":null}`},
			`{"type":["object"],"properties":{"a":{"type":["null"]}}}`,
		},
		{
			"closed", `{"type":"object","x-infer-schema":true,"additionalProperties":false,"properties":{"a":{"x-infer-schema":true}}}`, "", 1,
			[]string{`{"a":1,"b":1}`},
			`{"type":["object"],"properties":{"a":{"type":["integer"]}}}`,
		},
		{"no object", `{"x-infer-schema":true}`, "", 1, []string{`{"a":1}`}, `{"type":["object"],"properties":{"a":{"type":["integer"]}}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tree := New(parse(t, c.written), parse(t, c.sourced), nil, c.depth)
			for _, doc := range c.docs {
				require.True(t, tree.Valid([]byte(doc)), doc)
			}
			require.Equal(t, strings.Contains(c.want, "properties"), tree.News())
			learned := tree.Learned()
			require.JSONEq(t, c.want, string(learned.JSON()))
			require.False(t, tree.News())

			// It is read back as it was, and the same documents have no news.
			again := New(parse(t, c.written), parse(t, c.sourced), parse(t, string(learned.JSON())), c.depth)
			for _, doc := range c.docs {
				require.True(t, again.Valid([]byte(doc)))
			}
			require.False(t, again.News())
			require.JSONEq(t, c.want, string(again.Learned().JSON()))
		})
	}
	require.Nil(t, New(parse(t, `{"type":"object"}`), nil, nil, 1), "nothing is to be learned")
}

// Names that are data do not fill memory, and what is beyond the bounds is said.
func TestBounds(t *testing.T) {
	t.Parallel()
	tree := New(parse(t, open), nil, nil, 2)
	require.True(t, tree.Valid([]byte(`{"a":1}`)))
	require.False(t, tree.LeftOut())
	for i := range 5000 {
		require.True(t, tree.Valid(fmt.Appendf(nil, `{"map":{"k%d":1}}`, i)))
	}
	require.True(t, tree.LeftOut())
	require.Len(t, tree.Learned().Props["map"].Shape.Props, maxBelow)
	for i := range 5000 {
		require.True(t, tree.Valid(fmt.Appendf(nil, `{"n%d":1,"a":1,"%s":1}`, i, strings.Repeat("x", 300))))
	}
	require.Len(t, tree.Learned().Props, maxMembers-maxBelow)
	again := New(parse(t, open), nil, parse(t, string(tree.Learned().JSON())), 2)
	require.True(t, again.Valid([]byte(`{"other":1,"map":{"other":1}}`)))
	require.False(t, again.News())
}

func FuzzValid(f *testing.F) {
	for _, text := range []string{``, `{}`, `{"a":1}`, ` { "a" : [1] , "b":{"c":"\u00e9"}}`, `{"a"1}`, `{"a":1,}`, `{"a":01}`, `[{"a":1}]`, `{"id":{"id":[]}} x`, `{"a\"b":1}`, `{"a"b":1}`, `"x"`, `{"a":1 "b":2}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		tree := New(parse(t, open), nil, nil, 2)
		want := jsonscan.Valid(doc)
		for range 3 { // the second time, members are where they are expected
			require.Equal(t, want, tree.Valid(doc), "%q", doc)
		}
		tree.Learned()
		require.Equal(t, want, tree.Valid(doc))
		require.False(t, tree.News(), "nothing is new twice")
	})
}

func TestMatchingDocumentsDoNotAllocate(t *testing.T) {
	tree, doc := New(parse(t, open), nil, nil, 1), sample()
	require.True(t, tree.Valid(doc))
	require.Zero(t, testing.AllocsPerRun(100, func() { tree.Valid(doc) }))
}

func sample() []byte {
	return []byte(`{"id":7,"customer":"customer 4711","total":977.25,"paid":false,"at":"2025-03-01T12:00:07.123Z","lines":[{"sku":"a-7","n":2},{"sku":"b-7","n":1}],` +
		`"note":"` + strings.Repeat("some text ", 12) + `","_meta":{"op":"u","topic":"t","partition":0,"offset":1}}`)
}

// BenchmarkValid is the cost of inference: tree against plain, the check that collections have that infer nothing.
func BenchmarkValid(b *testing.B) {
	doc := sample()
	tree := New(parse(b, open), nil, nil, 1)
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			jsonscan.Valid(doc)
		}
	})
	b.Run("tree", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			tree.Valid(doc)
		}
	})
}
