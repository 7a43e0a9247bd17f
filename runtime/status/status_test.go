package status

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// board is one at a fixed time, with a task of each kind.
func board() (*Board, *Task, *Task, *time.Time) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := NewBoard()
	b.now = func() time.Time { return now }
	m, c := b.Task(Materialization, "acme/warehouse"), b.Task(Capture, "acme/source")
	return b, c, m, &now
}

func TestTable(t *testing.T) {
	t.Parallel()
	b, c, m, now := board()
	sampler := b.Sampler()
	orders := c.Binding("public.orders", "acme/orders")
	c.Set(Running)
	orders.Phase(Backfill)
	orders.Count(1_234_567, 98_765_432)
	c.Checkpoint(3)
	stored := m.Binding("orders", "acme/orders")
	stored.Count(1000, 50_000)
	stored.Backlog(2_500_000)
	stored.Behind(*now)
	m.Fail("the password is wrong\nfor warehouse")
	m.Fail("the password is wrong\nfor warehouse")
	*now = now.Add(90 * time.Second)
	s := &Snapshot{PID: 7, Pipeline: "p.yaml", Started: now.Add(-2 * time.Hour), Updated: *now, Tasks: sampler.Sample()}
	require.Equal(t, strings.TrimSpace(`
sluice · p.yaml · running for 2h00m
                                PHASE     DOCUMENTS  RATE/s    BYTES    LAG  WAITING
capture acme/source             running
  public.orders                 backfill  1,234,567  13,717  98.8 MB   0 ms
materialization acme/warehouse  failing
  orders                                      1,000      11  50.0 kB  1m30s   2.5 MB
  ! the password is wrong for warehouse (2 times)`), strings.Join(Table(s, *now, 0), "\n"))

	m.Set(Running)
	require.NotEmpty(t, b.Snapshot()[1].Problem, "it stays until the task works")
	m.Checkpoint(1)
	require.Empty(t, b.Snapshot()[1].Problem)
	stored.Behind(time.Time{})
	stored.Delay(250 * time.Millisecond)
	require.InDelta(t, 0.25, b.Snapshot()[1].Bindings[0].LagSeconds, 0.001)
	require.True(t, orders.Named("public/orders"))
	for _, line := range Table(s, now.Add(time.Minute), 30) {
		require.LessOrEqual(t, len([]rune(line)), 30)
	}
	require.Contains(t, Table(s, now.Add(time.Minute), 0)[0], "NOT RUNNING: last seen 1m00s ago as process 7")
	s.Ended = true
	require.Contains(t, Table(s, now.Add(time.Minute), 0)[0], "stopped 1m00s ago")
}

func TestTableOfPlaces(t *testing.T) {
	t.Parallel()
	places := []Place{{"capture acme/source", "one-17"}, {"materialization acme/warehouse 1/2", "two-4"}, {"materialization acme/warehouse 2/2", ""}}
	want := strings.TrimSpace(`
TASK                                RUNS ON
capture acme/source                 one-17
materialization acme/warehouse 1/2  two-4
materialization acme/warehouse 2/2  nobody: it moves to another process, or no process runs`)
	require.Equal(t, "sluice · p.yaml · not run with this data folder\n"+want, strings.Join(Table(&Snapshot{Pipeline: "p.yaml", Places: places}, time.Now(), 0), "\n"))
	now := time.Now()
	whole := strings.Join(Table(&Snapshot{PID: 7, Pipeline: "p.yaml", Started: now, Updated: now, Places: places}, now, 0), "\n")
	require.True(t, strings.HasSuffix(whole, "\n\n"+want), whole)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	b, c, m, _ := board()
	c.Binding("public.orders", "acme/orders").Count(5, 100)
	c.Checkpoint(2)
	m.Fail("no")
	m.Binding("orders", "acme/orders").Backlog(77)
	require.NoError(t, testutil.CollectAndCompare(NewCollector(b), strings.NewReader(`
# HELP sluice_documents_total Documents that were committed, since the process started.
# TYPE sluice_documents_total counter
sluice_documents_total{binding="orders",collection="acme/orders",kind="materialization",task="acme/warehouse"} 0
sluice_documents_total{binding="public.orders",collection="acme/orders",kind="capture",task="acme/source"} 5
# HELP sluice_lag_bytes Bytes in the log that a materialization has not committed yet; of a capture, bytes of the source's log that it has not read yet, for each binding the same.
# TYPE sluice_lag_bytes gauge
sluice_lag_bytes{binding="orders",collection="acme/orders",kind="materialization",task="acme/warehouse"} 77
sluice_lag_bytes{binding="public.orders",collection="acme/orders",kind="capture",task="acme/source"} 0
# HELP sluice_task_failing 1 while a task waits for its next start after a failure.
# TYPE sluice_task_failing gauge
sluice_task_failing{kind="capture",task="acme/source"} 0
sluice_task_failing{kind="materialization",task="acme/warehouse"} 1
`), "sluice_documents_total", "sluice_lag_bytes", "sluice_task_failing"))
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := ReadFile(dir)
	require.Contains(t, usererr.Message(err), "no sluice run has used it yet")
	b, c, _, now := board()
	c.Binding("x", "y").Count(1, 2)
	want := &Snapshot{PID: 1, Pipeline: "p", Started: *now, Updated: *now, Tasks: b.Snapshot()}
	require.NoError(t, WriteFile(dir, want))
	got, err := ReadFile(dir)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.True(t, got.Alive(now.Add(5*time.Second)))
	require.False(t, got.Alive(now.Add(time.Minute)))
	require.NoError(t, os.WriteFile(filepath.Join(dir, fileName), []byte("{"), 0o600))
	_, err = ReadFile(dir)
	require.Contains(t, usererr.Message(err), "cannot be read")
}

