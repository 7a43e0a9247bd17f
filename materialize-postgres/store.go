package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// store is an opened destination: materialize.AtomicStore and materialize.Loader. Rows and commits go through one
// connection, keys and loaded rows through another, so that loading can go on beside a commit.
type store struct {
	env    materialize.Env
	cfg    config
	tables []*table
	fence  *fence
	w      *conn // writes
	r      *conn // reads
	rows   copier
	keys   copier
	// By binding: rows that the runtime did not find when it loaded them, or for delta updates all rows; rows that it
	// found; keys to delete; keys to load.
	fresh, known, gone, ask []*batch
	open                    bool // a transaction of w is open
}

// Open implements materialize.Sink.
func (sink) Open(
	ctx context.Context, env materialize.Env, cfg config, bindings []*materialize.Binding[resource],
) (*materialize.Transactor, error) {
	s := &store{env: env, cfg: cfg}
	if err := s.connect(ctx, bindings); err != nil {
		_ = s.Close()
		return nil, err
	}
	t := materialize.Atomic(s)
	for _, table := range s.tables {
		t.LoadAll = t.LoadAll || table.loadAll
	}
	return t, nil
}

func (s *store) connect(ctx context.Context, bindings []*materialize.Binding[resource]) (err error) {
	if s.w, err = connect(ctx, s.cfg, applicationName(s.env.Task)); err != nil {
		return err
	}
	if s.r, err = connect(ctx, s.cfg, applicationName(s.env.Task)); err != nil {
		return err
	}
	// Rows that were copied into tables lock their keys. If everything hangs now, a successor waits for them: as long
	// as it has patience, and no longer.
	stalled := quoteLiteral(strconv.FormatInt(s.cfg.Advanced.lockTimeout().Milliseconds(), 10))
	if err := s.w.exec(ctx, "SET SESSION idle_in_transaction_session_timeout = "+stalled); err != nil {
		return fmt.Errorf("preparing the session: %w", err)
	}
	names := make([]tableName, len(bindings))
	for i, b := range bindings {
		names[i] = nameOf(b.Target.Path)
	}
	cat, err := readCatalog(ctx, s.w, s.cfg.schema(), names)
	if err != nil {
		return err
	}
	if !cat.meta {
		return usererr.New(nil, "The tables %s and %s do not exist in schema %q. They are created when the materialization is applied; if they were dropped by hand, apply it again.", checkpointsTable, tablesTable, s.cfg.schema())
	}
	s.rows.c, s.keys.c = s.w, s.r
	for _, b := range bindings {
		t, err := planTable(cat, b, s.env.Task)
		if err != nil {
			return err
		}
		s.addTable(t)
	}
	s.fence = newFence(s.w, s.cfg, s.env)
	return nil
}

func (s *store) addTable(t *table) {
	s.tables = append(s.tables, t)
	stage := func(temp string, columns int) *batch {
		return &batch{staged: copyInto(temp), prepare: t.createTemp(temp, columns)}
	}
	fresh := stage(t.fresh, len(t.columns))
	switch {
	case t.history != nil:
		fresh.prepare = t.createVersions()
	case t.direct() && t.delta && !t.casts(len(t.columns)):
		fresh = &batch{direct: t.copyDirect()} // no key, nothing to collide with, nothing too long
	case t.direct():
		fresh.direct, fresh.fitted = t.copyDirect(), t.casts(len(t.columns))
	}
	known, gone := stage(t.known, len(t.columns)), stage(t.gone, t.nkeys)
	ask := &batch{staged: copyInto(t.keys), prepare: t.createKeys()}
	s.fresh, s.known, s.gone, s.ask = append(s.fresh, fresh), append(s.known, known), append(s.gone, gone), append(s.ask, ask)
	s.rows.batches = append(s.rows.batches, fresh, known, gone)
	s.keys.batches = append(s.keys.batches, ask)
}

// Fence implements materialize.AtomicStore.
func (s *store) Fence(ctx context.Context) (materialize.Checkpoint, error) {
	cp, err := s.fence.acquire(ctx)
	for _, t := range s.tables {
		if err == nil && t.history != nil {
			err = s.readNewest(ctx, t) // behind the fence: an older session may have committed until then
		}
	}
	return cp, err
}

// begin opens the transaction that ends with Commit. Its isolation is what the statements are written for, whatever the
// server's default is.
func (s *store) begin(ctx context.Context) error {
	if s.open {
		return nil
	}
	s.open = true
	return s.w.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED")
}

// Store implements materialize.AtomicStore.
func (s *store) Store(ctx context.Context, rows *materialize.Rows) error {
	return s.fence.why(ctx, s.cfg, s.store(ctx, rows))
}

func (s *store) store(ctx context.Context, rows *materialize.Rows) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.encode(ctx, rows); err != nil {
		_ = s.rows.join()
		return err
	}
	return s.rows.flush(ctx)
}

func (s *store) encode(ctx context.Context, rows *materialize.Rows) error {
	for rows.Next() {
		r := rows.Row()
		t := s.tables[r.Binding]
		b, encode := s.fresh[r.Binding], (*table).appendRow
		switch {
		case t.history != nil:
			encode = (*table).appendVersion
		case r.Delete && s.cfg.HardDelete && !t.delta:
			b, encode = s.gone[r.Binding], (*table).appendGone
		case r.Exists:
			b = s.known[r.Binding]
		}
		buf, err := encode(t, s.rows.room(b), r)
		if err != nil {
			return err
		}
		if err := s.rows.grown(ctx, b, buf); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Commit implements materialize.AtomicStore: the fence and checkpoint first, so that an instance that was locked out does
// not lock rows which its successor is waiting for; then the rows.
func (s *store) Commit(ctx context.Context, cp materialize.Checkpoint) error {
	return s.fence.why(ctx, s.cfg, s.commit(ctx, cp))
}

func (s *store) commit(ctx context.Context, cp materialize.Checkpoint) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.fence.update(ctx, cp); err != nil {
		return err
	}
	if err := s.merge(ctx); err != nil {
		return fmt.Errorf("merging rows: %w", err)
	}
	if err := s.w.exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	s.open = false
	return nil
}

// Close implements materialize.AtomicStore. The server rolls back what is open.
func (s *store) Close() error {
	s.w.close()
	s.r.close()
	return nil
}
