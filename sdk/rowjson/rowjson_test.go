package rowjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// TestStringsAreWhatGoReadsBack puts every byte at every place of strings around the length of a word.
func TestStringsAreWhatGoReadsBack(t *testing.T) {
	t.Parallel()
	for c := range 256 {
		for length := range 18 {
			for at := range length {
				s := []byte(strings.Repeat("x", length))
				s[at] = byte(c)
				requireString(t, s)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.OneOf(
			rapid.StringN(0, 20, -1), rapid.SampledFrom([]string{"\xff", "\xc3", "\xe2\x82", "é", "\\", "\"", "\u2028", "<>&", "\x00", "\x7f"}),
		)).Draw(t, "parts")
		requireString(t, []byte(strings.Join(parts, "")))
	})
}

func requireString(t require.TestingT, s []byte) {
	all := rowjson.AppendString([]byte("before"), s)
	text := all[len("before"):]
	var got string
	err := json.Unmarshal(text, &got)
	oneLine := bytes.IndexFunc(text, func(r rune) bool { return r < ' ' }) < 0
	same := string(text) == string(rowjson.AppendText(nil, string(s)))
	strict, valid := rowjson.AppendUTF8([]byte("before"), s)
	same = same && valid == utf8.Valid(s) && (valid && string(strict) == string(all) || !valid && string(strict) == "before")
	if err != nil || got != string([]rune(string(s))) || !utf8.Valid(all) || !oneLine || !same || string(all[:6]) != "before" {
		t.Errorf("%q gave %s: %v", s, all, err)
		t.FailNow()
	}
}

func TestEscapes(t *testing.T) {
	t.Parallel()
	require.Equal(t, `"\"\\\n\t\r\b\f\u0000\u001f/<é😀"`, string(rowjson.AppendText(nil, "\"\\\n\t\r\b\f\x00\x1f/<é😀")))
	require.Equal(t, "\"a\ufffdb\"", string(rowjson.AppendText(nil, "a\xffb")))
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for want, got := range map[string][]byte{
		"-9223372036854775808":  rowjson.AppendInt(nil, math.MinInt64),
		"18446744073709551615":  rowjson.AppendUint(nil, math.MaxUint64),
		"0.1":                   rowjson.AppendFloat(nil, float64(float32(0.1)), 32),
		"0.10000000149011612":   rowjson.AppendFloat(nil, float64(float32(0.1)), 64),
		"1e+21":                 rowjson.AppendFloat(nil, 1e21, 64),
		"100000000000000000000": rowjson.AppendFloat(nil, 1e20, 64),
		"1e-07":                 rowjson.AppendFloat(nil, 1e-7, 64),
		"-0":                    rowjson.AppendFloat(nil, math.Copysign(0, -1), 64),
		`"NaN"`:                 rowjson.AppendFloat(nil, math.NaN(), 64),
		`"Infinity"`:            rowjson.AppendFloat(nil, math.Inf(1), 64),
		`"-Infinity"`:           rowjson.AppendFloat(nil, math.Inf(-1), 64),
		"true":                  rowjson.AppendBool(nil, true),
		"null":                  rowjson.AppendNull(nil),
		`"AQL/"`:                rowjson.AppendBase64(nil, []byte{1, 2, 255}),
	} {
		require.Equal(t, want, string(got))
	}
	uuid, err := rowjson.AppendUUID(nil, []byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"))
	require.NoError(t, err)
	require.Equal(t, `"00112233-4455-6677-8899-aabbccddeeff"`, string(uuid))
	_, err = rowjson.AppendUUID(nil, []byte("short"))
	require.EqualError(t, err, "encoding a UUID: it has 5 bytes, not 16")
}

// Numbers of few digits behind the point, which are written without strconv, are what it writes; so are those that nearly are.
func TestFloatsAreShortest(t *testing.T) {
	t.Parallel()
	requireFloat := func(v float64) {
		if format := byte('f'); v == 0 || math.Abs(v) >= 1e-6 && math.Abs(v) < 1e21 {
			require.Equal(t, strconv.FormatFloat(v, format, -1, 64), string(rowjson.AppendFloat(nil, v, 64)))
		}
	}
	for n := -20_000; n <= 20_000; n++ {
		requireFloat(float64(n) / 1000)
		requireFloat(float64(n) / 100)
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(-2e15, 2e15).Draw(t, "thousandths")
		v := float64(n) / 1000
		requireFloat(v)
		requireFloat(math.Nextafter(v, math.Inf(1)))
		requireFloat(math.Nextafter(v, math.Inf(-1)))
		requireFloat(float64(n))
		requireFloat(rapid.Float64().Draw(t, "any"))
	})
}

