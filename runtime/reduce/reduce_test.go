package reduce

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// rowSchema is how change captures write theirs: merged rows, a conditional deletion, a first "before".
const rowSchema = `{"$defs":{"t":{"type":"object","properties":{"id":{"type":"integer"}}}},
 "allOf":[{"if":{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]},
   "then":{"reduce":{"strategy":"merge","delete":true}},"else":{"reduce":{"strategy":"merge"}}},
  {"properties":{"_meta":{"type":"object","reduce":{"strategy":"merge"},
   "properties":{"before":{"$ref":"#/$defs/t","reduce":{"strategy":"firstWriteWins"}}}}}},{"$ref":"#/$defs/t"}]}`

func TestMergeTable(t *testing.T) {
	t.Parallel()
	at := func(annotation string) string {
		return `{"properties":{"v":{"reduce":` + annotation + `}},"reduce":{"strategy":"merge"}}`
	}
	for _, c := range []struct{ name, schema, left, right, want string }{
		{"no annotation", `{}`, `{"a":1,"b":2}`, `{"a":3}`, `{"a":3}`},
		{"merge", `{"reduce":{"strategy":"merge"}}`, `{"a":1, "b":2}`, `{"c":4,"a":3}`, `{"a":3,"b":2,"c":4}`},
		{"merge keeps an explicit null", `{"reduce":{"strategy":"merge"}}`, `{"a":1}`, `{"a":null}`, `{"a":null}`},
		{"escaped names are the same name", `{"reduce":{"strategy":"merge"}}`, `{"\u0061":1}`, `{"a":2}`, `{"\u0061":2}`},
		{"row", rowSchema, `{"id":1,"x":"a","y":"big","_meta":{"op":"u","before":{"x":"0"},"s":1}}`, `{"id":1,"x":"b","_meta":{"op":"u","before":{"x":"a"},"s":2}}`, `{"id":1,"x":"b","y":"big","_meta":{"op":"u","before":{"x":"0"},"s":2}}`},
		{"nested merge is only where it is said", `{"reduce":{"strategy":"merge"}}`, `{"a":{"x":1}}`, `{"a":{"y":2}}`, `{"a":{"y":2}}`},
		{"nested merge", at(`{"strategy":"merge"}`), `{"v":{"x":1}}`, `{"v":{"y":2}}`, `{"v":{"x":1,"y":2}}`},
		{"merge of arrays", at(`{"strategy":"merge"}`), `{"v":[1,2,3]}`, `{"v":[9]}`, `{"v":[9,2,3]}`},
		{"merge of sorted arrays", at(`{"strategy":"merge","key":["/k"]}`), `{"v":[{"k":1,"x":1},{"k":3}]}`, `{"v":[{"k":1,"x":2},{"k":2}]}`, `{"v":[{"k":1,"x":2},{"k":2},{"k":3}]}`},
		{"first write", at(`{"strategy":"firstWriteWins"}`), `{"v":1}`, `{"v":2}`, `{"v":1}`},
		{"last write", at(`{"strategy":"lastWriteWins"}`), `{"v":1}`, `{"v":2}`, `{"v":2}`},
		{"sum", at(`{"strategy":"sum"}`), `{"v":9223372036854775807}`, `{"v":1}`, `{"v":9223372036854775808}`},
		{"sum of decimals", at(`{"strategy":"sum"}`), `{"v":0.1}`, `{"v":0.20}`, `{"v":0.30}`},
		{"sum with null", at(`{"strategy":"sum"}`), `{"v":null}`, `{"v":2}`, `{"v":2}`},
		{"minimize", at(`{"strategy":"minimize"}`), `{"v":10}`, `{"v":9.5}`, `{"v":9.5}`},
		{"maximize", at(`{"strategy":"maximize"}`), `{"v":"b"}`, `{"v":"a"}`, `{"v":"b"}`},
		{"maximize by key", at(`{"strategy":"maximize","key":["/n"]}`), `{"v":{"n":1,"t":"old"}}`, `{"v":{"n":2,"t":"new"}}`, `{"v":{"n":2,"t":"new"}}`},
		{"append", at(`{"strategy":"append"}`), `{"v":[1]}`, `{"v":[2,3]}`, `{"v":[1,2,3]}`},
		{"append to null", at(`{"strategy":"append"}`), `{"v":null}`, `{"v":[2]}`, `{"v":[2]}`},
		{"additional properties", `{"reduce":{"strategy":"merge"},"additionalProperties":{"reduce":{"strategy":"sum"}}}`, `{"a":1,"b":1}`, `{"a":2,"c":1}`, `{"a":3,"b":1,"c":1}`},
		{"one of", `{"oneOf":[{"type":"object","properties":{"k":{"type":"string"}},"required":["k"],"reduce":{"strategy":"merge"}},{"type":"object","maxProperties":1,"properties":{"n":{"type":"integer"}},"required":["n"],"reduce":{"strategy":"lastWriteWins"}}]}`, `{"a":1}`, `{"n":1}`, `{"n":1}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			plan, err := Compile([]byte(c.schema))
			require.NoError(t, err)
			got, err := plan.NewMerger().Merge(nil, []byte(c.left), []byte(c.right))
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
}

func TestDeletes(t *testing.T) {
	t.Parallel()
	plan, err := Compile([]byte(rowSchema))
	require.NoError(t, err)
	require.True(t, plan.Deletes([]byte(`{"id":1,"_meta":{"source":{},"op":"d"}}`)))
	require.False(t, plan.Deletes([]byte(`{"id":1,"_meta":{"op":"c"}}`)))
	require.False(t, plan.Deletes([]byte(`{"id":1}`)))

	general, err := Compile([]byte(`{"if":{"properties":{"n":{"minimum":5}},"required":["n"]},"then":{"reduce":{"strategy":"merge","delete":true}}}`))
	require.NoError(t, err)
	require.True(t, general.Deletes([]byte(`{"n":6}`)))
	require.False(t, general.Deletes([]byte(`{"n":4}`)))
}

// markedSchema is how our sources write theirs.
const markedSchema = `{"reduce":{"strategy":"merge"},"properties":{"a":{}},"if":{"properties":{"_meta":{"properties":{"op":{"enum":["d","x"]}},"required":["op"]}},"required":["_meta"]},"then":{"reduce":{"strategy":"merge","delete":true}}}`

// Where one location decides, it is named, and asked about it the plan says what it says of the whole document.
func TestMark(t *testing.T) {
	t.Parallel()
	plan, err := Compile([]byte(markedSchema))
	require.NoError(t, err)
	pointer, ok := plan.Mark()
	require.True(t, ok)
	require.Equal(t, "/_meta/op", pointer)
	for value, doc := range map[string]string{`"d"`: `{"_meta":{"op":"d"}}`, `"\u0064"`: `{"_meta":{"op":"\u0064"}}`, `"x"`: `{"_meta":{"a":1,"op":"x"}}`, `"c"`: `{"_meta":{"op":"c"}}`, "null": `{"_meta":{"op":null}}`, "": `{"_meta":{}}`} {
		text := []byte(value)
		if value == "" {
			text = nil
		}
		require.Equal(t, plan.Deletes([]byte(doc)), plan.Marked(text), doc)
	}
	for _, schema := range []string{
		rowSchema, // allOf, and an else
		`{}`,
		strings.Replace(markedSchema, `"required":["op"]`, `"title":"maybe"`, 1),
		strings.Replace(markedSchema, `"required":["_meta"]`, `"required":["_meta","a"]`, 1),
		strings.Replace(markedSchema, `"enum":["d","x"]`, `"pattern":"d"`, 1),
		strings.Replace(markedSchema, `,"delete":true`, ``, 1),
		`{"reduce":{"strategy":"merge","delete":true}}`,
	} {
		plan, err := Compile([]byte(schema))
		require.NoError(t, err)
		_, ok := plan.Mark()
		require.False(t, ok, schema)
	}
}

func TestCompileNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{
		`{"properties":{"a":{"reduce":{"strategy":"set"}}}}`:                 `"set" at /properties/a`,
		`{"reduce":{"strategy":"mrege"}}`:                                    `"mrege" at its root`,
		`{"properties":{"a":{"reduce":{"strategy":"merge","delete":true}}}}`: `at /properties/a has "delete"`,
		`{"$ref":"other.json#/x"}`:                                           `"other.json#/x"`,
		`{"$ref":"#/$defs/none"}`:                                            `"#/$defs/none", which it does not contain`,
		`{"a":`:                                                              `reading the schema`,
		`{"if":{"pattern":"("},"then":{"reduce":{"strategy":"merge"}},"reduce":{"strategy":"merge"}}`: `condition at /if`,
	} {
		_, err := Compile([]byte(schema))
		require.ErrorContains(t, err, want)
	}
}

func TestMergeNamesValuesThatDoNotFit(t *testing.T) {
	t.Parallel()
	plan, err := Compile([]byte(`{"reduce":{"strategy":"merge"},"properties":{"n":{"reduce":{"strategy":"sum"}},"l":{"reduce":{"strategy":"append"}}}}`))
	require.NoError(t, err)
	_, err = plan.NewMerger().Merge(nil, []byte(`{"n":1}`), []byte(`{"n":"x"}`))
	require.EqualError(t, err, `n: the reduction strategy sum needs numbers, but got "x"`)
	_, err = plan.NewMerger().Merge(nil, []byte(`{"l":[1]}`), []byte(`{"l":{}}`))
	require.ErrorContains(t, err, "append needs arrays")
}

func TestRecursiveSchemaEnds(t *testing.T) {
	t.Parallel()
	plan, err := Compile([]byte(`{"$defs":{"n":{"reduce":{"strategy":"merge"},"properties":{"next":{"$ref":"#/$defs/n"}}}},"$ref":"#/$defs/n"}`))
	require.NoError(t, err)
	got, err := plan.NewMerger().Merge(nil, []byte(`{"a":1,"next":{"b":1,"next":{"c":1}}}`), []byte(`{"next":{"next":{"d":1}}}`))
	require.NoError(t, err)
	require.Equal(t, `{"a":1,"next":{"b":1,"next":{"c":1,"d":1}}}`, string(got))
}

// fields of the documents that the property tests draw, and how each is reduced.
var drawn = map[string]string{
	"first": "firstWriteWins", "last": "lastWriteWins", "sum": "sum", "min": "minimize", "max": "maximize", "list": "append", "plain": "",
}

func drawnSchema() string {
	var props []string
	for _, name := range slices.Sorted(maps.Keys(drawn)) {
		if s := drawn[name]; s != "" {
			props = append(props, fmt.Sprintf(`%q:{"reduce":{"strategy":%q}}`, name, s))
		}
	}
	inner := strings.Join(props, ",")
	return `{"reduce":{"strategy":"merge"},"properties":{` + inner + `,"nested":{"reduce":{"strategy":"merge"},"properties":{` + inner + `}}}}`
}

func drawDoc(t *rapid.T, label string, depth int) map[string]any {
	doc := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(drawn)) {
		if !rapid.Bool().Draw(t, label+name) {
			continue
		}
		if name == "list" {
			doc[name] = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) any { return float64(rapid.IntRange(0, 9).Draw(t, "e")) }), 0, 3).Draw(t, label+"l")
			continue
		}
		doc[name] = float64(rapid.IntRange(-50, 50).Draw(t, label+name+"v"))
	}
	if depth > 0 && rapid.Bool().Draw(t, label+"deep") {
		doc["nested"] = drawDoc(t, label+"n", depth-1)
	}
	return doc
}

// model is the same reduction over decoded values.
func model(left, right map[string]any) map[string]any {
	out := maps.Clone(left)
	for name, r := range right {
		l, both := left[name]
		if !both {
			out[name] = r
			continue
		}
		switch {
		case name == "nested":
			out[name] = model(l.(map[string]any), r.(map[string]any))
		case name == "list":
			out[name] = append(append([]any{}, l.([]any)...), r.([]any)...)
		case drawn[name] == "firstWriteWins":
		case drawn[name] == "sum":
			out[name] = l.(float64) + r.(float64)
		case drawn[name] == "minimize":
			out[name] = min(l.(float64), r.(float64))
		case drawn[name] == "maximize":
			out[name] = max(l.(float64), r.(float64))
		default:
			out[name] = r
		}
	}
	return out
}

// TestMergeIsTheModelAndAssociative: what a transaction reduces among its own documents, before it knows the stored
// one, must not change the result.
func TestMergeIsTheModelAndAssociative(t *testing.T) {
	t.Parallel()
	plan, err := Compile([]byte(drawnSchema()))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		docs := [3][]byte{}
		var want map[string]any
		for i := range docs {
			d := drawDoc(t, fmt.Sprint(i), 1)
			docs[i], _ = json.Marshal(d)
			if i == 0 {
				want = d
			} else {
				want = model(want, d)
			}
		}
		m := plan.NewMerger()
		ab, err := m.Merge(nil, docs[0], docs[1])
		require.NoError(t, err)
		abC, err := m.Merge(nil, ab, docs[2])
		require.NoError(t, err)
		bc, err := m.Merge(nil, docs[1], docs[2])
		require.NoError(t, err)
		aBC, err := m.Merge(nil, docs[0], bc)
		require.NoError(t, err)
		wantText, _ := json.Marshal(want)
		require.JSONEq(t, string(wantText), string(abC))
		require.JSONEq(t, string(abC), string(aBC))
	})
}

func TestMergeAllocatesNothing(t *testing.T) {
	plan, err := Compile([]byte(rowSchema))
	require.NoError(t, err)
	m := plan.NewMerger()
	left := []byte(`{"id":1,"x":"a","y":"big","_meta":{"op":"u","before":{"x":"0"},"s":1}}`)
	right := []byte(`{"id":1,"x":"b","y":"bigger","_meta":{"op":"u","before":{"x":"a"},"s":2}}`)
	var dst []byte
	require.Zero(t, testing.AllocsPerRun(100, func() {
		dst, err = m.Merge(dst[:0], left, right)
		_ = plan.Deletes(right)
	}))
	require.NoError(t, err)
}

func BenchmarkMerge(b *testing.B) {
	plan, err := Compile([]byte(rowSchema))
	require.NoError(b, err)
	m := plan.NewMerger()
	left := []byte(`{"id":1,"x":"a","y":"big","_meta":{"op":"u","before":{"x":"0"},"s":1}}`)
	right := []byte(`{"id":1,"x":"b","y":"bigger","_meta":{"op":"u","before":{"x":"a"},"s":2}}`)
	var dst []byte
	b.SetBytes(int64(len(left) + len(right)))
	for b.Loop() {
		dst, _ = m.Merge(dst[:0], left, right)
	}
}

// What a newer document has at a location that the plan says it replaces is there after any merge.
func TestReplaces(t *testing.T) {
	t.Parallel()
	plan, err := Compile([]byte(drawnSchema()))
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		older, _ := json.Marshal(drawDoc(t, "older", 1))
		doc := drawDoc(t, "newer", 1)
		newer, _ := json.Marshal(doc)
		merged, err := plan.NewMerger().Merge(nil, older, newer)
		require.NoError(t, err)
		for _, name := range slices.Sorted(maps.Keys(drawn)) {
			for _, in := range []string{"", "/nested"} {
				pointers := jsonscan.NewPointers([]string{in + "/" + name})
				replaces := drawn[name] == "" || drawn[name] == "lastWriteWins"
				require.Equal(t, replaces, plan.Replaces(in+"/"+name), name)
				var had, has [1][]byte
				pointers.Find(newer, had[:])
				pointers.Find(merged, has[:])
				if replaces && had[0] != nil {
					require.Equal(t, string(had[0]), string(has[0]))
				}
			}
		}
		require.False(t, plan.Replaces("/nested") || plan.Replaces(""), "their members are merged")
	})
	for schema, pointers := range map[string]map[string]bool{
		`{}`: {"": true, "/a": true, "/a/b": true},
		`{"reduce":{"strategy":"firstWriteWins"}}`:                                                       {"": false, "/a": false},
		`{"reduce":{"strategy":"merge"},"additionalProperties":{"reduce":{"strategy":"sum"}}}`:           {"/a": false},
		`{"reduce":{"strategy":"merge"},"items":{"reduce":{"strategy":"sum"}}}`:                          {"/0": false},
		`{"reduce":{"strategy":"merge"},"$defs":{"t":{"reduce":{"strategy":"sum"}}},"$ref":"#/$defs/t"}`: {"/a": false},
		rowSchema: {"/x": false}, // its annotations are in a condition
		strings.Replace(markedSchema, `"a":{}`, `"a":{"reduce":{"strategy":"merge"},"properties":{"b":{}}}`, 1): {"/a": false, "/a/b": true, "/x": true, "/_meta/op": true},
	} {
		plan, err := Compile([]byte(schema))
		require.NoError(t, err)
		for pointer, want := range pointers {
			require.Equal(t, want, plan.Replaces(pointer), "%s of %s", pointer, schema)
		}
	}
}

func TestTellsCreation(t *testing.T) {
	t.Parallel()
	for described, want := range map[string]bool{`{"enum":["c","u","d"]}`: true, `{"enum":["u","d"]}`: false, `{"type":"string"}`: false} {
		plan, err := Compile([]byte(strings.Replace(markedSchema, `"a":{}`, `"a":{},"_meta":{"properties":{"op":`+described+`}}`, 1)))
		require.NoError(t, err)
		require.Equal(t, want, plan.TellsCreation(), described)
		require.Equal(t, want, plan.Created([]byte(`"c"`)))
		require.False(t, plan.Created([]byte(`"u"`)) || plan.Created(nil))
	}
	plan, err := Compile([]byte(`{"properties":{"_meta":{"properties":{"op":{"enum":["c","u","d"]}}}}}`))
	require.NoError(t, err)
	require.False(t, plan.TellsCreation(), "nothing is said of deletions")
}
