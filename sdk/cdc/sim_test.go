package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// sim is one simulation: a database, a capture of it, and a runtime that keeps what the capture emits. One seed decides
// everything; there is no time and no concurrency but its own.
type sim struct {
	seed     uint64
	rnd      *rand.Rand
	db       *simDB
	now      time.Time
	pool     *simPool
	mutation mutation
	lag      int // how often of 100 the log has nothing although it has
	opts     Options
	limits   limits
	scans    []simScan
	acked    int // what the log may have forgotten

	bindings    []*simBinding
	reader      *reader
	live        []*capture.Binding[Resource, TableState]
	checkpoints []*simCheckpoint // the first one is durable
	journal     []journalEntry
	shadow      *simShadow

	quiet   time.Time // when everything was brought to an end
	steps   int
	log     *strings.Builder // the transcript; nil if nobody reads it
	crashed int
	emitted int
}

var (
	errSimCrash   = errors.New("the connector crashed")
	errSimSettled = errors.New("everything has settled")
	errSimStuck   = errors.New("nothing settles")
)

// simBinding is one binding of the task.
type simBinding struct {
	id       TableID
	key      []string
	mode     Mode
	priority int
	backfill int
	disabled bool
	out      *simReduced
}

func (b *simBinding) stateKey() string { return b.id.Name + ".v" + strconv.Itoa(b.backfill) }

// simCheckpoint is a state of the capture, and how much of the output came before it.
type simCheckpoint struct {
	states  map[string]json.RawMessage
	parsed  map[string]*TableState
	shared  json.RawMessage
	journal int
	acks    []func(context.Context) error
}

// journalEntry tells how to take a document back.
type journalEntry struct {
	out    *simReduced
	key    string
	before *simDoc
}

func (s *sim) trace(format string, args ...any) {
	if s.log != nil {
		fmt.Fprintf(s.log, "%6d  ", s.steps)
		fmt.Fprintf(s.log, format+"\n", args...)
	}
}

func newSim(seed uint64, m mutation, transcript bool) *sim {
	rnd := rand.New(rand.NewPCG(seed, 0x51))
	s := &sim{seed: seed, rnd: rnd, mutation: m, now: time.Unix(1_700_000_000, 0), shadow: newShadow()}
	if transcript {
		s.log = &strings.Builder{}
	}
	cfg := simConfig{
		allTables: rnd.IntN(2) == 0, physical: rnd.IntN(3) > 0, pageRows: 1 + rnd.IntN(4),
		stalls: rnd.IntN(3) > 0, async: rnd.IntN(2) == 0, dropEvents: rnd.IntN(2) == 0,
		fullRows: rnd.IntN(4) == 0, bigColumns: rnd.IntN(3) > 0, ddl: rnd.IntN(2) == 0, crashes: rnd.IntN(3) == 0,
		logTells: rnd.IntN(2) == 0,
	}
	s.db = newSimDB(rnd, cfg, s.trace)
	s.db.budget = 20 + rnd.IntN(120)
	s.lag = rnd.IntN(3) * 30
	s.opts = Options{
		BackfillWorkers: 1 + rnd.IntN(3), ChunkRows: 1 + rnd.IntN(8), ChunkBytes: 1 << 20,
		Rediscovery: time.Duration(50+rnd.IntN(1000)) * time.Millisecond,
	}
	s.limits = limits{
		enough: 100 + rnd.IntN(2000), windowBytes: 300 + rnd.IntN(6000), windowTxns: 2 + rnd.IntN(30),
		holesBytes: 300 + rnd.IntN(3000), storedTxns: 1 + rnd.IntN(12), storedHoleBytes: rnd.IntN(60), minChunkRows: 1,
	}
	s.db.reusable = s.reusable
	s.makeTables()
	s.checkpoints = []*simCheckpoint{{states: map[string]json.RawMessage{}}}
	s.trace("seed %d: %+v %+v %+v", seed, cfg, s.opts, s.limits)
	return s
}

// reusable implements simDB.reusable: the capture knows the column that had the name, and has read the log up to here.
func (s *sim) reusable(t *simTable, column string) bool {
	if s.db.cfg.logTells || s.reader == nil {
		return true
	}
	r := s.reader
	known := r.byID[t.id]
	if known == nil || string(r.shared.Cursor) != strconv.Itoa(len(s.db.log)) {
		return false
	}
	return !slices.ContainsFunc(known.state.Columns, func(c ColumnState) bool { return c.Name == column && c.Incarnation == "" })
}

