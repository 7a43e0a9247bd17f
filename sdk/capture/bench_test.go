package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
)

// benchDocument is 250 bytes long, the size of a middling row.
var benchDocument = []byte(`{"id":1234567890,"customer":"0123456789abcdef0123456789abcdef","total":"1234.56","note":"` +
	`0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0","_meta":{"op":"c","source":{"ts_ms":1700000000000,"schema":"public","table":"orders","loc":1}}}`)

// flood is a reader that emits n documents in transactions of about a megabyte.
func flood(b *Binding[struct{}, int], n int) Reader {
	enc := func(dst []byte) ([]byte, error) { return append(dst, benchDocument...), nil }
	return ReaderFunc(func(_ context.Context, tx *Tx) error {
		for ; b.State < n; b.State++ {
			if tx.Size() > 1<<20 {
				return nil
			}
			if err := tx.Append(b, enc); err != nil {
				return err
			}
		}
		return io.EOF
	})
}

func openFlood(n int) *session {
	b := &Binding[struct{}, int]{}
	b.h = handle{index: 1, name: "orders", key: "orders", marshal: func() (json.RawMessage, error) { return []byte("{}"), nil }}
	return &session{reader: flood(b, n), bindings: []*handle{&b.h}, state: &document{}}
}

func BenchmarkPump(b *testing.B) {
	for name, f := range map[string]form{
		"proto": {codec: frame.Proto}, "json": {codec: frame.JSON}, "lines": {lines: true}, "named": {lines: true, named: true},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(benchDocument)))
			require.NoError(b, newPump(openFlood(b.N), f).run(b.Context(), &wireOutput{out: io.Discard}))
		})
	}
	b.Run("encoder alone", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(benchDocument)))
		buf := make([]byte, 0, 2<<20)
		for range b.N {
			if buf = append(buf, benchDocument...); len(buf) > 1<<20 {
				buf = buf[:0]
			}
		}
	})
}

// TestNoAllocations: a document costs no allocation, in any form; what a transaction costs is spread over thousands.
func TestNoAllocations(t *testing.T) {
	for name, f := range map[string]form{
		"proto": {codec: frame.Proto}, "json": {codec: frame.JSON}, "lines": {lines: true}, "named": {lines: true, named: true},
	} {
		t.Run(name, func(t *testing.T) {
			const docs = 100_000
			allocated := testing.AllocsPerRun(3, func() {
				require.NoError(t, newPump(openFlood(docs), f).run(t.Context(), &wireOutput{out: io.Discard}))
			})
			require.Less(t, allocated/docs, 0.01)
		})
	}
}

// BenchmarkPumpOverhead prints what the pump costs beyond the encoder: the best of several runs, for others share the
// machine. Run it with -benchtime 1x.
func BenchmarkPumpOverhead(b *testing.B) {
	const docs = 1_000_000
	for b.Loop() {
		pumped, encoded := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
		for range 7 {
			begin := time.Now()
			require.NoError(b, newPump(openFlood(docs), form{codec: frame.Proto}).run(b.Context(), &wireOutput{out: io.Discard}))
			pumped = min(pumped, time.Since(begin))
			begin = time.Now()
			buf := make([]byte, 0, 2<<20)
			for range docs {
				if buf = append(buf, benchDocument...); len(buf) > 1<<20 {
					buf = buf[:0]
				}
			}
			encoded = min(encoded, time.Since(begin))
		}
		nanos := float64(pumped-encoded) / docs
		b.ReportMetric(nanos, "ns/document")
		detail := fmt.Sprintf("ns a document of %d bytes, beyond its encoder", len(benchDocument))
		require.NoError(b, ratio.Print(os.Stdout, "sdk/pump", nanos, ratio.AtMost, 100, detail))
	}
}
