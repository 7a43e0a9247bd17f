package kafkalog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Options of a log on Kafka.
type Options struct {
	Kafka     *pipeline.Kafka
	Retention pipeline.Retention // of the topics that are made
	// Collections are those of the pipeline, each of which gets a topic, by name.
	Collections map[string]Key
	// Tasks are those that this process runs ("capture/NAME", "materialization/NAME"). They are taken over from whoever has them.
	Tasks []string
	Log   *logrus.Entry
	Now   func() time.Time // the clock; nil is the system's
	// ReadOnly opens a log that exists, takes nothing over and changes nothing.
	ReadOnly bool
	// OnFenced is called, once, when another process has taken a task over; nil is nobody. The error wraps [wal.ErrFenced] and is for people.
	OnFenced func(error)
	// Patience is how long brokers may not answer before what waits for them fails; zero is a minute.
	Patience time.Duration
}

const (
	defaultPatience = time.Minute
	// pipelineTask has the records that belong to no task, such as schemas.
	pipelineTask = "pipeline"
)

// Log is a log on Kafka. It is safe for use by many goroutines.
type Log struct {
	o        Options
	client   *kgo.Client // reads, and asks
	admin    *kadm.Client
	identity wal.Identity
	instance instance
	owners   map[string]*owner // by task
	claimed  atomic.Bool       // all tasks are, in the state topic
	state    state

	ctx     context.Context //nolint:containedctx // ends with the log: readers have none of their own
	stop    context.CancelFunc
	running sync.WaitGroup
	fence   sync.Once

	mu      sync.Mutex
	topics  map[string]*topic // by collection
	waiting []*commit         // that readers may not see yet
	wake    chan struct{}     // there is something waiting
	changed chan struct{}
}

// instance is who has claimed a task.
type instance struct {
	ID   string    `json:"id"`
	Host string    `json:"host"`
	PID  int       `json:"pid"`
	At   time.Time `json:"at"`
}

func (i instance) String() string {
	return fmt.Sprintf("on %s, process %d, since %s", i.Host, i.PID, i.At.UTC().Format(time.RFC3339))
}

// Open opens the log, makes the topics that it lacks, and takes the tasks over. It returns when the log is as it was left: whatever was not
// committed is gone. Errors are for people.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	client, err := newClient(o.Kafka, o.Log)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // for people; there may be none
	l := &Log{
		o: o, client: client, admin: kadm.NewClient(client), owners: map[string]*owner{}, topics: map[string]*topic{},
		instance: instance{ID: rand.Text(), Host: host, PID: os.Getpid(), At: o.Now()},
		wake:     make(chan struct{}, 1), changed: make(chan struct{}),
	}
	l.state.init(l)
	l.ctx, l.stop = context.WithCancel(context.Background())
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Log) open(ctx context.Context) error {
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	if err := l.checkNames(); err != nil {
		return err
	}
	cluster, err := l.openState(asking)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(cluster + "/" + textOf(l.state.id)))
	copy(l.identity[:], sum[:])
	l.identity[0] |= 1 // a multicast address, so that it is nobody's hardware address
	if err := l.takeOver(ctx); err != nil {
		return err
	}
	if err := l.openTopics(ctx); err != nil {
		return err
	}
	if err := l.loadHeads(ctx); err != nil {
		return err
	}
	l.running.Go(l.watch)
	return nil
}

// takeOver begins a producer for each task, by which older instances of it are refused, then reads what they have left, and claims the tasks.
func (l *Log) takeOver(ctx context.Context) error {
	if l.o.ReadOnly {
		return l.catchUp(ctx)
	}
	for _, task := range append([]string{pipelineTask}, l.o.Tasks...) {
		o := &owner{log: l, task: task}
		l.owners[task] = o
		if err := o.begin(ctx); err != nil {
			return err
		}
	}
	if err := l.catchUp(ctx); err != nil {
		return err
	}
	claim, err := json.Marshal(l.instance)
	if err != nil {
		return fmt.Errorf("encoding a claim: %w", err)
	}
	for _, o := range l.owners {
		if err := o.claim(ctx, claim); err != nil {
			return err
		}
	}
	l.claimed.Store(true)
	return nil
}

// Close ends transactions that were not committed, and closes the log.
func (l *Log) Close() error {
	l.stop()
	l.running.Wait()
	for _, o := range l.owners {
		o.close()
	}
	l.client.Close()
	return nil
}

// Identity implements wal.Log.
func (l *Log) Identity() wal.Identity { return l.identity }

// Words implements wal.Log.
func (l *Log) Words() wal.Words {
	return wal.Words{
		Place: fmt.Sprintf("the topics %s.* on %s", l.o.Kafka.Prefix, l.o.Kafka), Unit: "records",
		Short: "a topic has lost records, or was put back to an earlier state; fill the destination anew, by raising the backfill counters of its bindings",
	}
}

// Records implements wal.Engine.
func (l *Log) Records(task string) wal.Store {
	if o := l.owners[task]; o != nil {
		return o
	}
	return l
}

// Get implements wal.Store.
func (l *Log) Get(name string) ([]byte, error) {
	return slices.Clone(l.state.get(recordKey + name)), nil
}

// Put implements wal.Store.
func (l *Log) Put(ctx context.Context, changes wal.Records) error {
	o := l.owners[pipelineTask]
	if o == nil {
		return usererr.New(nil, "the log on %s is open for reading only", l.o.Kafka)
	}
	return o.Put(ctx, changes)
}

// Names implements wal.Inspected.
func (l *Log) Names(prefix string) ([]string, error) {
	names := l.state.names(recordKey + prefix)
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], recordKey)
	}
	return names, nil
}

// fenced says that another instance has a task now, which ends this one.
func (l *Log) fenced(task string, by instance, cause error) error {
	err := usererr.New(errors.Join(wal.ErrFenced, cause), "another sluice run has taken over this pipeline (%s) on %s: %s. This one ends, and has committed nothing since; if both were meant to run, give each a topics.prefix of its own",
		task, l.o.Kafka, by)
	if l.o.OnFenced != nil {
		l.fence.Do(func() { go l.o.OnFenced(err) })
	}
	return err
}

// claimant is who has claimed a task last; the zero instance if nobody has.
func (l *Log) claimant(task string) (i instance) {
	if claim := l.state.get(claimKey + task); claim != nil && json.Unmarshal(claim, &i) != nil {
		return instance{ID: "?"}
	}
	return i
}

// mine tells whether all tasks are still this process'. Before it has claimed all of them, an older instance's claims say nothing.
func (l *Log) mine() error {
	if !l.claimed.Load() {
		return nil
	}
	for _, task := range slices.Sorted(maps.Keys(l.owners)) {
		if by := l.claimant(task); by.ID != "" && by.ID != l.instance.ID {
			return l.fenced(task, by, nil)
		}
	}
	return nil
}
