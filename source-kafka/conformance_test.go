package main

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/capturetest"
	"github.com/sluicedata/sluice/sdk/testkit/golden"
)

// What every connector owes the protocol, against a real broker: resuming after each checkpoint, stops, blocked output.
func TestConformance(t *testing.T) {
	t.Parallel()
	b := shared(t)
	b.create("conformance.orders", 1) // one partition: the suite wants a fixed order of each binding
	b.create("conformance.customers", 1, "cleanup.policy", "compact")
	var records []*kgo.Record
	for i := range 9000 {
		records = append(records, &kgo.Record{
			Topic: "conformance.orders", Value: fmt.Appendf(nil, `{"n":%d,"text":"%0300d"}`, i, i),
		})
	}
	for i := range 500 {
		records = append(records, &kgo.Record{
			Topic: "conformance.customers", Key: fmt.Appendf(nil, "c%d", i), Value: fmt.Appendf(nil, `{"n":%d}`, i),
		})
	}
	b.produce(records...)
	cfg := b.config("conformance.*")
	capturetest.Run(t, capturetest.Case{
		Connector: func() capture.Connector { return capture.New(source{}) },
		Config:    cfg,
		Documents: len(records),
		Scrub:     new(golden.Scrubber).Replace(`"ts_ms":\d+`, `"ts_ms":1`),
	})
}
