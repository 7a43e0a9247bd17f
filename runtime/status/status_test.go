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
# HELP sluice_lag_bytes Bytes in the log that a materialization has not committed yet.
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
