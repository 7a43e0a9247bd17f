package engine

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/kafkalog"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// process is one of those that share a pipeline in a test.
type process struct {
	log   *logBuffer
	stop  context.CancelFunc
	ended chan error
}

// begin starts a process of the rig's pipeline, with a data folder of its own.
func (r *rig) begin(name string, p *pipeline.Pipeline, join bool) *process {
	ctx, stop := context.WithCancel(r.t.Context())
	one := &process{log: &logBuffer{}, stop: stop, ended: make(chan error, 1)}
	o := r.defaults()
	logger := logrus.New()
	logger.SetOutput(one.log)
	o.Pipeline, o.Join, o.DataDir, o.Logger = p, join, filepath.Join(r.dir, name), logger
	go func() { one.ended <- Run(ctx, o) }()
	r.t.Cleanup(func() {
		stop()
		if r.t.Failed() {
			r.t.Logf("%s logged: %.5000s", name, one.log)
		}
	})
	return one
}

const has = "this process runs the task now"

// has waits until the process has run as many tasks.
func (p *process) has(t *testing.T, tasks int) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Count(p.log.String(), has) >= tasks }, patience, time.Millisecond, "no %d tasks in %s", tasks, p.log)
}

func (p *process) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(patience):
		require.FailNow(t, "the process goes on", "%.5000s", p.log)
		return nil
	}
}

// places are the processes that run the tasks, as anybody can ask.
func (r *rig) places() (processes []string) {
	log, err := kafkalog.Open(r.t.Context(), kafkalog.Options{Kafka: r.p.Kafka, Log: logrus.NewEntry(logrus.New()), ReadOnly: true})
	require.NoError(r.t, err)
	places, err := log.Places(r.t.Context())
	require.NoError(r.t, err)
	require.NoError(r.t, log.Close())
	for _, p := range places {
		processes = append(processes, p.Process)
	}
	return processes
}

// TestJoin: processes share the tasks of a pipeline; those of one that stops go to the others; one with a changed file ends those that have another; and one that
// does not share ends all. What is stored counts once throughout.
func TestJoin(t *testing.T) {
	t.Parallel()
	r := newRig(t, frame.Proto, fakeConfig{Total: 900, Batch: 3, Keys: 30, Paced: true})
	r.p.Kafka = testKafka(t)
	r.sink("one", "atomic", frame.Proto, fakeConfig{})
	r.sink("two", "staged", frame.Proto, fakeConfig{})
	r.sink("three", "staged", frame.Proto, fakeConfig{})
	first := r.begin("first", r.p, true)
	first.has(t, 4)
	second := r.begin("second", r.p, true)
	second.has(t, 2)
	require.Eventually(t, func() bool { rows, _ := r.rows("one"); return len(rows) > 0 }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return !slices.Contains(r.places(), "") }, patience, 10*time.Millisecond)
	first.stop()
	require.NoError(t, first.end(t))
	second.has(t, 4)

	changed := *r.p
	source := *r.p.Captures[0]
	source.Interval /= 2
	changed.Captures = []*pipeline.Capture{&source}
	third := r.begin("third", &changed, true)
	err := second.end(t)
	require.ErrorIs(t, err, wal.ErrFenced)
	require.Contains(t, usererr.Message(err), "another sluice run has joined the pipeline on kafka://")
	require.Contains(t, usererr.Message(err), "with a changed file")
	third.has(t, 4)

	alone := r.begin("alone", &changed, false)
	err = third.end(t)
	require.ErrorIs(t, err, wal.ErrFenced)
	require.Contains(t, usererr.Message(err), "another sluice run has taken over this pipeline")
	for _, name := range []string{"one", "two", "three"} {
		r.wait(name)
		r.same(name)
	}
	alone.stop()
	require.NoError(t, alone.end(t))
	require.Equal(t, []string{"", "", "", ""}, r.places(), "nobody shares the tasks any more")
	for _, p := range []*process{first, second, third, alone} {
		require.NotContains(t, p.log.String(), "level=error")
	}
}
