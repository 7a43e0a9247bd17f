package main

import (
	"testing"

	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, newDatabase(t).sinkCase())
}
