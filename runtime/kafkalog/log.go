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
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Options of a log on Kafka.
type Options struct {
	Kafka     *pipeline.Kafka
	Retention pipeline.Retention // of the topics that are made
	// Collections are those of the pipeline, each of which gets a topic, by name.
	Collections map[string]Key
	// Tasks are all that the pipeline has, as Take names them, whoever runs them.
	Tasks []string
	// Joined opens the log beside other processes of the same pipeline, each of which takes some of its tasks. Otherwise this one is to be the only one, and ends
	// the others, whether they are joined or not.
	Joined bool
	// Pipeline is the fingerprint of what the process runs. A process that is joined ends those that run something else.
	Pipeline string
	Log      *logrus.Entry
	Now      func() time.Time // the clock; nil is the system's
	// ReadOnly opens a log that exists, takes nothing over and changes nothing.
	ReadOnly bool
	// OnFenced is called, once, when another process has ended this one; nil is nobody. The error wraps [wal.ErrFenced] and is for people. It must not block.
	OnFenced func(error)
	// Patience is how long brokers may not answer before what waits for them fails; zero is a minute.
	Patience time.Duration
}

const (
	defaultPatience = time.Minute
	// pipelineTask has the records that belong to no task, such as schemas. Processes that are joined share it.
	pipelineTask = "pipeline"
)

// Log is a log on Kafka. It is safe for use by many goroutines.
type Log struct {
	o        Options
	client   *kgo.Client // reads, and asks
	follower *kgo.Client // waits for what others commit, on connections of its own: brokers answer those of one in turn
	admin    *kadm.Client
	unpack   kgo.Decompressor
	identity wal.Identity
	instance instance
	state    state

	ctx     context.Context //nolint:containedctx // ends with the log: readers have none of their own
	stop    context.CancelFunc
	running sync.WaitGroup

	opening bool // until Open returns

	mu      sync.Mutex
	owners  map[string]*owner // by task
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
	// Joined and Pipeline are of the options.
	Joined   bool   `json:"joined,omitempty"`
	Pipeline string `json:"pipeline,omitempty"`
}

func (i instance) String() string {
	return fmt.Sprintf("on %s, process %d, since %s", i.Host, i.PID, i.At.UTC().Format(time.RFC3339))
}

// Open opens the log, makes the topics that it lacks, and ends the processes that may not be there beside this one. Brokers that come and go are no
// reason to give up before the log's patience is over. Errors are for people.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	for began := time.Now(); ; {
		l, err := openOnce(ctx, o)
		if err == nil || ctx.Err() != nil || !passes(err) || isGone(err) || time.Since(began) > o.Patience {
			return l, err
		}
		o.Log.WithError(err).Warn("opening the log is tried again: " + usererr.Message(err))
		if err := retry.Sleep(ctx, time.Second); err != nil {
			return nil, err
		}
	}
}

