package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/capture"
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
	slot     simSlot
	pass     *simPass // in progress

	bindings    []*simBinding
	reader      *reader
	losses      bool // the log is lost now and then
	live        []*capture.Binding[Resource, TableState]
	checkpoints []*simCheckpoint // the first one is durable
	journal     []journalEntry
	shadow      *simShadow

	quiet                  time.Time // when everything was brought to an end
	steps                  int
	log                    *strings.Builder // the transcript; nil if nobody reads it
	crashed                int
	emitted, emittedBefore int // documents; before the session
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
	columns  []string
	exclude  []string
	priority int
	backfill int
	disabled bool
	out      *simReduced
}

// has reports whether the binding captures a column.
func (b *simBinding) has(column string) bool {
	sel := Selection{Columns: b.columns, Exclude: b.exclude}
	return sel.Has(Column{Name: column})
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
	s := &sim{seed: seed, rnd: rnd, mutation: m, now: time.Unix(1_700_000_000, 0)}
	if transcript {
		s.log = &strings.Builder{}
	}
	cfg := simConfig{
		allTables: rnd.IntN(2) == 0, physical: rnd.IntN(3) > 0, pageRows: 1 + rnd.IntN(4),
		stalls: rnd.IntN(3) > 0, async: rnd.IntN(2) == 0, dropEvents: rnd.IntN(2) == 0,
		fullRows: rnd.IntN(4) == 0, bigColumns: rnd.IntN(3) > 0, ddl: rnd.IntN(2) == 0, crashes: rnd.IntN(3) == 0,
		logTells: rnd.IntN(2) == 0, huge: rnd.IntN(3) == 0, parts: rnd.IntN(3) == 0, once: seed%3 == 0,
	}
	s.db = newSimDB(rnd, cfg, s.trace)
	s.db.budget = 20 + rnd.IntN(120)
	s.lag = rnd.IntN(3) * 30
	s.opts = Options{
		BackfillWorkers: 1 + rnd.IntN(3), ChunkRows: 1 + rnd.IntN(8), ChunkBytes: 100 << rnd.IntN(12),
		Rediscovery:    time.Duration(50+rnd.IntN(1000)) * time.Millisecond,
		OnOversizedRow: OversizePlaceholder,
		OnTruncate:     []TruncatePolicy{TruncateIgnore, TruncateBackfill}[rnd.IntN(2)],
	}
	if rnd.IntN(3) == 0 {
		s.opts.OnOversizedRow = OversizeSkip
	}
	s.limits = limits{
		document: 1 << 20,
		enough:   100 + rnd.IntN(2000), windowBytes: 300 + rnd.IntN(6000), windowTxns: 2 + rnd.IntN(30),
		holesBytes: 300 + rnd.IntN(3000), storedTxns: 1 + rnd.IntN(12), storedHoleBytes: rnd.IntN(60), minChunkRows: 1,
	}
	s.db.reusable = s.reusable
	s.losses = rnd.IntN(3) == 0
	s.shadow = newShadow(s.opts.OnOversizedRow)
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
		if s.mutation == mutateJoin || s.mutation == mutateOnce {
			b.key = nil // others would not notice
		}
		if s.rnd.IntN(8) == 0 {
			b.mode = OnlyChanges
		}
		switch s.rnd.IntN(6) {
		case 0:
			b.exclude = []string{"a"}
		case 1:
			b.columns = append(slices.Clone(b.key), "v")
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
	if s.losses && s.rnd.IntN(400) == 0 {
		s.slot.lose(s)
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
		case errors.Is(err, errSimCrash), err != nil && strings.Contains(err.Error(), "the server closed the connection"),
			err != nil && strings.Contains(err.Error(), "so it is read in one pass, and that was interrupted"):
			s.trace("-- session ends: %v", err)
			s.crashed++
			s.rollback()
			s.reconfigure()
		case err != nil && strings.Contains(err.Error(), "Only changes are captured of"):
			s.trace("-- session ends: %v", err)
			s.rollback()
			s.acceptGaps()
		case errors.Is(err, ErrPositionLost): // again, too soon
			s.rollback()
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
			Resource: Resource{
				Namespace: sb.id.Schema, Stream: sb.id.Name, Mode: sb.mode, Priority: sb.priority, Columns: sb.columns, ExcludeColumns: sb.exclude,
			},
			StateKey: sb.stateKey(), New: true,
			Collection: capture.Destination{Name: sb.id.Name, Key: collectionKey(&Table{Key: sb.key})},
		}
		if raw, ok := last.states[b.StateKey]; ok {
			b.New = false
			if err := json.Unmarshal(raw, &b.State); err != nil {
				return err
			}
			if s.mutation == mutateWithheld {
				b.State.Withheld = nil
			}
			if s.mutation == mutateUnseen {
				b.State.Unseen, b.State.Unsettled = nil, false
			}
			if s.mutation == mutateOmitted {
				b.State.Omitted = nil
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
	s.reader, s.emittedBefore = r, s.emitted
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
		if err := s.keep(tx); err != nil {
			return err
		}
	}
}
