package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// A pull that is to catch up ends where the partitions ended, also behind aborted transactions and in empty partitions; the
// next one goes on there.
func TestPullCatchesUp(t *testing.T) {
	t.Parallel()
	b := shared(t)
	topic := b.topic(3)
	b.numbered(topic, 2, 0, 2000)
	producer, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	defer producer.Close()
	require.NoError(t, producer.BeginTransaction())
	require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Partition: 1, Value: []byte(`{"n":-1}`)}).FirstErr())
	require.NoError(t, producer.EndTransaction(t.Context(), kgo.TryAbort))
	config := filepath.Join(t.TempDir(), "c.json")
	require.NoError(t, os.WriteFile(config, session.Config(t, b.config(topic)), 0o600))
	state := filepath.Join(t.TempDir(), "state.json")
	pull := func() int { return strings.Count(catchUp(t, config, state), "\n") }
	require.Equal(t, 2000, pull())
	require.Zero(t, pull())
	b.numbered(topic, 2, 2000, 10)
	require.Equal(t, 10, pull())
}

// catchUp is what a pull that is to catch up prints.
func catchUp(t *testing.T, config, state string) string {
	t.Helper()
	var out, errs bytes.Buffer
	p := &process.Process{
		Name: "source-kafka", Args: []string{"pull", "--catch-up", "--config", config, "--state", state}, Stdin: strings.NewReader(""),
		Stdout: &out, Stderr: &errs, LookupEnv: func(string) (string, bool) { return "", false },
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	code := p.Run(ctx, func(ctx context.Context, p *process.Process) int { return capture.Run(ctx, p, connector()) })
	require.NoError(t, ctx.Err(), "it did not end: %s", errs.String())
	require.Zero(t, code, errs.String())
	require.NotContains(t, errs.String(), "was not reached")
	return out.String()
}

// A partition whose offset is refused on the way has a place anew, and is captured up to its end.
func TestPullCatchesUpWithRefusedOffsets(t *testing.T) {
	t.Parallel()
	cluster, b := faulty(t, "t")
	b.numbered("t", 2, 0, 10)
	cfg := b.config("t")
	cfg.Advanced.SkipSamples = true
	config := filepath.Join(t.TempDir(), "c.json")
	require.NoError(t, os.WriteFile(config, session.Config(t, cfg), 0o600))
	refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Partitions: []int32{1}, Count: 2, Err: kerr.OffsetOutOfRange})
	require.Equal(t, 10, strings.Count(catchUp(t, config, filepath.Join(t.TempDir(), "state.json")), "\n"))
	require.Positive(t, refused.Hits())
}

// What is behind, and what is not.
func TestReached(t *testing.T) {
	t.Parallel()
	had := &partition{position: &position{Next: 7}}
	for name, c := range map[string]struct {
		latest  bool
		topic   topic
		ends    map[*partition]int64
		reached bool
	}{
		"captured to its end":                {false, topic{found: true, partitions: map[int32]*partition{0: had}}, map[*partition]int64{had: 7}, true},
		"not captured to its end":            {false, topic{found: true, partitions: map[int32]*partition{0: had}}, map[*partition]int64{had: 8}, false},
		"an end that is not known":           {false, topic{found: true, partitions: map[int32]*partition{0: had}}, nil, false},
		"no leader":                          {false, topic{found: true, waiting: map[int32]bool{1: true}}, nil, false},
		"no leader, begins at its end":       {true, topic{found: true, waiting: map[int32]bool{1: true}}, nil, true},
		"no leader, came later":              {true, topic{found: true, waiting: map[int32]bool{2: true}}, nil, false},
		"no leader, captured in part":        {true, topic{found: true, waiting: map[int32]bool{0: true}}, nil, false},
		"not told of":                        {false, topic{}, nil, false},
		"not there":                          {false, topic{gone: true}, nil, true},
		"none of its partitions falls to us": {false, topic{found: true}, nil, true},
	} {
		c.topic.binding = &binding{State: state{Began: &beginning{Partitions: 2}, Partitions: map[string]*position{"0": had.position}}}
		r := &reader{cluster: cluster{begin: start{latest: c.latest}}, goal: goal{ends: c.ends}}
		require.Equal(t, c.reached, r.reached(&c.topic), name)
	}
}
