package capture_test

import (
	"testing"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/capturetest"
	"github.com/sluicedata/sluice/sdk/testkit/golden"
)

func TestConformance(t *testing.T) {
	schema.CheckConfig[config](t)
	schema.CheckConfig[resource](t)
	capturetest.Run(t, capturetest.Case{
		Connector: func() capture.Connector { return capture.New(source{}) },
		Config:    config{Rate: 2000},
		Documents: 30,
		Scrub:     new(golden.Scrubber).Times(),
	})
}
