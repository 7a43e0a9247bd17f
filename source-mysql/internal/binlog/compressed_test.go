package binlog

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Values of compressed columns as MariaDB logs them, and what is none.
func TestCompressedValues(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("some text ", 100)
	deflated := func(open func(io.Writer) (io.WriteCloser, error)) string {
		var out bytes.Buffer
		w, err := open(&out)
		require.NoError(t, err)
		_, err = io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return out.String()
	}
	wrapped := deflated(func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil })
	bare := deflated(func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 5) })
	col := Column{Type: TypeBlob, Compressed: true}
	for logged, want := range map[string]string{"": "", "\x00": "", "\x00short": "short", "\x82\x03\xe8" + wrapped: text, "\x8a\x03\xe8" + bare: text} {
		got, err := col.value([]byte(logged))
		require.NoError(t, err)
		require.NotNil(t, got, "it is no null")
		require.Equal(t, want, string(got))
	}
	for logged, want := range map[string]string{
		"\x10abc":                        "a compressed value that begins with 0x10",
		"\x80":                           "a compressed value that begins with 0x80",
		"\x82\x03":                       "a compressed value that begins with 0x82",
		"\x82\x03\xe8" + bare:            "decompressing a compressed value: ",
		"\x82\x03\xe9" + wrapped:         "has 1000 bytes instead of 1001",
		"\x82\x03\xe7" + wrapped:         "has 1000 bytes instead of 999",
		"\x8a\x03\xe8" + bare[:5]:        "unexpected EOF",
		"\x84\x7f\xff\xff\xff" + wrapped: "a compressed value of 2147483647 bytes",
	} {
		_, err := col.value([]byte(logged))
		require.ErrorContains(t, err, want)
	}
	plain := Column{Type: TypeBlob}
	got, err := plain.value([]byte("\x10abc"))
	require.NoError(t, err)
	require.Equal(t, "\x10abc", string(got))
}
