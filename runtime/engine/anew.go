package engine

import (
	"context"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/capture"
	"github.com/sluicedata/sluice/runtime/pipeline"
)

// beginnings says of each collection that is about to be captured anew when its new beginning has been marked in the log.
// A materialization which begins to read it before that would replay what the new backfill is there to replace, and keep
// the rows that were deleted in between.
type beginnings map[string][]<-chan struct{}

// expect notes the collections that the capture is about to begin anew. It is called before any task runs.
func (b beginnings) expect(task *capture.Task) error {
	collections, err := task.Raised()
	if err != nil || len(collections) == 0 {
		return err
	}
	marked := make(chan struct{})
	task.OnApplied = sync.OnceFunc(func() { close(marked) })
	for _, c := range collections {
		b[c] = append(b[c], marked)
	}
	return nil
}

// wait returns true once all that the materialization reads has its beginning, and false if ctx ends before.
func (b beginnings) wait(ctx context.Context, def *pipeline.Materialization, log *logrus.Entry) bool {
	for _, binding := range def.Bindings {
		for _, marked := range b[binding.Source] {
			log.WithField("collection", binding.Source).Info("waiting for the capture that begins this collection anew")
			select {
			case <-marked:
			case <-ctx.Done():
				return false
			}
		}
	}
	return true
}