// What a connector says of its source is shown as a part of its task, and what it does not say is left out.
func TestSource(t *testing.T) {
	t.Parallel()
	b, c, _, now := board()
	c.Set(Running)
	orders := c.Binding("public.orders", "acme/orders")
	orders.Phase(Backfill)
	orders.Progress(41, 100)
	shown := func() string {
		s := &Snapshot{PID: 7, Pipeline: "p.yaml", Started: *now, Updated: *now, Tasks: b.Snapshot()}
		return strings.Join(Table(s, *now, 0), "\n")
	}
	// As encoding/json reads a log line.
	c.Report(ParseSource("streaming", map[string]any{
		"phase": "waiting", "waitsFor": "the runtime has taken no output\nfor 2m0s", "lagBytes": 2_500_000.0, "lagSeconds": 90.5,
		"retainedBytes": 48_000_000.0, "reserveBytes": 1_000.0, "percent": 41.0, "processes": "stream 5", "delivered": "0/16", "logEnd": "0/17",
		"oldestTransaction": "process 7 of user x", "oldestTransactionSeconds": 3600.0, "table": 7,
	}, *now))
	*now = now.Add(3 * time.Minute)
	require.Equal(t, strings.TrimSpace(`
sluice · p.yaml · running for 0s
                                PHASE         DOCUMENTS  RATE/s  BYTES    LAG  WAITING
capture acme/source             running                                 1m30s   2.5 MB
  public.orders                 backfill 41%          0       0    0 B  1m30s
  ! the runtime has taken no output for 2m0s (3m00s ago)
  the source keeps 48.0 MB of log for it, and gives it up after 1.0 kB more, because of process 7 of user x, open for 1h00m (3m00s ago)
materialization acme/warehouse  starting`), shown())
	row := b.Snapshot()[0]
	require.Equal(t, map[string]string{"delivered": "0/16", "logEnd": "0/17"}, row.Source.Positions)
	require.EqualValues(t, 2_500_000, row.Bindings[0].LagBytes)
	require.NoError(t, testutil.CollectAndCompare(NewCollector(b), strings.NewReader(`
# HELP sluice_lag_bytes Bytes in the log that a materialization has not committed yet; of a capture, bytes of the source's log that it has not read yet, for each binding the same.
# TYPE sluice_lag_bytes gauge
sluice_lag_bytes{binding="public.orders",collection="acme/orders",kind="capture",task="acme/source"} 2.5e+06
# HELP sluice_lag_seconds How long the oldest waiting document has been waiting; of a capture, how far it is behind the end of the source's log, or how old its newest document was on arrival.
# TYPE sluice_lag_seconds gauge
sluice_lag_seconds{binding="public.orders",collection="acme/orders",kind="capture",task="acme/source"} 90.5
# HELP sluice_source_oldest_transaction_seconds How long the oldest transaction that keeps the source from forgetting its log has been open.
# TYPE sluice_source_oldest_transaction_seconds gauge
sluice_source_oldest_transaction_seconds{kind="capture",task="acme/source"} 3600
# HELP sluice_source_report_age_seconds How long ago the connector said the above.
# TYPE sluice_source_report_age_seconds gauge
sluice_source_report_age_seconds{kind="capture",task="acme/source"} 180
# HELP sluice_source_reserve_bytes Bytes that the source may still write before it gives up the log that it keeps for a capture.
# TYPE sluice_source_reserve_bytes gauge
sluice_source_reserve_bytes{kind="capture",task="acme/source"} 1000
# HELP sluice_source_retained_bytes Bytes of log that the source keeps for a capture.
# TYPE sluice_source_retained_bytes gauge
sluice_source_retained_bytes{kind="capture",task="acme/source"} 4.8e+07
# HELP sluice_source_waiting 1 while the connector says that a capture is stuck.
# TYPE sluice_source_waiting gauge
sluice_source_waiting{kind="capture",task="acme/source"} 1
`), "sluice_lag_bytes", "sluice_lag_seconds", "sluice_source_oldest_transaction_seconds", "sluice_source_report_age_seconds",
		"sluice_source_reserve_bytes", "sluice_source_retained_bytes", "sluice_source_waiting"))

	c.Report(ParseSource("streaming", map[string]any{"phase": "streaming", "waitsFor": "a transaction", "lagSeconds": 0.0}, *now))
	require.Contains(t, shown(), "\n  waits for a transaction\n")
	require.NotContains(t, shown(), "keeps")
	require.Zero(t, b.Snapshot()[0].Bindings[0].LagSeconds)
	c.Report(ParseSource("Streaming change events", map[string]any{}, *now))
	require.Contains(t, shown(), "\n  Streaming change events\n")
	c.Set(Stopped)
	require.Contains(t, shown(), "capture acme/source             stopped\n", "its lag is not known any more")
}
