package cdctest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Losses is how the connections of a pull are lost.
type Losses struct {
	// Try runs a statement on a connection of its own. It may fail, and the statement have been done nevertheless.
	Try func(sql string) error
	// Ways lose the connections of the connector, each in another way. A server that is down afterwards is started by it, too.
	Ways []func()
}

// Pull has the connector's program pull a table that is written to all the time, while its connections are lost in every way. It must be
// one process that goes on to the end, and no change may be missing or come twice.
func Pull(t *testing.T, b Backend, db Database, l Losses) {
	t.Helper()
	const rows = 1000
	db.Exec(t, "CREATE TABLE cdc_pull (id INTEGER PRIMARY KEY, v INTEGER)")
	values := make([]string, rows)
	for i := range values {
		values[i] = fmt.Sprintf("(%d, 0)", i)
	}
	db.Exec(t, "INSERT INTO cdc_pull VALUES "+strings.Join(values, ", "))
	p := startPull(t, b, db)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; running(stop, 2*time.Millisecond); n++ {
			_ = l.Try(fmt.Sprintf("UPDATE cdc_pull SET v = v + 1 WHERE id IN (%d, %d)", n%7, n*31%rows)) // while the server is away
		}
	})
	for _, lose := range l.Ways {
		p.goesOn()
		lose()
	}
	p.goesOn()
	close(stop)
	wg.Wait()
	require.Eventually(t, func() bool { return p.has(db) }, patience, 100*time.Millisecond, "the output is not what the table has")
	p.stop()
	require.GreaterOrEqual(t, strings.Count(p.errs.String(), "the capture is opened again behind what it has written"), len(l.Ways), "%s", &p.errs)
}

// puller is a pull that runs, and what it has printed.
type puller struct {
	t     *testing.T
	errs  bytes.Buffer
	ended chan error
	quit  func()

	changes atomic.Int64
	mu      sync.Mutex
	last    map[int]int // values by id
	wrong   string
}

func startPull(t *testing.T, b Backend, db Database) *puller {
	t.Helper()
	p := &puller{t: t, ended: make(chan error, 1), last: map[int]int{}}
	config := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(config, db.Config(), 0o600))
	cmd := b.Command(t)
	cmd.Args = append(cmd.Args, "pull", "--config", config, "--state", filepath.Join(t.TempDir(), "state.json"), "--bind", db.Namespace()+".cdc_pull")
	cmd.Stderr = &p.errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p.quit = func() { _ = cmd.Process.Signal(syscall.SIGINT) } // it may have ended
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.take(lines.Bytes())
		}
		p.ended <- cmd.Wait()
	}()
	return p
}

// take takes a document: that of a change comes behind the one before, that of a row which the backfill has read has what came last.
func (p *puller) take(line []byte) {
	var doc struct {
		ID   int
		V    int
		Meta struct {
			Op     string
			Source struct{ Snapshot bool }
		} `json:"_meta"`
	}
	err := json.Unmarshal(line, &doc)
	p.mu.Lock()
	defer p.mu.Unlock()
	last, known := p.last[doc.ID]
	want := last + 1
	if doc.Meta.Source.Snapshot {
		want = last
	}
	if err != nil || known && doc.V != want {
		p.wrong = fmt.Sprintf("behind %d came %s", last, line)
	}
	p.last[doc.ID] = doc.V
	if !doc.Meta.Source.Snapshot {
		p.changes.Add(1)
	}
}

// goesOn waits until more changes have come.
func (p *puller) goesOn() {
	p.t.Helper()
	const some = 50
	before := p.changes.Load()
	for deadline := time.Now().Add(patience); p.changes.Load() < before+some; {
		select {
		case err := <-p.ended:
			require.FailNow(p.t, "the pull ended", "%v\n%s", err, &p.errs)
		case <-time.After(20 * time.Millisecond):
		}
		require.True(p.t, time.Now().Before(deadline), "no change comes")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Empty(p.t, p.wrong)
}

// has reports whether what has come is what the table has.
func (p *puller) has(db Database) bool {
	rows := db.Query(p.t, "SELECT id, v FROM cdc_pull")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range rows {
		var id int
		_, err := fmt.Sscan(*row[0], &id)
		require.NoError(p.t, err)
		if v, ok := p.last[id]; !ok || fmt.Sprint(v) != *row[1] {
			return false
		}
	}
	return len(p.last) == len(rows)
}

// stop ends the pull, as a person does.
func (p *puller) stop() {
	p.t.Helper()
	p.quit()
	require.NoError(p.t, <-p.ended, "%s", &p.errs)
	require.Empty(p.t, p.wrong)
}