func TestUUIDs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		got, err := rowjson.AppendUUID([]byte("before"), b)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf(`before"%x-%x-%x-%x-%x"`, b[:4], b[4:6], b[6:8], b[8:10], b[10:]), string(got))
	})
}

func textShape() *rowjson.Shape[[]byte] {
	text := func(dst, v []byte) ([]byte, error) {
		if string(v) == "bad" {
			return append(dst, "half"...), errors.New("no")
		}
		return rowjson.AppendString(dst, v), nil
	}
	return rowjson.New([]string{"z", "a \"quoted\"", "m"}, []rowjson.Encoder[[]byte]{text, text, text})
}

func TestShape(t *testing.T) {
	t.Parallel()
	shape := textShape()
	isNil := func(v []byte) bool { return v == nil }
	for want, vals := range map[string][]string{
		`"a \"quoted\"":"2","m":"3","z":"1"`: {"1", "2", "3"},
		`"m":"3","z":"1"`:                    {"1", "", "3"},
		`"z":"1"`:                            {"1", "", ""},
		``:                                   {"", "", ""},
	} {
		var row [][]byte
		for _, v := range vals {
			if v == "" {
				row = append(row, nil)
				continue
			}
			row = append(row, []byte(v))
		}
		got, err := shape.AppendFields([]byte("{"), row, isNil)
		require.NoError(t, err)
		require.Equal(t, "{"+want, string(got))
	}

	got, err := shape.AppendFields([]byte("{"), [][]byte{[]byte("1"), []byte("2"), []byte("bad")}, nil)
	require.EqualError(t, err, `encoding column "m": no`)
	require.Equal(t, "{", string(got))
	_, err = shape.AppendFields(nil, [][]byte{[]byte("1")}, nil)
	require.EqualError(t, err, `encoding column "a \"quoted\"": the row has only 1 values`)
	require.Panics(t, func() { rowjson.New([]string{"a"}, []rowjson.Encoder[int]{}) })

	number := func(dst []byte, v int) ([]byte, error) { return rowjson.AppendInt(dst, int64(v)), nil }
	got, err = rowjson.New([]string{"b", "secret", "a"}, []rowjson.Encoder[int]{number, nil, number}).AppendFields(nil, []int{1, 2, 3}, nil)
	require.NoError(t, err)
	require.Equal(t, `"a":3,"b":1`, string(got))
}

func TestNoAllocations(t *testing.T) {
	shape := textShape()
	row := [][]byte{[]byte("1"), []byte("a longer text with \"quotes\" and é"), []byte("3")}
	dst := make([]byte, 0, 1024)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		dst, _ = shape.AppendFields(dst[:0], row, nil)
		dst = rowjson.AppendFloat(dst, 1.5, 64)
		dst = rowjson.AppendText(dst, "text")
	}))
}

func BenchmarkAppendString(b *testing.B) {
	for name, s := range map[string]string{
		"ascii 16":    "0123456789abcdef",
		"ascii 250":   strings.Repeat("0123456789", 25),
		"quotes 250":  strings.Repeat("01234\"6789", 25),
		"german 250":  strings.Repeat("Grüße an ", 25),
		"russian 250": strings.Repeat("привет ", 20),
	} {
		b.Run(name, func(b *testing.B) {
			text, dst := []byte(s), make([]byte, 0, 1024)
			b.ReportAllocs()
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				dst = rowjson.AppendString(dst[:0], text)
			}
		})
	}
}
