package main

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// benchTypes are what encoders are measured with.
func benchTypes(tb testing.TB, oids ...uint32) []*dataType {
	tb.Helper()
	catalog := newTypeCatalog(lossless{})
	out := make([]*dataType, len(oids))
	for i, oid := range oids {
		t, ok := catalog.lookup(oid)
		require.True(tb, ok, oid)
		out[i] = t
	}
	return out
}

// encodeRow measures one row of the given types; the first column is the key.
func encodeRow(b *testing.B, types []*dataType, vals [][]byte, scanned bool) {
	b.Helper()
	names := make([]string, len(types))
	bytes := 0
	for i := range names {
		names[i] = fmt.Sprintf("column_%02d", i)
		bytes += len(vals[i])
	}
	plan := newRowPlan(cdc.TableID{Schema: "public", Name: "t"}, names[:1], names, types, scanned)
	dst := make([]byte, 0, 1<<16)
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	for b.Loop() {
		out, err := plan.shape.AppendFields(dst, vals, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err = plan.appendKey(out, vals); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodeWide encodes a row of fifty columns: integers, floats, texts, timestamps, numerics, UUIDs and jsonb.
func BenchmarkEncodeWide(b *testing.B) {
	be64 := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	group := []struct {
		oid          uint32
		text, binary []byte
	}{
		{20, []byte("1234567890123"), be64(1234567890123)},
		{23, []byte("123456"), binary.BigEndian.AppendUint32(nil, 123456)},
		{25, []byte("some text of an ordinary length, 42"), []byte("some text of an ordinary length, 42")},
		{1184, []byte("2024-02-29 12:34:56.789012+00"), be64(762525296789012)},
		{1700, []byte("12345.67"), []byte("12345.67")},
		{701, []byte("3.141592653589793"), []byte("3.141592653589793")},
		{2950, []byte("00112233-4455-6677-8899-aabbccddeeff"), make([]byte, 16)},
		{3802, []byte(`{"a": 1, "b": "value 1", "c": true}`), []byte(`{"a": 1, "b": "value 1", "c": true}`)},
		{1082, []byte("2024-02-29"), binary.BigEndian.AppendUint32(nil, 8825)},
		{16, []byte("t"), []byte("t")},
	}
	for _, scanned := range []bool{false, true} {
		var (
			oids []uint32
			vals [][]byte
		)
		for range 5 {
			for _, c := range group {
				oids = append(oids, c.oid)
				if scanned {
					vals = append(vals, c.binary)
				} else {
					vals = append(vals, c.text)
				}
			}
		}
		b.Run(map[bool]string{false: "stream", true: "scan"}[scanned], func(b *testing.B) {
			encodeRow(b, benchTypes(b, oids...), vals, scanned)
		})
	}
}

// BenchmarkEncodeArrays encodes a row of arrays and a jsonb value.
func BenchmarkEncodeArrays(b *testing.B) {
	list := func(n int, value string) []byte { return []byte("{" + strings.Repeat(value+",", n-1) + value + "}") }
	types := benchTypes(b, 20, 1016, 1009, 1009, 1022, 1185, 3807, 1007, 3802)
	vals := [][]byte{
		[]byte("17"),
		list(32, "1234567890"),
		list(16, "plain"),
		list(16, `"with \"quotes\" and \\ in it"`),
		list(16, "3.141592653589793"),
		list(8, `"2024-02-29 12:34:56.789012+00"`),
		list(4, `"{\"a\": 1, \"b\": [1, 2, 3], \"c\": \"text\"}"`),
		[]byte("{{1,2,3,4},{5,6,7,8},{9,10,11,12}}"),
		[]byte(`{"a": 1, "b": {"c": [1, 2, 3, {"d": "some text with \"quotes\""}]}, "e": "` + strings.Repeat("x", 200) + `"}`),
	}
	encodeRow(b, types, vals, false)
}
