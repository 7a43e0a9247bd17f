package materialize

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/reduce"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
)

// capturedSchema is what source-postgres discovers of a table of seven columns, as far as it matters here.
const capturedSchema = `{"type":"object","required":["id","_meta"],"properties":{
 "id":{"type":"integer"},"customer":{"type":["integer","null"]},"note":{"type":["string","null"]},"at":{"type":["string","null"]},
 "amount":{"type":["string","null"]},"tags":{},"ref":{"type":["string","null"]},
 "_meta":{"type":"object","required":["op","source"],"reduce":{"strategy":"merge"},"properties":{"op":{"enum":["c","u","d"]},
  "before":{"type":"object","reduce":{"strategy":"firstWriteWins"}},
  "source":{"type":"object","properties":{"ts_ms":{"type":"integer"},"schema":{"type":"string"},"table":{"type":"string"},"snapshot":{"type":"boolean"},"loc":{"type":"array"},"txid":{"type":"integer"}}}}}},
 "reduce":{"strategy":"merge"},
 "if":{"properties":{"_meta":{"properties":{"op":{"const":"d"}},"required":["op"]}},"required":["_meta"]},"then":{"reduce":{"strategy":"merge","delete":true}}}`

func capturedBinding(b *testing.B) *binding {
	b.Helper()
	shape, err := schema.Parse([]byte(capturedSchema))
	require.NoError(b, err)
	spec, err := specs.Collection(&pipeline.Collection{Name: "acme/t", Key: []string{"/id"}, Schema: []byte(capturedSchema)}, shape)
	require.NoError(b, err)
	plan, err := reduce.Compile([]byte(capturedSchema))
	require.NoError(b, err)
	bound, err := newBinding(0, &flowpb.MaterializationSpec_Binding{Collection: spec, FieldSelection: &flowpb.FieldSelection{
		Keys: []string{"id"}, Document: "flow_document",
		Values: []string{"_meta/op", "_meta/source/loc", "_meta/source/schema", "_meta/source/snapshot", "_meta/source/table", "_meta/source/ts_ms", "_meta/source/txid", "amount", "at", "customer", "note", "ref", "tags"},
	}}, &collection.Version{Number: 1, Spec: spec, Plan: plan}, nil)
	require.NoError(b, err)
	return bound
}

func capturedDocs(n int, op string) [][]byte {
	docs := make([][]byte, n)
	for i := range docs {
		docs[i] = fmt.Appendf(nil, `{"id":%d,"customer":%d,"note":"row number %d","at":"2020-01-01T00:%02d:%02dZ","amount":"%d.25","tags":{"n": %d, "tags": ["a", "b"]},`+
			`"ref":"c4ca4238-a0b9-2382-0dcc-509a6f75849b","_meta":{"op":%q,"source":{"ts_ms":1790000000000,"schema":"public","table":"rows","loc":[23456789,23456789,%d],"txid":%d}}}`,
			i, i%1000, i, i/60%60, i%60, i%1000, i, op, i, 1000+i)
	}
	return docs
}

// BenchmarkDocuments measures what a document costs between the log and the connector's input: gathered, perhaps reduced with
// what the destination has, and taken apart for its Store. One operation is one document, of transactions of 50,000.
func BenchmarkDocuments(b *testing.B) {
	const size = 50_000
	for _, loaded := range []bool{false, true} {
		b.Run(fmt.Sprintf("loaded=%t", loaded), func(b *testing.B) {
			bound, stored, docs := capturedBinding(b), capturedDocs(size, "c"), capturedDocs(size, "u")
			b.ReportAllocs()
			b.SetBytes(int64(len(docs[0])))
			var keys, values []byte
			x := newTransaction(1, &sync.Mutex{})
			before, _ := ratio.Usage(os.Getpid())
			for done := 0; done < b.N; done += size {
				x.reset()
				n := min(size, b.N-done)
				for _, doc := range docs[:n] {
					if _, err := x.add(bound, doc); err != nil {
						b.Fatal(err)
					}
				}
				if loaded {
					for _, doc := range stored[:n] {
						if err := x.loaded(bound, doc); err != nil {
							b.Fatal(err)
						}
					}
				}
				for _, e := range x.sorted() {
					var err error
					if keys, values, err = bound.appendRow(keys[:0], values[:0], frame.Proto, e.doc); err != nil {
						b.Fatal(err)
					}
				}
			}
			after, _ := ratio.Usage(os.Getpid())
			b.ReportMetric(float64(after.CPU-before.CPU)/float64(b.N), "cpu-ns/op")
		})
	}
}
