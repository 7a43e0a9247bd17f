package tuple_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluicedata/sluice/sdk/tuple"
)

// TestSpecification holds the examples of FoundationDB's specification of the layer, and values at every border of its
// type codes, worked out by hand from it.
func TestSpecification(t *testing.T) {
	t.Parallel()
	for want, got := range map[string][]byte{
		"00":                      tuple.AppendNil(nil),
		"01666f6f00ff62617200":    tuple.AppendBytes(nil, []byte("foo\x00bar")),
		"02 46c3944f00ff62617200": tuple.AppendString(nil, "F\u00d4O\x00bar"),
		"11 ab4b93":               tuple.AppendInt(nil, -5551212),
		"14":                      tuple.AppendInt(nil, 0),
		"15 01":                   tuple.AppendInt(nil, 1),
		"13 fe":                   tuple.AppendInt(nil, -1),
		"15 ff":                   tuple.AppendInt(nil, 255),
		"13 00":                   tuple.AppendInt(nil, -255),
		"16 0100":                 tuple.AppendInt(nil, 256),
		"12 feff":                 tuple.AppendInt(nil, -256),
		"1c 7fffffffffffffff":     tuple.AppendInt(nil, math.MaxInt64),
		"0c 7fffffffffffffff":     tuple.AppendInt(nil, math.MinInt64),
		"1c ffffffffffffffff":     tuple.AppendUint(nil, math.MaxUint64),
		"21 3dffffffffffffff":     tuple.AppendFloat(nil, math.Float64frombits(^uint64(0x3dffffffffffffff))),
		"21 8000000000000000":     tuple.AppendFloat(nil, 0),
		"21 bff0000000000000":     tuple.AppendFloat(nil, 1),
		"21 400fffffffffffff":     tuple.AppendFloat(nil, -1),
		"26":                      tuple.AppendBool(nil, false),
		"27":                      tuple.AppendBool(nil, true),
	} {
		require.Equal(t, strings.ReplaceAll(want, " ", ""), hex.EncodeToString(got))
	}
}

// value is a generated element: how it is packed, and what unpacking gives.
type value struct {
	pack func([]byte) []byte
	want any
}

func anyValue(t *rapid.T) value {
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		return value{tuple.AppendNil, nil}
	case 1:
		b := rapid.SliceOf(rapid.SampledFrom([]byte{0, 1, 'a', 0xfe, 0xff})).Draw(t, "bytes")
		return value{func(dst []byte) []byte { return tuple.AppendBytes(dst, b) }, b}
	case 2:
		s := rapid.String().Draw(t, "string")
		return value{func(dst []byte) []byte { return tuple.AppendString(dst, s) }, s}
	case 3:
		i := rapid.Int64().Draw(t, "int")
		return value{func(dst []byte) []byte { return tuple.AppendInt(dst, i) }, i}
	case 4:
		u := rapid.Uint64Min(math.MaxInt64+1).Draw(t, "uint")
		return value{func(dst []byte) []byte { return tuple.AppendUint(dst, u) }, u}
	case 5:
		f := rapid.Float64().Draw(t, "float")
		return value{func(dst []byte) []byte { return tuple.AppendFloat(dst, f) }, f}
	default:
		b := rapid.Bool().Draw(t, "bool")
		return value{func(dst []byte) []byte { return tuple.AppendBool(dst, b) }, b}
	}
}

func TestUnpackGivesWhatWasPacked(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var packed []byte
		var want []any
		for range rapid.IntRange(0, 5).Draw(t, "length") {
			v := anyValue(t)
			packed, want = v.pack(packed), append(want, v.want)
		}
		got, err := tuple.Unpack(packed)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range want {
			if b, ok := want[i].([]byte); ok {
				require.True(t, bytes.Equal(b, got[i].([]byte)))
				continue
			}
			require.Equal(t, want[i], got[i])
		}
	})
}

