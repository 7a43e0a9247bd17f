package main

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// What a column cannot hold is refused, in words that say what it would take; nothing is rounded, cut or replaced by a default.
func TestUnstorableValues(t *testing.T) {
	t.Parallel()
	text := func(s string) tuple.Element { return tuple.Element{Kind: tuple.String, Bytes: []byte(s)} }
	list := func(s string) tuple.Element { return tuple.Element{Kind: tuple.Bytes, Bytes: []byte(s)} }
	integer := func(v int64) tuple.Element { return tuple.Element{Kind: tuple.Int, Int: v} }
	number := func(f float64) tuple.Element { return tuple.Element{Kind: tuple.Float, Float: f} }
	ragged := "its parts are not of one length, as those of an array in Postgres must be, or one of them is empty"
	for _, c := range []struct {
		kind kind
		e    tuple.Element
		text string
	}{
		{kindInt2, number(32768), "it is not an integer between -32768 and 32767"},
		{kindInt4, text("2147483648"), "it is not an integer between -2147483648 and 2147483647"},
		{kindInt8, number(1.5), "it is not an integer between -9223372036854775808 and 9223372036854775807"},
		{kindFloat8, text("0.12345678901234567"), "it has more digits than a double can hold"},
		{kindFloat8, text("9007199254740993"), "it has more digits than a double can hold"},
		{kindFloat8, integer(9007199254740993), "it has more digits than a double can hold"},
		{kindFloat8, integer(-9007199254740993), "it has more digits than a double can hold"},
		{kindFloat8, tuple.Element{Kind: tuple.Uint, Uint: 18446744073709551615}, "it has more digits than a double can hold"},
		{kindFloat8, text("1e400"), "it is not a number"},
		{kindFloat4, number(1e39), "it is beyond the range of a real"},
		{kindTimetz, text("12:00:00"), "it is not a time of the form 15:04:05Z"},
		{kindTime, text("24:00:01Z"), "it is not a time of the form 15:04:05Z"},
		{kindInterval, text("1 day"), "it is not a duration of the form P1DT2H30M"},
		{kindInterval, text("PT2562047789H"), "it is not a duration of the form P1DT2H30M"},
		{kindInterval, text("P1.5D"), "it is not a duration of the form P1DT2H30M"},
		{kindInet, text("10.0.0"), "it is not an IP address, alone or with the length of a prefix"},
		{kindInet, text("fe80::1%eth0"), "it is not an IP address, alone or with the length of a prefix"},
		{kindCidr, text("10.0.0.1/8"), "it is not a network of the form 10.1.0.0/16, without bits behind the prefix"},
		{kindMacaddr, text("08:00:2b:01:02:03:04:05"), "it is not a hardware address of the length that the column holds"},
		{kindArray, list("[[1,2],[3]]"), ragged},
		{kindArray, list("[[1],2]"), ragged},
		{kindArray, list("[1,[2]]"), ragged},
		{kindArray, list("[[]]"), ragged},
		{kindArray, list("[[1],null]"), ragged},
		{kindArray, list(`[{"a":1}]`), "it contains an object"},
		{kindArray, list(`{"a":1}`), "it is not an array"},
	} {
		dst, err := encoderOf(c.kind, materialize.Field{}, false)([]byte("x"), c.e)
		require.EqualError(t, err, c.text, "%s of kind %d", c.e.Bytes, c.kind)
		require.Equal(t, "x", string(dst))
	}
	for k, c := range map[kind]struct{ value, text string }{
		kindText:        {"a\x00", "it contains a NUL character, which Postgres cannot store in a text"},
		kindTimestamptz: {"2024-01-01T00:00:00.0000001Z", "it is finer than a microsecond, so that two keys could become one"},
		kindTimestamp:   {"2024-01-01T00:00:00.0000001Z", "it is finer than a microsecond, so that two keys could become one"},
		kindTimetz:      {"12:00:00.0000001Z", "it is finer than a microsecond, so that two keys could become one"},
		kindTime:        {"12:00:00.0000001Z", "it is finer than a microsecond, so that two keys could become one"},
	} {
		dst, err := encoderOf(k, materialize.Field{}, true)([]byte("x"), text(c.value))
		require.EqualError(t, err, c.text)
		require.Equal(t, "x", string(dst))
		_, err = encoderOf(k, materialize.Field{}, false)(nil, text(c.value))
		require.NoError(t, err, "it need not be kept to the letter where it is no key")
	}
	_, err := encodeJSONText(nil, text(`{"a":`))
	require.EqualError(t, err, "it is not JSON, although its media type says so")
}

// The digits of a double, as sources write it, are an integer beyond 2⁵³ too, of which they are the shortest.
func TestLargeIntegersThatAreDoubles(t *testing.T) {
	t.Parallel()
	for _, v := range []int64{1 << 53, -1 << 53, 9007199254740994, 100000000000000020, 1000000000000000000, -1234567890123456800} {
		got, err := floatOf(tuple.Element{Kind: tuple.Int, Int: v})
		require.NoError(t, err)
		require.InDelta(t, float64(v), got, 0)
	}
}

// An encoder that takes a text says how long its value is, and one that does not leaves no trace.
func FuzzEncoders(f *testing.F) {
	for _, tc := range typeCases() {
		for _, v := range tc.values {
			f.Add(strings.Trim(v.in, `"`))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		for k := range kinds {
			for _, of := range []tuple.Kind{tuple.String, tuple.Bytes} {
				if of == tuple.Bytes && !json.Valid([]byte(text)) {
					continue
				}
				dst, err := encoderOf(kind(k), materialize.Field{}, false)([]byte("x"), tuple.Element{Kind: of, Bytes: []byte(text)})
				if err != nil {
					require.Equal(t, "x", string(dst))
					continue
				}
				require.Len(t, dst[5:], int(binary.BigEndian.Uint32(dst[1:])))
			}
		}
	})
}