func (s *sim) makeTables() {
	keys := [][]string{{"k"}, {"k"}, {"k1", "k2"}, nil}
	for i := range 1 + s.rnd.IntN(3) {
		b := &simBinding{
			id:       TableID{Schema: "s", Name: "t" + strconv.Itoa(i)},
			key:      keys[s.rnd.IntN(len(keys))],
			priority: s.rnd.IntN(2),
			out:      &simReduced{docs: map[string]*simDoc{}},
		}
		if s.rnd.IntN(8) == 0 {
			b.mode = OnlyChanges
		}
		s.bindings = append(s.bindings, b)
		s.db.create(b.id, b.key, s.rnd.IntN(24))
	}
	s.db.flush(len(s.db.log))
	for _, txn := range slices.Clone(s.db.invisible) {
		s.db.show(txn)
	}
}

// happen lets the world go on for a moment. It is called whenever the capture asks the log for more.
func (s *sim) happen() error {
	s.steps++
	if s.steps > 30_000 {
		return errSimStuck
	}
	s.now = s.now.Add(time.Duration(s.rnd.Int64N(int64(time.Millisecond))))
	if !s.quiet.IsZero() {
		for range 3 {
			s.pool.step()
		}
		if s.settled() {
			return errSimSettled
		}
		return nil
	}
	for range s.rnd.IntN(5) {
		if s.rnd.IntN(2) == 0 {
			s.pool.step()
		} else {
			s.db.step()
		}
	}
	if s.db.budget <= 0 && s.rnd.IntN(60) == 0 {
		s.db.quiesce()
		s.quiet = s.now
		s.trace("-- everything comes to an end")
	}
	if s.rnd.IntN(250) == 0 {
		return errSimCrash
	}
	if s.db.cfg.crashes && s.rnd.IntN(300) == 0 {
		s.db.crash()
	}
	return nil
}

// settled reports whether the capture has nothing left to do.
func (s *sim) settled() bool {
	r := s.reader
	if r.running > 0 || r.chunks > 0 || len(r.work) > 0 || r.moved || r.holdsSomething() || r.inTxn ||
		s.now.Sub(s.quiet) < 4*s.opts.Rediscovery || string(r.shared.Cursor) != strconv.Itoa(len(s.db.log)) {
		return false
	}
	for _, t := range r.tables {
		if s.db.tables[t.id] != nil && t.state.Phase != Live || s.db.tables[t.id] == nil && t.state.Phase != Missing {
			return false
		}
	}
	return true
}

// run runs the simulation to its end.
func (s *sim) run() error {
	for {
		err := s.session()
		switch {
		case err != nil && strings.Contains(err.Error(), "None of the tables"):
			s.db.comeBack()
		case errors.Is(err, errSimSettled):
			return s.final()
		case errors.Is(err, errSimCrash), err != nil && strings.Contains(err.Error(), "the server closed the connection"):
			s.trace("-- session ends: %v", err)
			s.crashed++
			s.rollback()
			s.reconfigure()
		default:
			return err
		}
	}
}

// session is the life of one process of the connector.
func (s *sim) session() error {
	last := s.checkpoints[len(s.checkpoints)-1]
	s.live = nil
	var dormant []string
	for key := range last.states {
		if !slices.ContainsFunc(s.bindings, func(b *simBinding) bool { return !b.disabled && b.stateKey() == key }) {
			dormant = append(dormant, key)
		}
	}
	slices.Sort(dormant)
	for _, sb := range s.bindings {
		if sb.disabled {
			continue
		}
		b := &capture.Binding[Resource, TableState]{
			Resource: Resource{Namespace: sb.id.Schema, Stream: sb.id.Name, Mode: sb.mode, Priority: sb.priority},
			StateKey: sb.stateKey(), New: true,
			Collection: capture.Destination{Name: sb.id.Name, Key: collectionKey(&Table{Key: sb.key})},
		}
		if raw, ok := last.states[b.StateKey]; ok {
			b.New = false
			if err := json.Unmarshal(raw, &b.State); err != nil {
				return err
			}
			if s.mutation == mutateUnseen {
				b.State.Unseen, b.State.Unsettled = nil, false
			}
			if s.mutation == mutateStoredHoles {
				b.State.Holes, b.State.Lossy = nil, false
			}
		}
		s.live = append(s.live, b)
	}
	s.pool = &simPool{s: s}
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	logger.SetLevel(logrus.ErrorLevel)
	if s.log != nil {
		logger.SetLevel(logrus.InfoLevel)
		logger.SetOutput(s.log)
		logger.SetFormatter(&logrus.TextFormatter{DisableTimestamp: true})
	}
	r, err := open(context.Background(), session{
		driver: &simDriver{s}, opts: s.opts, limits: s.limits, pool: s.pool, bindings: s.live,
		env: capture.Env{Log: logrus.NewEntry(logger), Shared: last.shared, Dormant: dormant},
		now: func() time.Time { return s.now }, rand: rand.New(rand.NewPCG(s.seed, uint64(s.steps))),
	})
	if err != nil {
		return err
	}
	s.reader = r
	s.trace("-- session begins at %s", last.shared)
	err = s.drive(r)
	return errors.Join(err, r.close())
}