func TestOrder(t *testing.T) {
	t.Parallel()
	check := func(name string, f func(t *rapid.T) (order int, a, b []byte)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				order, a, b := f(t)
				// Whatever follows in the tuple must not change the order.
				a = append(a, rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "tail a")...)
				if order == 0 {
					return
				}
				require.Equal(t, order, bytes.Compare(a, b))
			})
		})
	}
	integers := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-70000, 70000))
	check("integers", func(t *rapid.T) (int, []byte, []byte) {
		a, b := integers.Draw(t, "a"), integers.Draw(t, "b")
		return slices.Compare([]int64{a}, []int64{b}), tuple.AppendInt(nil, a), tuple.AppendInt(nil, b)
	})
	check("signed and unsigned", func(t *rapid.T) (int, []byte, []byte) {
		return -1, tuple.AppendInt(nil, rapid.Int64().Draw(t, "a")), tuple.AppendUint(nil, rapid.Uint64Min(math.MaxInt64+1).Draw(t, "b"))
	})
	check("floats", func(t *rapid.T) (int, []byte, []byte) {
		a, b := rapid.Float64().Draw(t, "a"), rapid.Float64().Draw(t, "b")
		return slices.Compare([]float64{a}, []float64{b}), tuple.AppendFloat(nil, a), tuple.AppendFloat(nil, b)
	})
	check("strings", func(t *rapid.T) (int, []byte, []byte) {
		letters := rapid.StringOf(rapid.SampledFrom([]rune{0, 1, 'a', 'b', 0x7f, 'é', '\uffff', '😀'}))
		a, b := letters.Draw(t, "a"), letters.Draw(t, "b")
		return strings.Compare(a, b), tuple.AppendString(nil, a), tuple.AppendStringBytes(nil, []byte(b))
	})
	check("bytes", func(t *rapid.T) (int, []byte, []byte) {
		some := rapid.SliceOf(rapid.SampledFrom([]byte{0, 1, 2, 0xfe, 0xff}))
		a, b := some.Draw(t, "a"), some.Draw(t, "b")
		return bytes.Compare(a, b), tuple.AppendBytes(nil, a), tuple.AppendBytes(nil, b)
	})
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		`null`: nil, ` true `: true, `false`: false, `0`: int64(0), `-1`: int64(-1), `255`: int64(255),
		`18446744073709551615`: uint64(math.MaxUint64), `-9223372036854775808`: int64(math.MinInt64),
		`18446744073709551616`: 18446744073709551616.0, `1.0`: 1.0, `1e3`: 1000.0, `-0.5`: -0.5, `-0`: math.Copysign(0, -1),
		`""`: "", `"a\u0000b"`: "a\x00b", `"\"\\\/\b\f\n\r\t"`: "\"\\/\b\f\n\r\t", `"\ud83d\ude00é"`: "😀é", `"\ud83d"`: "\ufffd",
		`"\ud83dx"`:          "\ufffdx",
		`[1, {"a" : "b c"}]`: []byte(`[1,{"a":"b c"}]`), `{ }`: []byte(`{}`),
	} {
		packed, err := tuple.AppendJSON([]byte{}, []byte(text))
		require.NoError(t, err, text)
		got, err := tuple.Unpack(packed)
		require.NoError(t, err, text)
		require.Equal(t, []any{want}, got, text)
	}
	for _, text := range []string{``, ` `, `nul`, `"a`, `"a\`, `"\x"`, `"\u12"`, `"a" 1`, "\"\n\"", `1.`, `-`, `1e999`, `[1`, `{`, `x`} {
		prefix := []byte("prefix")
		dst, err := tuple.AppendJSON(prefix, []byte(text))
		require.ErrorContains(t, err, "packing a JSON value: ", text)
		require.Equal(t, "prefix", string(dst), text)
	}
}

// TestJSONStrings compares with encoding/json.
func TestJSONStrings(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "string")
		text, err := json.Marshal(s)
		require.NoError(t, err)
		got, err := tuple.AppendJSON(nil, text)
		require.NoError(t, err)
		require.Equal(t, tuple.AppendString(nil, s), got)
	})
}

func TestDamagedTuples(t *testing.T) {
	t.Parallel()
	for packed, want := range map[string]string{
		"\x01abc":                              "a string of 3 bytes has no end",
		"\x02abc\x00\xff":                      "a string of 5 bytes has no end",
		"\x16\x01":                             "an integer is cut after 1 of 2 bytes",
		"\x21\x01\x02":                         "a float is cut after 2 of 8 bytes",
		"\x05":                                 "unknown type code 0x05",
		"\x0c\x00\x00\x00\x00\x00\x00\x00\x00": "below the smallest",
	} {
		_, err := tuple.Unpack([]byte(packed))
		require.ErrorContains(t, err, want)
	}
	_, _, err := tuple.Next(nil)
	require.ErrorContains(t, err, "no element is left")
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("\x02a\x00\xffb\x00\x15\x01\x21\x80\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01ab\x00\x02\x00\x00\x02c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, failed := tuple.AppendElements(nil, b)
		for i := 0; len(b) > 0; i++ {
			e, rest, err := tuple.Next(b)
			if err != nil {
				require.Equal(t, err, failed)
				require.Len(t, all, i+1)
				return
			}
			if e.Kind != tuple.Float { // NaN is not equal to itself
				require.Equal(t, e, all[i])
			}
			require.Less(t, len(rest), len(b))
			b = rest
		}
		require.NoError(t, failed)
	})
}

func TestNoAllocations(t *testing.T) {
	dst := make([]byte, 0, 256)
	packed := tuple.AppendString(tuple.AppendFloat(tuple.AppendInt(nil, -77), 1.5), "no escapes")
	text, number := []byte(`"text"`), []byte(`-12345`)
	elements := make([]tuple.Element, 0, 4)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		dst = tuple.AppendInt(dst[:0], -123456)
		dst = tuple.AppendString(dst, "text")
		dst = tuple.AppendStringBytes(dst, []byte("a\x00b"))
		dst, _ = tuple.AppendJSON(dst, text)
		dst, _ = tuple.AppendJSON(dst, number)
		elements, _ = tuple.AppendElements(elements[:0], packed)
		for rest := packed; len(rest) > 0; {
			_, rest, _ = tuple.Next(rest)
		}
	}))
}
