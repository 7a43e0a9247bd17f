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
	"github.com/twmb/franz-go/pkg/kgo"

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
	pull := func() int {
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
		return strings.Count(out.String(), "\n")
	}
	require.Equal(t, 2000, pull())
	require.Zero(t, pull())
	b.numbered(topic, 2, 2000, 10)
	require.Equal(t, 10, pull())
}
