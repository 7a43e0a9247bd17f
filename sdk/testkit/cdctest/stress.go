package cdctest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// What the environment may say about a stress.
const (
	envDuration = "SLUICE_STRESS"      // how long to write, such as 5m
	envSeed     = "SLUICE_STRESS_SEED" // which decisions to take again
)

const (
	stressDuration = 25 * time.Second // by default
	stressRound    = 8 * time.Second  // between two moments when the output is compared with the tables
	stressWriters  = 4
)

// Stress walks rows of several tables through everything that can happen to them: inserted, updated, deleted, inserted
// again, moved to another key, with large values that the log leaves out, truncated, while columns come and go. Several
// sessions write in transactions of any size, with savepoints and rollbacks. Meanwhile the connector, a process of its own,
// is killed with SIGKILL at random, resumes from any checkpoint that is not older than the last acknowledged one, and is at
// times told to backfill again.
//
// Every document is checked when it comes, against what was done to its row (judge), and all tables every few seconds, when
// the writers pause: every row and every column must be in the output.
//
// SLUICE_STRESS says how long it takes (25s, or Backend.StressFor), SLUICE_STRESS_SEED repeats the decisions of a run; but not what the scheduler
// made of them, so a failure may need several attempts. A failure prints what happened to the row and what was captured
// of it, and keeps the whole output.
func Stress(t *testing.T, b Backend) {
	duration, n := b.StressFor, uint64(time.Now().UnixNano())
	if duration == 0 {
		duration = stressDuration
	}
	var err error
	if text := os.Getenv(envDuration); text != "" {
		duration, err = time.ParseDuration(text)
		require.NoError(t, err, envDuration)
	}
	if text := os.Getenv(envSeed); text != "" {
		n, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, envSeed)
	}
	t.Logf("%s=%d %s=%s", envSeed, n, envDuration, duration)
	s := newStress(t, b, n)
	for end := time.Now().Add(duration); time.Now().Before(end); {
		s.round(min(stressRound, time.Until(end)))
		s.settle()
		s.restart()
	}
	if err := s.stop(); err != nil {
		s.fail(err)
	}
	t.Logf("%d transactions, %d events; %d documents, %d checkpoints, %d of them set back; %d kills, %d backfills asked for, %d changes of shape",
		s.load.tag.Load(), s.load.events.Load(), s.court.documents, s.court.checkpoints, s.lost, s.kills, s.bumps, s.load.alters.Load())
}

// stress is one run.
type stress struct {
	runner
	t     *testing.T
	b     Backend
	db    Database
	rnd   *rand.Rand
	load  *load
	court *court
	trace *trace

	bumped             map[int]int // how often each binding was told to backfill again
	kills, bumps, lost int
}

func newStress(t *testing.T, b Backend, n uint64) *stress {
	t.Helper()
	s := &stress{
		t: t, b: b, db: b.Open(t), rnd: rand.New(rand.NewPCG(n, 0)), trace: newTrace(t), bumped: map[int]int{},
	}
	s.load = newLoad(t, b, s.db, n)
	s.load.fill()
	s.court = &court{trace: s.trace, tags: map[int64]int{}}
	s.runner = runner{t: t, spec: discover(t, s.db), out: s.court, run: s.process}
	for _, binding := range s.spec.Bindings {
		path := binding.ResourcePath
		j := &judge{name: path[len(path)-1], key: keyColumns(binding)}
		lt := s.load.table(j.name)
		require.NotNil(t, lt, "table %s", j.name)
		j.keyless, j.history = lt.keyless, lt.history
		require.Equal(t, j.keyless, j.key == nil, "the key of %s", j.name)
		if j.keyless {
			j.key = lt.kind.key
		}
		j.reset()
		s.court.judges = append(s.court.judges, j)
	}
	return s
}

// process starts the connector.
func (s *stress) process() *session.Session {
	cmd := s.b.Command(s.t)
	cmd.Stderr = s.trace.Connector
	return session.Command(s.t, cmd, frame.Proto)
}

// round writes, kills and resumes for a while.
func (s *stress) round(d time.Duration) {
	done, stop := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range s.load.writers {
		wg.Go(func() { w.work(stop) })
	}
	if disturber, ok := s.db.(Disturber); ok {
		rnd := rand.New(rand.NewPCG(s.rnd.Uint64(), 1))
		wg.Go(func() {
			for running(stop, time.Duration(200+rnd.IntN(1500))*time.Millisecond) {
				disturber.Disturb(s.t, rnd)
			}
		})
	}
	go func() { defer close(done); wg.Wait() }()
	if s.session == nil {
		s.runner.start()
	}
	err := s.torment(time.Now().Add(d), done)
	close(stop)
	<-done
	if err != nil {
		s.fail(err)
	}
	require.False(s.t, s.t.Failed(), "a statement was refused")
}

// running waits, and returns false when it is told to stop meanwhile.
func running(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-stop:
		return false
	case <-time.After(d):
		return true
	}
}

