package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// The latency benchmarks write small transactions at this rate, and watch when their rows come out.
const (
	commitsPerSecond = 500
	measured         = 6000 // transactions
	ticking          = `CREATE TABLE ticks (id bigint PRIMARY KEY, customer integer, amount numeric(10,2), note text, at timestamptz)`
	firstTick        = `INSERT INTO ticks VALUES (0, 0, 0, '', now())`
)

// BenchmarkLatency measures the time from a commit in the source to its document on the standard output of source-postgres.
// The clock starts when the transaction is sent, so the server's own work is in it.
//
//	go test ./runtime/e2e -run '^$' -bench '^BenchmarkLatency$' -benchtime 1x
func BenchmarkLatency(b *testing.B) {
	bins := binaries(b)
	for b.Loop() {
		w := newWorldOn(b, bins, newSide(b, server.Postgres(b)), side{}, ticking, firstTick)
		seen := w.pull(b)
		run := newTicks()
		run.await(b, seen, 0)
		go run.write(b, w.source)
		for id := 1; id <= measured; id++ {
			run.await(b, seen, id)
		}
		run.report(b, "latency/document", map[float64]float64{0.5: 10, 0.99: 50})
	}
}

// BenchmarkLatencyThrough measures the time from a commit in the source to its row being visible in the destination of
// `sluice run`, seen by a session that asks again and again.
func BenchmarkLatencyThrough(b *testing.B) {
	bins := binaries(b)
	for b.Loop() {
		w := newWorldOn(b, bins, newSide(b, server.Postgres(b)), newSide(b, server.Postgres(b)), ticking, firstTick)
		w.discover(b)
		w.materialize(b, "e2e/latency", nil, nil)
		w.start(b)
		w.copy.prints(b, "1", "SELECT count(*) FROM ticks")
		run := newTicks()
		go run.write(b, w.source)
		run.poll(b, w.copy)
		run.report(b, "latency/row", map[float64]float64{0.5: 150})
		require.NoError(b, w.sluice.Stop())
	}
}

// ticks is one measurement: when each transaction was sent, and when it was seen.
type ticks struct {
	sent []atomic.Int64 // nanoseconds since began, by id
	seen []time.Duration
	zero time.Time
}

func newTicks() *ticks {
	return &ticks{sent: make([]atomic.Int64, measured+1), seen: make([]time.Duration, measured+1), zero: time.Now()}
}

// write sends the transactions, each at its time.
func (r *ticks) write(b *testing.B, source side) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), source.server.URL(source.database))
	if err != nil {
		b.Errorf("writing: %v", err)
		return
	}
	defer conn.Close(context.Background())
	begin := time.Now()
	for id := 1; id <= measured; id++ {
		due := begin.Add(time.Duration(id) * time.Second / commitsPerSecond)
		select {
		case <-b.Context().Done():
			return
		case <-time.After(time.Until(due)):
		}
		r.sent[id].Store(int64(time.Since(r.zero)))
		_, err := conn.Exec(b.Context(), "INSERT INTO ticks VALUES ($1, $2, $3::int / 100.0, 'a small transaction', now())", id, id%100, id)
		if err != nil {
			b.Errorf("writing: %v", err)
			return
		}
	}
}

func (r *ticks) arrived(id int) {
	r.seen[id] = time.Since(r.zero) - time.Duration(r.sent[id].Load())
}

// await reads documents until that of a transaction, which is the next one.
func (r *ticks) await(b *testing.B, documents *bufio.Scanner, id int) {
	b.Helper()
	require.True(b, documents.Scan(), "the capture ended before transaction %d: %v", id, documents.Err())
	r.arrived(id)
	var document struct{ ID int }
	require.NoError(b, json.Unmarshal(documents.Bytes(), &document))
	require.Equal(b, id, document.ID)
}

// poll asks the destination for the last row until all have been seen. Transactions commit in the order of their ids.
func (r *ticks) poll(b *testing.B, destination side) {
	b.Helper()
	conn := destination.connect(b)
	deadline := time.Now().Add(measured*time.Second/commitsPerSecond + arrival)
	for last := 0; last < measured; {
		require.True(b, time.Now().Before(deadline), "only %d of %d rows arrived", last, measured)
		var id int
		require.NoError(b, conn.QueryRow(b.Context(), "SELECT max(id) FROM ticks").Scan(&id))
		for ; last < id; last++ {
			r.arrived(last + 1)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// report prints the histogram and a line for each aim, in milliseconds by quantile.
func (r *ticks) report(b *testing.B, name string, aims map[float64]float64) {
	b.Helper()
	all := slices.Sorted(slices.Values(r.seen[1:]))
	quantile := func(q float64) float64 {
		return float64(all[min(len(all)-1, int(q*float64(len(all))))]) / float64(time.Millisecond)
	}
	fmt.Fprint(os.Stdout, "\n", histogram(name, all))
	detail := fmt.Sprintf("ms at %d commits/s; median %.2f, 90%% %.2f, 99%% %.2f, 99.9%% %.2f, most %.2f",
		commitsPerSecond, quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999), quantile(1))
	for _, q := range []float64{0.5, 0.99} {
		if aim, ok := aims[q]; ok {
			require.NoError(b, ratio.Print(os.Stdout, fmt.Sprintf("%s-p%g", name, q*100), quantile(q), ratio.AtMost, aim, detail))
		}
		b.ReportMetric(quantile(q), fmt.Sprintf("p%g-ms", q*100))
	}
}

// histogram draws sorted times, a line for each doubling.
func histogram(name string, sorted []time.Duration) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %d transactions\n", name, len(sorted))
	for edge := time.Millisecond; len(sorted) > 0; edge *= 2 {
		n, _ := slices.BinarySearch(sorted, edge)
		share := float64(n) / measured
		fmt.Fprintf(&out, "  < %5d ms %6d %5.1f %% %s\n", edge.Milliseconds(), n, 100*share, strings.Repeat("█", int(50*share+0.5)))
		sorted = sorted[n:]
	}
	return out.String()
}

// pull starts `source-postgres pull` with a state file and gives its standard output, a document a line.
func (w *world) pull(b *testing.B) *bufio.Scanner {
	b.Helper()
	config := filepath.Join(w.folder, "source.json")
	text, err := json.Marshal(w.source.login())
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(config, text, 0o600))
	cmd := exec.Command(w.bins.Path(launch.SourcePostgres), "pull", "--config", config, "--state", filepath.Join(w.folder, "state.json"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		go func() { _, _ = io.Copy(io.Discard, stdout) }()
		if err := cmd.Wait(); b.Failed() {
			b.Logf("source-postgres ended with %v:\n%s", err, stderr.Bytes())
		}
	})
	return bufio.NewScanner(stdout)
}

// The histogram counts every value once, in its line.
func TestHistogram(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	text := histogram("x", []time.Duration{0, ms / 2, ms, 3 * ms, 9 * ms})
	require.Equal(t, "x: 5 transactions", strings.SplitN(text, "\n", 2)[0])
	var counts []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); fields[0] == "<" {
			counts = append(counts, fields[1]+":"+fields[3])
		}
	}
	require.Equal(t, []string{"1:2", "2:1", "4:1", "8:0", "16:1"}, counts)
}
