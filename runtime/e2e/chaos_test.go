package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/e2e/launch"
)

// chaos deals blows to a world, at random but by a seed, and keeps a transcript that a person can follow.
type chaos struct {
	w      *world
	mortal []*world // whose processes nobody but this chaos may end
	random *rand.Rand
	began  time.Time
	blows  int
	kinds  []blow
	bag    []blow // what is to come before any blow is dealt again
	story  *story
}

// story is a transcript, of several who act at the same time if need be.
type story struct {
	mu    sync.Mutex
	lines []string
}

// A blow kills something and says what it hit; "" if there was nothing to hit at the moment.
type blow struct {
	name string
	deal func(c *chaos, ctx context.Context) (hit string, err error)
}

// allBlows is a bag of blows, the commoner ones several times: those that hit every world, and those to a source that is a Postgres.
func allBlows() []blow {
	walsender := blow{"ending the replication session", func(c *chaos, ctx context.Context) (string, error) {
		return c.sessions(ctx, c.w.source, "backend_type = 'walsender'")
	}}
	sourceSessions := blow{"ending all sessions of the capture", func(c *chaos, ctx context.Context) (string, error) {
		return c.sessions(ctx, c.w.source, "datname = '"+c.w.source.database+"' AND application_name <> '"+writerName+"'")
	}}
	sourceServer := blow{"SIGKILL to the source server", func(c *chaos, ctx context.Context) (string, error) { return c.server(ctx, c.w.source.server.Postgres) }}
	return append(commonBlows(launch.SourcePostgres), walsender, walsender, sourceSessions, sourceServer)
}

// commonBlows are those that need not know what the source is, but for its connector's name.
func commonBlows(connector string) []blow {
	capture := blow{"SIGKILL to the capture", func(c *chaos, _ context.Context) (string, error) { return c.connector(connector) }}
	materialization := blow{"SIGKILL to a materialization", func(c *chaos, _ context.Context) (string, error) { return c.connector(launch.MaterializePostgres) }}
	lake := blow{"SIGKILL to the materialization of files", func(c *chaos, _ context.Context) (string, error) { return c.connector(launch.MaterializeParquet) }}
	runtime := blow{"SIGKILL to sluice", (*chaos).runtime}
	copySessions := blow{"ending all sessions in the destination", func(c *chaos, ctx context.Context) (string, error) {
		return c.sessions(ctx, c.w.copy, "datname = '"+c.w.copy.database+"'")
	}}
	oneCopySession := blow{"ending one session in the destination", func(c *chaos, ctx context.Context) (string, error) {
		return c.sessions(ctx, c.w.copy, "pid IN (SELECT pid FROM pg_stat_activity WHERE datname = '"+c.w.copy.database+"' ORDER BY md5(pid::text) LIMIT 1)")
	}}
	copyServer := blow{"SIGKILL to the destination server", func(c *chaos, ctx context.Context) (string, error) { return c.server(ctx, c.w.copy.server.Postgres) }}
	return []blow{
		capture, capture, capture, materialization, materialization, materialization, lake, lake, runtime, runtime, runtime,
		copySessions, oneCopySession, copyServer,
	}
}

// newChaos is a chaos whose transcript is shown when the test fails, or by -v.
func newChaos(t *testing.T, w *world, seed uint64, kinds []blow) *chaos {
	t.Helper()
	c := &chaos{w: w, mortal: []*world{w}, random: rand.New(rand.NewPCG(seed, 99)), kinds: kinds, began: time.Now(), story: &story{}}
	t.Cleanup(func() {
		if t.Failed() || testing.Verbose() {
			t.Logf("what was done, by seconds since the start:\n%s", c.transcript())
		}
	})
	return c
}

// wait lets the world work for a random while.
func (c *chaos) wait(t *testing.T) {
	t.Helper()
	require.NoError(t, c.pause(t.Context()))
}

// pause is wait where a test cannot be ended. A process that has ended by itself is an error.
func (c *chaos) pause(ctx context.Context) error {
	timer := time.NewTimer(time.Duration(200+c.random.IntN(2700)) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return c.running()
}

// running is an error if a process has ended by itself.
func (c *chaos) running() error {
	for _, w := range c.mortal {
		select {
		case <-w.sluice.Exited():
			return fmt.Errorf("sluice%s ended by itself: %w", w.name, w.sluice.Err())
		default:
		}
	}
	return nil
}

// rage strikes again and again for a while, and until a number of blows was dealt.
func (c *chaos) rage(ctx context.Context, length time.Duration, blows int) error {
	for end := time.Now().Add(length); ctx.Err() == nil && (time.Now().Before(end) || c.blows < blows); {
		if err := c.pause(ctx); err != nil {
			return err
		}
		if err := c.strike(ctx); err != nil {
			return err
		}
	}
	return nil
}

// strike deals the next blow, or the one after it if that has nothing to hit.
func (c *chaos) strike(ctx context.Context) error {
	for range 20 {
		if len(c.bag) == 0 {
			c.bag = slices.Clone(c.kinds)
			c.random.Shuffle(len(c.bag), func(i, j int) { c.bag[i], c.bag[j] = c.bag[j], c.bag[i] })
		}
		next := c.bag[0]
		c.bag = c.bag[1:]
		hit, err := next.deal(c, ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", next.name, err)
		}
		if hit == "" {
			c.note("%s: nothing there", next.name)
			continue
		}
		c.blows++
		c.note("%2d. %s: %s", c.blows, next.name, hit)
		return nil
	}
	c.note("nothing could be hit")
	return nil
}

func (c *chaos) note(format string, args ...any) {
	c.story.mu.Lock()
	defer c.story.mu.Unlock()
	c.story.lines = append(c.story.lines, fmt.Sprintf("%5.1f  %s", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...)))
}

func (c *chaos) transcript() string {
	c.story.mu.Lock()
	defer c.story.mu.Unlock()
	return strings.Join(c.story.lines, "\n")
}

// connector kills one running connector of a kind.
func (c *chaos) connector(program string) (string, error) {
	running := c.w.sluice.Connectors(program)
	if len(running) == 0 {
		return "", nil
	}
	pid := running[c.random.IntN(len(running))]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return "", nil //nolint:nilerr // it ended meanwhile, which is for somebody else to explain
	}
	return "process " + strconv.Itoa(pid), nil
}

// runtime kills sluice and starts it again after a moment.
func (c *chaos) runtime(ctx context.Context) (string, error) {
	pid := c.w.sluice.PID()
	c.w.sluice.Kill()
	pause := time.Duration(c.random.IntN(500)) * time.Millisecond
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(pause):
	}
	return fmt.Sprintf("process %d, started again %s later", pid, pause), c.w.launch(launch.Options{})
}

// sessions ends those of a server that meet a condition.
func (c *chaos) sessions(ctx context.Context, s side, condition string) (string, error) {
	out, err := s.server.Postgres.Exec(ctx, "postgres", "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "+condition)
	if err != nil || out == "0" {
		return "", err
	}
	return out + " of them", nil
}

// killable is a server of any kind.
type killable interface {
	Kill() error
	Start(ctx context.Context) error
}

// server kills a server with all its sessions and starts it again.
func (c *chaos) server(ctx context.Context, s killable) (string, error) {
	if err := s.Kill(); err != nil {
		return "", err
	}
	pause := time.Duration(c.random.IntN(300)) * time.Millisecond
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(pause):
	}
	return fmt.Sprintf("started again after %s", pause), s.Start(ctx)
}
