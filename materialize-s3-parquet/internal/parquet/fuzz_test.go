package parquet

import (
	"io"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// What is taken for a point in time is the one that the standard library reads, to the microsecond.
func FuzzTimestamp(f *testing.F) {
	for _, seed := range []string{"2024-02-29T23:59:59.999999Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "1969-12-31T00:00:00.1-00:01", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00.Z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		micros, err := parseTimestamp([]byte(text))
		if err != nil {
			return
		}
		// The library refuses leap seconds and small letters.
		plain := strings.ToUpper(strings.Replace(text, " ", "T", 1))
		leap := strings.Contains(plain, ":60") && plain[17:19] == "60"
		if leap {
			plain = plain[:17] + "59" + plain[19:]
			micros -= microsPerSecond
		}
		want, err := time.Parse(time.RFC3339Nano, plain)
		require.NoError(t, err, text)
		require.Equal(t, want.UnixMicro(), micros, text)
	})
}

// What is taken for a decimal is that number exactly.
func FuzzDecimal(f *testing.F) {
	for _, seed := range []string{"0", "-12.340", "1e10", "123456789012345678901234567890.12345678", ".5", "5.", "00.00e5", "-1E-8", "99999999999999999999999999999999999999"} {
		f.Add(seed)
	}
	const digits, scale = 38, 8
	number := regexp.MustCompile(`^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?$`)
	f.Fuzz(func(t *testing.T, text string) {
		n, err := decimalOf(&tuple.Element{Kind: tuple.String, Bytes: []byte(text)}, digits, scale)
		if err != nil {
			return
		}
		require.Regexp(t, number, text)
		want, ok := new(big.Rat).SetString(text)
		require.True(t, ok, text)
		got := new(big.Int).Sub(new(big.Int).SetBytes(n.appendBytes(nil)), twos(n))
		require.Zero(t, want.Cmp(new(big.Rat).SetFrac(got, new(big.Int).Exp(big.NewInt(10), big.NewInt(scale), nil))), "%s is not %s", text, got)
	})
}

// Whatever a value is, every kind of column takes it or says why not; and what was taken can be written.
func FuzzValues(f *testing.F) {
	for _, c := range types() {
		f.Add([]byte(c.value))
	}
	f.Add([]byte(`[[1],{"a":"]"},null,"\u0000"]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		packed, err := tuple.AppendJSON(nil, text)
		if err != nil {
			return
		}
		e, _, err := tuple.Next(packed)
		require.NoError(t, err)
		for _, c := range types() {
			s := selection([]materialize.Field{keyField("id", "integer")}, c.field)
			plan, err := Plan(s)
			require.NoError(t, err)
			w, err := NewWriter(io.Discard, plan, Options{Compression: "none"})
			require.NoError(t, err)
			row := &materialize.Row{Key: []tuple.Element{{Kind: tuple.Int}}, Values: []tuple.Element{e}, Doc: text}
			if w.Append(row) == nil {
				require.NoError(t, w.Close(), "%s %s", c.field.Name, text)
			}
		}
	})
}
