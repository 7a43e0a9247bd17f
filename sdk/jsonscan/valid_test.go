package jsonscan_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// A document as captures hand them over.
const row = `{"_meta":{"op":"c","source":{"schema":"public","table":"rows","loc":[11259375,11259999,0]}},"id":1234567,"amount":"99.25",` +
	`"at":"2020-01-01T00:00:00.123456Z","data":{"n":1234567,"tags":["a","b"]},"label":"a row with \"quotes\" and \u00fcmlauts","ref":null,"small":-1.5e3}`

// The same without anything that must be looked at closely.
const plainRow = `{ "id" : 1234567,"amount": "99.25","at":"2020-01-01T00:00:00.123456Z","data":{"n":1234567,"tags":["a","b", ""] }, "ref":null}`

func texts() []string {
	out := []string{
		row, plainRow, "", " ", "nul", "null", "nulls", " true ", "tru", "false", "1", "-", "-0", "01", "-01", "0.5", "0.", ".5", "1e", "1e+", "1E-07", "1.5e+10", "+1",
		"--1", "1 2", `"`, `""`, `"\"`, `"\\"`, `"\u12"`, `"\u12fG"`, `"\uABcd"`, `"\x"`, "\"a\nb\"", "\"\x7f\"", "\"\xff\xfe\"", "[", "[]", "[ ]", "[,]", "[1,]", "[1 2]",
		"[1,2]", "{", "{}", "{ }", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`, `{"a":1,"b":[{}]}`, `{a:1}`, `{1:1}`, "\v1", "\ufeff1", "[\t\r\n 1 , 2 ]", "]", "}", "\x00",
		"\"\\", "{\"a\":1", "[1", "{\"a\"", "{\"a\":", `{"a":1}x`,
	}
	for _, depth := range []int{9999, 10000, 10001} {
		out = append(out, strings.Repeat("[", depth)+strings.Repeat("]", depth),
			strings.Repeat(`{"a":`, depth)+"1"+strings.Repeat("}", depth))
	}
	for at := range 20 { // strings are looked at in pieces of eight bytes
		for _, c := range []byte{0, 1, 0x1f, ' ', '!', '"', '#', '\\', 0x7f, 0x80, 0x9f, 0xa0, 0xa2, 0xdc, 0xff} {
			out = append(out, `"`+strings.Repeat("x", at)+string([]byte{c})+strings.Repeat("y", 20-at)+`"`, `"`+strings.Repeat("\xa0", at)+string([]byte{c, c - 1})+`"`)
		}
	}
	for _, row := range []string{row, plainRow} {
		for i := range len(row) { // cut and broken everywhere
			out = append(out, row[:i], row[:i]+"\""+row[i:], row[:i]+row[i+1:])
		}
	}
	return out
}

func TestValidAgreesWithEncodingJSON(t *testing.T) {
	t.Parallel()
	for _, text := range texts() {
		require.Equal(t, json.Valid([]byte(text)), jsonscan.Valid([]byte(text)), "%.100q", text)
	}
}

func TestIsPlain(t *testing.T) {
	t.Parallel()
	for length := range 70 { // texts are looked at in pieces of 32 and of eight bytes
		require.True(t, jsonscan.IsPlain([]byte(strings.Repeat(" ~", length))))
		for at := range length {
			for c := range 256 {
				text := []byte(strings.Repeat("x", length))
				text[at] = byte(c)
				require.Equal(t, c >= ' ' && c < 0x80 && c != '\\', jsonscan.IsPlain(text), "%q", text)
			}
		}
	}
}

func FuzzValid(f *testing.F) {
	for _, text := range texts() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		require.Equal(t, json.Valid(text), jsonscan.Valid(text), "%q", text)
	})
}

func BenchmarkValid(b *testing.B) {
	for name, valid := range map[string]func([]byte) bool{"ours": jsonscan.Valid, "encoding/json": json.Valid} {
		for kind, text := range map[string]string{"escapes": row, "plain": plainRow} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					if !valid([]byte(text)) {
						b.Fatal("not valid")
					}
				}
			})
		}
	}
}