func openOnce(ctx context.Context, o Options) (*Log, error) {
	client, err := newClient(o.Kafka, o.Log)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // for people; there may be none
	l := &Log{
		o: o, client: client, admin: kadm.NewClient(client), unpack: kgo.DefaultDecompressor(), owners: map[string]*owner{}, topics: map[string]*topic{},
		instance: instance{ID: rand.Text(), Host: host, PID: os.Getpid(), At: o.Now(), Joined: o.Joined, Pipeline: o.Pipeline},
		wake:     make(chan struct{}, 1), changed: make(chan struct{}), opening: true,
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
	if l.o.ReadOnly {
		err = l.catchUp(ctx)
	} else {
		_, err = l.Take(ctx, pipelineTask, l.o.OnFenced)
	}
	if err != nil {
		return err
	}
	if err := l.openTopics(ctx); err != nil {
		return err
	}
	if err := l.loadHeads(ctx); err != nil {
		return err
	}
	l.opening = false
	l.running.Go(l.watch)
	if !l.o.Joined {
		return nil
	}
	if l.follower, err = newClient(l.o.Kafka, l.o.Log); err == nil {
		l.running.Go(l.follow)
	}
	return err
}

// Take implements wal.Engine: a producer is begun, by which older instances are refused; then it is read what they have left, and the task is claimed.
func (l *Log) Take(ctx context.Context, task string, fenced func(error)) (wal.Store, error) {
	o := &owner{log: l, task: task, shared: l.o.Joined && task == pipelineTask, onFenced: fenced}
	if err := o.begin(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.owners[task] = o
	l.mu.Unlock()
	err := l.catchUp(ctx)
	if err == nil {
		err = o.claim(ctx)
	}
	if err != nil {
		l.Release(task)
		return nil, err
	}
	return o, nil
}

// Release implements wal.Engine.
func (l *Log) Release(task string) {
	l.mu.Lock()
	o := l.owners[task]
	delete(l.owners, task)
	l.mu.Unlock()
	if o != nil {
		o.close()
	}
}

// Fence implements wal.Engine.
func (l *Log) Fence(ctx context.Context, task string) error {
	if l.owner(task) != nil {
		return nil // taking it did that
	}
	o := &owner{log: l, task: task}
	defer o.close()
	if err := o.begin(ctx); err != nil {
		return err
	}
	return l.catchUp(ctx)
}

// mayEnd tells whether transactions of others may be ended that keep this process from opening the log, for which it has waited since. It is
// going to be the only one, or those who live had the time to end theirs; and if not, they begin them again.
func (l *Log) mayEnd(since time.Time) bool {
	return l.opening && !l.o.ReadOnly && (!l.o.Joined || time.Since(since) > l.o.Kafka.SessionTimeout)
}

// endOthers ends the transactions that processes which died have left open, of all tasks and shards that there have ever been: nobody may be about to
// take those over, and the cluster lets them stand for as long as they may take.
func (l *Log) endOthers(ctx context.Context) error {
	tasks := slices.Clone(l.o.Tasks)
	for _, key := range l.state.names(claimKey) {
		tasks = append(tasks, strings.TrimPrefix(key, claimKey))
	}
	slices.Sort(tasks)
	for _, task := range slices.Compact(tasks) {
		if l.owner(task) != nil {
			continue
		}
		o := &owner{log: l, task: task}
		err := o.begin(ctx)
		o.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// owner is the one of a task that was taken; nil if it was not.
func (l *Log) owner(task string) *owner {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owners[task]
}

// Close ends transactions that were not committed, and closes the log.
func (l *Log) Close() error {
	l.stop()
	l.running.Wait()
	for _, task := range slices.Collect(maps.Keys(l.owners)) {
		l.Release(task)
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

// Get implements wal.Store.
func (l *Log) Get(name string) ([]byte, error) {
	return slices.Clone(l.state.get(recordKey + name)), nil
}

// Put implements wal.Store.
func (l *Log) Put(ctx context.Context, changes wal.Records) error {
	return l.Update(ctx, func() (wal.Records, error) { return changes, nil })
}

// Update implements wal.Shared.
func (l *Log) Update(ctx context.Context, change func() (wal.Records, error)) error {
	o := l.owner(pipelineTask)
	if o == nil {
		return usererr.New(nil, "the log on %s is open for reading only", l.o.Kafka)
	}
	return o.update(ctx, func() (map[string][]byte, error) {
		changes, err := change()
		return prefixed(changes), err
	})
}

// Names implements wal.Inspected.
func (l *Log) Names(prefix string) ([]string, error) {
	names := l.state.names(recordKey + prefix)
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], recordKey)
	}
	return names, nil
}

// fenced says that another instance has a task now, which ends this one's.
func (l *Log) fenced(o *owner, by instance) error {
	const tail = "This one ends, and has committed nothing since"
	var err error
	switch {
	case l.o.Joined && by.Joined && o.task != pipelineTask:
		err = usererr.New(wal.ErrFenced, "another sluice run has taken %s over on %s: %s", o.task, l.o.Kafka, by)
	case l.o.Joined && by.Joined:
		err = usererr.New(wal.ErrFenced, "another sluice run has joined the pipeline on %s with a changed file (%s). %s; start it again with that file", l.o.Kafka, by, tail)
	default:
		err = usererr.New(wal.ErrFenced, "another sluice run has taken over this pipeline (%s) on %s: %s. %s; if both were meant to run, start both with --join, or give each a topics.prefix of its own",
			o.task, l.o.Kafka, by, tail)
	}
	if o.onFenced != nil {
		o.told.Do(func() { o.onFenced(err) })
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

// accepts tells whether a claim of a task that this process has is its own, or of one with which it shares the task.
func (o *owner) accepts(by instance) bool {
	us := &o.log.instance
	return by.ID == us.ID || o.shared && by.Joined && by.Pipeline == us.Pipeline
}

// mine is an error once the task is another's. Before it was claimed, an older instance's claim says nothing.
func (o *owner) mine() error {
	if !o.claimed.Load() {
		return nil
	}
	if by := o.log.claimant(o.task); by.ID != "" && !o.accepts(by) {
		return o.log.fenced(o, by)
	}
	return nil
}

// allMine tells every task that is another's now.
func (l *Log) allMine() {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.owners))
	l.mu.Unlock()
	for _, o := range all {
		_ = o.mine() // it was told
	}
}

// Share implements wal.Log: shards have as many partitions each as can be, and those of a key are one shard's.
func (l *Log) Share(j wal.Journal, shards int) int {
	t, p, err := l.find(j)
	if err != nil {
		return 0
	}
	return p * shards / len(t.Base)
}