// torment kills and resumes the connector, and acknowledges, until a moment comes or the writers have ended.
func (s *stress) torment(end time.Time, done <-chan struct{}) error {
	kill := time.Now().Add(s.respite())
	for time.Now().Before(end) {
		if !running(done, time.Duration(5+s.rnd.IntN(60))*time.Millisecond) {
			return errors.New("the writers ended")
		}
		if err := s.alive(); err != nil {
			return err
		}
		if s.rnd.IntN(3) == 0 {
			s.acknowledge(s.rnd)
		}
		if time.Now().After(kill) {
			s.again()
			kill = time.Now().Add(s.respite())
		}
	}
	return nil
}

// respite is how long the connector lives: mostly some seconds, at times not even long enough to begin.
func (s *stress) respite() time.Duration {
	if s.rnd.IntN(4) == 0 {
		return time.Duration(10+s.rnd.IntN(300)) * time.Millisecond
	}
	return time.Duration(300+s.rnd.IntN(3500)) * time.Millisecond
}

// again kills the connector and starts it where one of its checkpoints was, perhaps with something to backfill again.
func (s *stress) again() {
	lost := s.kill(s.rnd)
	s.kills, s.lost = s.kills+1, s.lost+lost
	s.trace.note("killed, back by %d checkpoints to %d", lost, s.court.checkpoint)
	switch s.rnd.IntN(10) {
	case 0:
		for i := range s.spec.Bindings {
			s.bump(i)
		}
		// A capture of which everything begins anew begins with a new log.
		s.court.anew(s.court.judges...)
	case 1, 2, 3:
		i := s.rnd.IntN(len(s.spec.Bindings))
		if j := s.court.judges[i]; !j.keyless { // see restart
			s.bump(i)
			j.begin()
		}
	}
	s.runner.start()
}

// bump has a binding backfilled again.
func (s *stress) bump(i int) {
	b := s.spec.Bindings[i]
	s.bumped[i]++
	s.bumps++
	b.StateKey = strings.Join(b.ResourcePath, "%2F") + ".v" + strconv.Itoa(s.bumped[i])
	s.trace.note("backfill %s again", s.court.judges[i].name)
}

// alive returns what is wrong with the output. A connector that ended by itself because of what was done to the server
// is started again.
func (s *stress) alive() error {
	err := s.failed()
	if err == nil {
		return nil
	}
	if _, wrong := errors.AsType[*verdict](err); wrong {
		return err
	}
	s.court.ends++
	if s.court.ends > mostEnds {
		return fmt.Errorf("the connector ended %d times in a row by itself, at last with: %w\n%s", s.court.ends, err, s.trace.log())
	}
	s.trace.note("the connector ended: %v", err)
	s.again()
	return nil
}

// mostEnds is how often a connector may end by itself before it has captured anything more.
const mostEnds = 3

// settle waits until the output is what the tables hold.
func (s *stress) settle() {
	s.trace.note("the writers pause")
	var wrong error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err := s.alive(); err != nil {
			s.fail(err)
		}
		if wrong = s.compare(); wrong == nil {
			s.trace.note("the output is what the tables hold")
			return
		}
		s.acknowledge(s.rnd)
		<-time.After(100 * time.Millisecond)
	}
	s.fail(wrong)
}

// restart has the tables without a key backfilled again, at times, while nobody writes to them: transactions in progress
// would belong neither to the backfill nor to the log, which is a known limit.
func (s *stress) restart() {
	if s.rnd.IntN(3) > 0 {
		return
	}
	s.kills, s.lost = s.kills+1, s.lost+s.kill(s.rnd)
	for i, j := range s.court.judges {
		if j.keyless {
			s.bump(i)
			s.court.anew(j)
		}
	}
	s.runner.start()
	s.settle()
	s.acknowledgeAll()
}

// compare compares the output with the tables.
func (s *stress) compare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.court.judges {
		for _, key := range j.history.keys() {
			if err := j.missing(key); err != nil {
				return &verdict{table: j.name, key: key, err: err}
			}
		}
	}
	for _, j := range s.court.judges {
		if err := j.compare(s.t, s.db, s.load.table(j.name)); err != nil {
			return err
		}
	}
	return nil
}

// fail fails the test, with the history of the row that it is about.
func (s *stress) fail(err error) {
	s.t.Helper()
	s.session.Kill()
	s.trace.note("failed: %v", err)
	if wrong, ok := errors.AsType[*verdict](err); ok {
		j := s.court.judge(wrong.table)
		var story string
		_ = j.history.look(wrong.key, func(l *life) error { story = l.String(); return nil }) // f returns nil
		s.t.Logf("what was done to key %s of table %s:\n%s\nwhat was captured of it:\n%s", wrong.key, wrong.table, story, s.trace.about(wrong.table, wrong.key))
	}
	require.NoError(s.t, err)
}
