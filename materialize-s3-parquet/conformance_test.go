package main

import (
	"testing"

	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

func TestConformanceFolder(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, newFolderGround(t).sinkCase())
}

func TestConformanceBucket(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, newBucketGround(t).sinkCase())
}

func TestConformanceObjects(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, newObjectsGround(t).sinkCase())
}