func (s *sim) drive(r *reader) error {
	for {
		tx := &simTx{s: s, saved: map[capture.Target]bool{}}
		if err := r.read(context.Background(), tx); err != nil {
			return err
		}
		if err := s.checkpoint(tx); err != nil {
			return err
		}
	}
}

// simTx is a capture transaction.
type simTx struct {
	s      *sim
	saved  map[capture.Target]bool
	size   int
	shared any
	forget []string
	acks   []func(context.Context) error
	buf    []byte
}

func (tx *simTx) Append(b capture.Target, enc func([]byte) ([]byte, error)) error {
	doc, err := enc(tx.buf[:0])
	if err != nil {
		return err
	}
	tx.buf = doc
	tx.size += len(doc)
	tx.saved[b] = true
	return tx.s.apply(b, doc)
}

func (tx *simTx) Size() int                               { return tx.size }
func (tx *simTx) Schema(capture.Target, json.RawMessage)  {}
func (tx *simTx) Save(b capture.Target)                   { tx.saved[b] = true }
func (tx *simTx) SetShared(v any)                         { tx.shared = v }
func (tx *simTx) Forget(key string)                       { tx.forget = append(tx.forget, key) }
func (tx *simTx) OnAck(f func(ctx context.Context) error) { tx.acks = append(tx.acks, f) }

// apply reduces one document into the output.
func (s *sim) apply(target capture.Target, doc []byte) error {
	i := slices.IndexFunc(s.live, func(b *capture.Binding[Resource, TableState]) bool { return capture.Target(b) == target })
	var sb *simBinding
	for _, b := range s.bindings {
		if b.id == s.live[i].Resource.Table() {
			sb = b
		}
	}
	s.trace("      %s <- %s", sb.id, doc)
	s.emitted++
	d, err := parseDoc(doc)
	if err != nil {
		return err
	}
	patch := d.op == "u" && d.snapshot
	if patch && s.mutation == mutatePatch {
		return nil
	}
	if sb.key == nil {
		return s.applyKeyless(sb, d)
	}
	parts := make([]string, len(sb.key))
	for i, k := range sb.key {
		parts[i] = d.vals[k]
	}
	key := strings.Join(parts, "|")
	before := sb.out.docs[key]
	next := &simDoc{vals: d.vals, v: d.v, deleted: d.op == "d", count: 1}
	if before != nil {
		next.count += before.count
		if patch {
			next.v = before.v
		} else if d.v < before.v || d.v == before.v && !d.snapshot {
			return fmt.Errorf("key %s of %s goes back in time, from version %d to %s", key, sb.id, before.v, doc)
		}
		if !before.deleted && !s.shadow.tables[sb.id].ghost(key, before.v) && !s.db.reborn(sb.id, before.v, d.v) && !next.deleted {
			next.vals = with(before.vals, func(m map[string]string) {
				maps.Copy(m, d.vals)
			})
		}
	} else if patch {
		next.v = 0
	}
	s.journal = append(s.journal, journalEntry{sb.out, key, before})
	sb.out.docs[key] = next
	return nil
}

func (s *sim) applyKeyless(sb *simBinding, d parsed) error {
	key := d.op + strconv.Itoa(d.v)
	if d.op != "d" {
		key = "row" + strconv.Itoa(d.v)
	}
	before := sb.out.docs[key]
	next := &simDoc{vals: d.vals, v: d.v, count: 1}
	if before != nil {
		next.count += before.count
		if t := s.db.tables[sb.id]; t == nil || t.rewrites == 0 {
			return fmt.Errorf("version %d of a row of %s, which has no key, comes twice", d.v, sb.id)
		}
	}
	s.journal = append(s.journal, journalEntry{sb.out, key, before})
	sb.out.docs[key] = next
	return nil
}

