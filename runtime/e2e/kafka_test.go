package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// kcat is a Kafka client that shares no code with ours.
type kcat struct{ program, brokers string }

func newKcat(t *testing.T, brokers string) kcat {
	t.Helper()
	program, err := exec.LookPath("kcat")
	if err != nil {
		need.Missing(t, "kcat is not on this machine; scripts/services install kafka installs it")
	}
	return kcat{program: program, brokers: brokers}
}

// produce writes lines of the form key:value.
func (k kcat) produce(ctx context.Context, topic string, lines ...string) error {
	cmd := exec.CommandContext(ctx, k.program, "-P", "-b", k.brokers, "-t", topic, "-K", ":", "-X", "enable.idempotence=true", "-X", "topic.metadata.refresh.interval.ms=500")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("writing with kcat: %w\n%s", err, out)
	}
	return nil
}

// consume reads a topic to its end: a line partition|offset|key|value for each record, sorted.
func (k kcat) consume(t *testing.T, topic string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), k.program, "-C", "-b", k.brokers, "-t", topic, "-o", "beginning", "-e", "-q", "-f", `%p|%o|%k|%s\n`)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return lines
}

// TestKafka captures a topic into a table and into Parquet files while records are written, and connectors, runtime and broker are
// killed. Afterwards both have what another client reads from the topic, each record once. Nobody said what is in the records: their
// members become columns as they come, and a column of integers holds a text when one comes.
func TestKafka(t *testing.T) {
	t.Parallel()
	bins := binaries(t)
	cluster := server.Kafka(t, kafkad.Options{Settings: map[string]string{"auto.create.topics.enable": "true", "num.partitions": "3"}})
	client := newKcat(t, cluster.Addresses())
	const topic = "payments"
	line := func(n int) string {
		more := `"odd":7`
		if n > 100 {
			more = fmt.Sprintf(`"odd":"seven","late":%d.5`, n)
		}
		return fmt.Sprintf(`k%d:{"n":%d,"text":"payment %d",%s}`, n, n, n, more)
	}
	require.NoError(t, client.produce(t.Context(), topic, line(0)))

	database := newSide(t, server.SharedPostgres(t))
	w := newWorldOn(t, bins, database, database)
	var err error
	w.catalog, err = launch.Discover(t.Context(), bins, launch.SourceKafka, "e2e/kafka",
		map[string]any{"bootstrapServers": cluster.Addresses(), "topics": map[string]any{"include": []string{topic}}}, w.folder)
	require.NoError(t, err)
	w.materialize(t, "e2e/table", nil, nil)
	lake := t.TempDir()
	require.NoError(t, w.catalog.Materialize("e2e/lake", launch.Parquet(bins, lake, "0s"), launch.IntoPath))
	w.start(t)

	ctx, stop := context.WithCancel(t.Context())
	var batches atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; ctx.Err() == nil; n += 50 {
			var lines []string
			for i := range 50 {
				lines = append(lines, line(n+i))
			}
			if client.produce(context.WithoutCancel(ctx), topic, lines...) == nil { // while the broker is down, some or all may be missing
				batches.Add(1)
			}
		}
	}()
	wait := func(more int64) {
		t.Helper()
		goal := batches.Load() + more
		eventually(t, 2*time.Minute, func() bool { return batches.Load() >= goal }, func() string { return fmt.Sprintf("%d of %d batches were written", batches.Load(), goal) })
	}
	wait(3)
	w.sluice.Kill()
	w.restart(t, launch.Options{})
	wait(3)
	_, err = w.sluice.KillConnector(t.Context(), launch.SourceKafka)
	require.NoError(t, err)
	wait(1)
	require.NoError(t, cluster.Kill(1))
	require.NoError(t, cluster.Start(t.Context(), 1))
	wait(3)
	stop()
	<-done

	want := strings.Join(client.consume(t, topic), "\n")
	row := `"_meta/partition" || '|' || "_meta/offset" || '|' || _key || '|{"n":' || n || ',"text":"' || text || '","odd":' || CAST(odd AS text) || COALESCE(',"late":' || late, '') || '}'`
	w.copy.prints(t, "bigint|text|double precision|jsonb", `SELECT string_agg(data_type, '|' ORDER BY array_position(ARRAY['n', 'text', 'late', 'odd'], column_name::text))
		FROM information_schema.columns WHERE table_name = '`+topic+`' AND column_name IN ('n', 'text', 'late', 'odd')`)
	w.copy.prints(t, want, `SELECT line FROM (SELECT `+row+` AS line FROM `+topic+`) AS lines ORDER BY line COLLATE "C"`)
	if _, err := duckdb.Find(); err == nil {
		files := "read_parquet('" + filepath.Join(lake, topic, "**", "*.parquet") + "', union_by_name = true)"
		got := ""
		eventually(t, arrival, func() bool {
			got = fmt.Sprint(duckdb.Query(t, "", `SELECT string_agg(line, chr(10) ORDER BY line) AS lines FROM (SELECT `+row+` AS line FROM `+files+`)`)[0]["lines"])
			return got == want
		}, func() string { return "the files hold\n" + got + "\ninstead of\n" + want })
	}
	require.NoError(t, w.sluice.Stop())
}
