package avro

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"github.com/twmb/avro"
)

// A world makes random schemas, and values that fit them: as the library takes them, and as JSON.
type world struct {
	*rand.Rand
	names int
	// records are those defined so far: a later type may name them.
	records []*made
}

// made is one type: its schema, and its values.
type made struct {
	schema any
	name   string // of the branch in a tagged union
	form   string
	value  func(depth int) (in, out any)
}

func (w *world) text() string {
	alphabet := []rune("ab\"\\\n\t é€😀\x00/<")
	s := make([]rune, w.IntN(8))
	for i := range s {
		s[i] = alphabet[w.IntN(len(alphabet))]
	}
	return string(s)
}

func (w *world) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.Uint32())
	}
	return b
}

func (w *world) long() int64 { return int64(w.Uint64()) >> w.IntN(64) }

func (w *world) name(kind string) string {
	w.names++
	return []string{"com.example.", "org."}[w.IntN(2)] + fmt.Sprintf("%s%d", kind, w.names)
}

func (w *world) primitive() *made {
	switch w.IntN(8) {
	case 0:
		return &made{"null", "null", "null", func(int) (any, any) { return nil, nil }}
	case 1:
		return &made{"boolean", "boolean", "boolean", func(int) (any, any) { b := w.IntN(2) == 0; return b, b }}
	case 2:
		return &made{"int", "int", "number", func(int) (any, any) { i := int32(w.long()); return i, i }}
	case 3:
		return &made{"long", "long", "number", func(int) (any, any) { i := w.long(); return i, i }}
	case 4:
		return &made{"double", "double", "number", func(int) (any, any) { return w.float(64) }}
	case 5:
		return &made{"float", "float", "number", func(int) (any, any) { return w.float(32) }}
	case 6:
		return &made{"bytes", "bytes", "notation", func(int) (any, any) {
			b := w.bytes(w.IntN(9))
			return b, base64.StdEncoding.EncodeToString(b)
		}}
	default:
		return &made{"string", "string", "text", func(int) (any, any) { s := w.text(); return s, s }}
	}
}

func (w *world) float(size int) (in, out any) {
	v := []float64{0, 1, -1.5, 1e300, 1e-300, math.NaN(), math.Inf(1), math.Inf(-1), 0.1, 123456789}[w.IntN(10)]
	if size == 32 {
		f := float32(v)
		in, v = f, float64(f)
	} else {
		in = v
	}
	switch {
	case math.IsNaN(v):
		return in, "NaN"
	case math.IsInf(v, 1):
		return in, "Infinity"
	case math.IsInf(v, -1):
		return in, "-Infinity"
	case size == 32:
		return in, float32(v)
	}
	return in, v
}