// checkpoint commits a capture transaction, checks what must be true then, and acknowledges now and then.
func (s *sim) checkpoint(tx *simTx) error {
	last := s.checkpoints[len(s.checkpoints)-1]
	c := &simCheckpoint{states: map[string]json.RawMessage{}, parsed: map[string]*TableState{}, shared: last.shared, journal: len(s.journal), acks: tx.acks}
	for k, v := range last.states {
		if !slices.Contains(tx.forget, k) {
			c.states[k], c.parsed[k] = v, last.parsed[k]
		}
	}
	for _, b := range s.live {
		if tx.saved[b] {
			raw, err := json.Marshal(b.State)
			if err != nil {
				return err
			}
			c.states[b.StateKey], c.parsed[b.StateKey] = raw, &TableState{}
			if err := json.Unmarshal(raw, c.parsed[b.StateKey]); err != nil {
				return err
			}
		}
	}
	if tx.shared != nil {
		raw, err := json.Marshal(tx.shared)
		if err != nil {
			return err
		}
		c.shared = raw
	}
	s.checkpoints = append(s.checkpoints, c)
	s.trace("checkpoint %s %s", c.shared, c.states)
	if err := s.check(c, false); err != nil {
		return err
	}
	if s.rnd.IntN(4) == 0 {
		s.acknowledge(1 + s.rnd.IntN(len(s.checkpoints)-1))
	}
	return nil
}

// acknowledge makes checkpoints durable, up to the n-th.
func (s *sim) acknowledge(n int) {
	for _, c := range s.checkpoints[1 : n+1] {
		for _, f := range c.acks {
			_ = f(context.Background())
		}
	}
	s.checkpoints = s.checkpoints[n:]
	s.trace("runtime: acknowledged, the log may be forgotten up to %d", s.acked)
}

// rollback makes one of the checkpoints the last one, as if the runtime had got no further.
func (s *sim) rollback() {
	n := s.rnd.IntN(len(s.checkpoints))
	s.checkpoints = s.checkpoints[n : n+1]
	c := s.checkpoints[0]
	for _, e := range slices.Backward(s.journal[c.journal:]) {
		if e.before == nil {
			delete(e.out.docs, e.key)
		} else {
			e.out.docs[e.key] = e.before
		}
	}
	s.journal = s.journal[:c.journal]
	s.shadow = newShadow()
	s.trace("runtime: goes on from %s", c.shared)
}

// reconfigure changes the task now and then, while no session runs.
func (s *sim) reconfigure() {
	b := s.bindings[s.rnd.IntN(len(s.bindings))]
	switch n := s.rnd.IntN(20); {
	case b.disabled || n == 0:
		// It is captured anew, into an empty collection.
		b.backfill++
		b.disabled = false
		s.trace("-- %s is to be backfilled again", b.id)
	case n == 1 && len(s.live) > 1 && s.quiet.IsZero():
		b.disabled = true
		b.backfill++ // what it captured is checked no further
		s.trace("-- %s is disabled", b.id)
	default:
		return
	}
	b.out = &simReduced{docs: map[string]*simDoc{}}
}

// simPool runs jobs as coroutines, a step at a time.
type simPool struct {
	s       *sim
	running []*simJob
	current *simJob
	ended   []job
}

type simJob struct {
	j     job
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

func (p *simPool) start(j job) {
	sj := &simJob{j: j}
	sj.next, sj.stop = iter.Pull(func(yield func(struct{}) bool) {
		sj.yield = yield
		j.run(context.Background(), &simDriver{p.s})
	})
	p.running = append(p.running, sj)
}

func (p *simPool) next() job {
	if len(p.ended) == 0 {
		return nil
	}
	j := p.ended[0]
	p.ended = p.ended[1:]
	return j
}

func (p *simPool) close() {
	for _, sj := range p.running {
		p.current = sj
		sj.stop()
	}
	p.current = nil
	p.running = nil
}

// step lets one of the jobs go on.
func (p *simPool) step() {
	if len(p.running) == 0 {
		return
	}
	i := p.s.rnd.IntN(len(p.running))
	sj := p.running[i]
	p.current = sj
	if _, more := sj.next(); !more {
		p.running = slices.Delete(p.running, i, i+1)
		p.ended = append(p.ended, sj.j)
	}
	p.current = nil
}

func (p *simPool) pause(context.Context) error {
	if sj := p.current; sj != nil && !sj.yield(struct{}{}) {
		return errSimStopped
	}
	return nil
}

// holeKeys are the keys that a state lists as holes.
func holeKeys(st *TableState) map[string]bool {
	keys := map[string]bool{}
	for _, h := range st.Holes {
		values, err := tuple.Unpack(h)
		if err != nil {
			panic(err)
		}
		parts := make([]string, len(values))
		for i, v := range values {
			parts[i] = fmt.Sprint(v)
		}
		keys[strings.Join(parts, "|")] = true
	}
	return keys
}