func (w *world) logical() *made {
	obj := func(typ, logical string, more ...any) map[string]any {
		m := map[string]any{"type": typ, "logicalType": logical}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	instant := func(schema any, name, layout string, step time.Duration) *made {
		return &made{schema, name, "notation", func(int) (any, any) {
			at := time.Unix(w.Int64N(4e9)-2e9, w.Int64N(1e9)).UTC().Truncate(step)
			return at, at.Format(layout)
		}}
	}
	switch w.IntN(10) {
	case 0:
		return instant(obj("int", "date"), "int", "2006-01-02", 24*time.Hour)
	case 1:
		return instant(obj("long", "timestamp-millis"), "long", "2006-01-02T15:04:05.000Z", time.Millisecond)
	case 2:
		return instant(obj("long", "timestamp-micros"), "long", "2006-01-02T15:04:05.000000Z", time.Microsecond)
	case 3:
		return instant(obj("long", "timestamp-nanos"), "long", "2006-01-02T15:04:05.000000000Z", 1)
	case 4:
		return instant(obj("long", "local-timestamp-micros"), "long", "2006-01-02T15:04:05.000000Z", time.Microsecond)
	case 5:
		return &made{obj("int", "time-millis"), "int", "notation", func(int) (any, any) {
			d := time.Duration(w.IntN(86400000)) * time.Millisecond
			return d, time.Unix(0, 0).UTC().Add(d).Format("15:04:05.000Z")
		}}
	case 6:
		name := w.name("Fixed")
		return &made{map[string]any{"type": "fixed", "name": name, "size": 12, "logicalType": "duration"}, name, "notation", func(int) (any, any) {
			d := avro.Duration{Months: w.Uint32(), Days: w.Uint32(), Milliseconds: w.Uint32()}
			out := fmt.Sprintf("P%dM%dDT%d", d.Months, d.Days, d.Milliseconds/1000)
			if ms := d.Milliseconds % 1000; ms > 0 {
				out += fmt.Sprintf(".%03d", ms)
			}
			return d, out + "S"
		}}
	case 7:
		name, size, scale := w.name("Fixed"), 1+w.IntN(20), w.IntN(3)
		return &made{
			map[string]any{"type": "fixed", "name": name, "size": size, "logicalType": "decimal", "precision": 2, "scale": scale},
			name, "notation", func(int) (any, any) {
				n := int64(int8(w.Uint32())) % 100
				return big.NewRat(n, int64(math.Pow10(scale))), big.NewRat(n, int64(math.Pow10(scale))).FloatString(scale)
			},
		}
	default:
		scale := w.IntN(30)
		return &made{obj("bytes", "decimal", "precision", 60, "scale", scale), "bytes", "notation", func(int) (any, any) {
			n := new(big.Int).SetBytes(w.bytes(w.IntN(20)))
			if w.IntN(2) == 0 {
				n.Neg(n)
			}
			r := new(big.Rat).SetFrac(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
			return r, r.FloatString(scale)
		}}
	}
}

func (w *world) typ(depth int) *made {
	if depth <= 0 {
		if w.IntN(3) == 0 {
			return w.logical()
		}
		return w.primitive()
	}
	switch w.IntN(9) {
	case 0:
		return w.logical()
	case 1:
		items := w.typ(depth - 1)
		return &made{map[string]any{"type": "array", "items": items.schema}, "array", "array", func(depth int) (any, any) {
			in, out := []any{}, []any{}
			for range w.IntN(4) {
				i, o := items.value(depth - 1)
				in, out = append(in, i), append(out, o)
			}
			return in, out
		}}
	case 2:
		values := w.typ(depth - 1)
		return &made{map[string]any{"type": "map", "values": values.schema}, "map", "object", func(depth int) (any, any) {
			in, out := map[string]any{}, map[string]any{}
			for range w.IntN(4) {
				k := w.text()
				in[k], out[k] = values.value(depth - 1)
			}
			return in, out
		}}
	case 3:
		return w.enum()
	case 4, 5:
		return w.record(depth)
	case 6:
		if len(w.records) > 0 {
			r := w.records[w.IntN(len(w.records))]
			return &made{r.name, r.name, r.form, r.value}
		}
		return w.primitive()
	case 7:
		return w.union(depth)
	default:
		return w.primitive()
	}
}

func (w *world) enum() *made {
	name := w.name("Enum")
	symbols := []any{"A", "B_1", "C"}
	return &made{map[string]any{"type": "enum", "name": name, "symbols": symbols, "doc": "d"}, name, "text", func(int) (any, any) {
		s := symbols[w.IntN(3)]
		return s, s
	}}
}

func (w *world) record(depth int) *made {
	name := w.name("Record")
	r := &made{name: name, form: "object"}
	var fields []any
	var inner []*made
	for i := range w.IntN(6) {
		f := w.typ(depth - 1)
		inner = append(inner, f)
		fields = append(fields, map[string]any{"name": fmt.Sprintf("f%d", i), "type": f.schema, "doc": "doc of \"f\""})
	}
	if w.IntN(3) == 0 { // a list: the record, or nothing
		next := &made{form: "union", value: func(depth int) (any, any) {
			if depth <= 0 || w.IntN(2) == 0 {
				return nil, nil
			}
			in, out := r.value(depth - 1)
			return map[string]any{name: in}, out
		}}
		inner = append(inner, next)
		fields = append(fields, map[string]any{"name": fmt.Sprintf("f%d", len(fields)), "type": []any{"null", name}})
	}
	if fields == nil {
		fields = []any{}
	}
	r.schema = map[string]any{"type": "record", "name": name, "fields": fields, "doc": "a record"}
	r.value = func(depth int) (any, any) {
		in, out := map[string]any{}, map[string]any{}
		for i, f := range inner {
			k := fmt.Sprintf("f%d", i)
			in[k], out[k] = f.value(depth - 1)
		}
		return in, out
	}
	w.records = append(w.records, r)
	return r
}

func (w *world) union(depth int) *made {
	var branches []*made
	taken := map[string]bool{}
	for range 1 + w.IntN(4) {
		defined := len(w.records)
		b := w.typ(depth - 1)
		if b.form == "union" || taken[b.name] {
			w.records = w.records[:defined]
			continue
		}
		taken[b.name] = true
		branches = append(branches, b)
	}
	if len(branches) == 0 {
		return w.primitive()
	}
	count := map[string]int{}
	var schema []any
	for _, b := range branches {
		count[b.form]++
		schema = append(schema, b.schema)
	}
	return &made{schema, "", "union", func(depth int) (any, any) {
		b := branches[w.IntN(len(branches))]
		in, out := b.value(depth - 1)
		if b.form == "null" {
			return nil, nil
		}
		tagged := (b.form == "object" && count["object"] > 1) ||
			(b.form == "text" || b.form == "notation") && count["notation"] > 0 && count["text"]+count["notation"] > 1
		if tagged {
			out = map[string]any{b.name: out}
		}
		return map[string]any{b.name: in}, out
	}}
}

// normal is a JSON text in a form that can be compared: numbers as they are written by encoding/json.
func normal(t testing.TB, text []byte) string {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	require.NoError(t, d.Decode(&v), "%s", text)
	out, err := json.Marshal(v)
	require.NoError(t, err)
	return string(out)
}

// TestRandomSchemas has a library encode random values of random schemas, and holds what we make of them against the JSON
// that they were made for, and against the JSON schema.
func TestRandomSchemas(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for n := range 150 {
		w := &world{Rand: rand.New(rand.NewPCG(seed, uint64(n)))}
		m := w.typ(4)
		text, err := json.Marshal(m.schema)
		require.NoError(t, err)
		library, err := avro.Parse(string(text))
		require.NoError(t, err, "%s", text)
		ours, err := Compile(string(text), nil, Options{})
		require.NoError(t, err, "%s", text)
		valid := compileJSONSchema(t, ours.Describe().JSON(""))
		var dst []byte
		for i := range 10 {
			in, out := m.value(6)
			data, err := library.Encode(in)
			require.NoError(t, err, "%s: %#v", text, in)
			dst, err = ours.Append(dst[:0], data)
			require.NoError(t, err, "%s: %#v", text, in)
			want, err := json.Marshal(out)
			require.NoError(t, err)
			got, expected := normal(t, dst), normal(t, want)
			if got != expected {
				got, expected = zeros(got), zeros(expected)
			}
			require.Equal(t, expected, got, "%s", text)
			validate(t, valid, dst)
			// Every cut of it is refused, never misread and never a panic; what an empty record is cut to is itself.
			for cut := range min(len(data), 2000/(i*i+1)) {
				if _, err := ours.Append(nil, data[:cut]); err == nil {
					t.Fatalf("%s: %x cut to %d bytes was decoded", text, data, cut)
				}
			}
		}
	}
}

// zeros leaves out the fractions of seconds that are zero, which the reference writes and we do not, and the notation of
// exponents.
func zeros(s string) string {
	for _, z := range []string{".000000000Z", ".000000Z", ".000Z"} {
		s = strings.ReplaceAll(s, z, "Z")
	}
	return s
}

func compileJSONSchema(t testing.TB, text []byte) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err, "%s", text)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	c.DefaultDraft(jsonschema.Draft2020)
	require.NoError(t, c.AddResource("mem:schema", doc))
	s, err := c.Compile("mem:schema")
	require.NoError(t, err, "%s", text)
	return s
}

func validate(t testing.TB, s *jsonschema.Schema, value []byte) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err)
	require.NoError(t, s.Validate(v), "%s", value)
}
