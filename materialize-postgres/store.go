package main

import (
	"context"
	"fmt"
	"strings"

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
	stage  []*batch // by binding: staged or, for delta updates, direct rows
	gone   []*batch // by binding: keys to delete
	ask    []*batch // by binding: keys to load
	open   bool     // a transaction of w is open
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
	stage := &batch{statement: copyInto(t.stage), prepare: t.createTemp(t.stage, len(t.columns))}
	if t.delta && t.native() {
		// There is no key that could collide, so rows need no staging.
		stage = &batch{statement: t.copyDirect()}
	}
	gone := &batch{statement: copyInto(t.gone), prepare: t.createTemp(t.gone, t.nkeys)}
	ask := &batch{statement: copyInto(t.keys), prepare: t.createKeys()}
	s.stage, s.gone, s.ask = append(s.stage, stage), append(s.gone, gone), append(s.ask, ask)
	s.rows.batches = append(s.rows.batches, stage, gone)
	s.keys.batches = append(s.keys.batches, ask)
}

// Fence implements materialize.AtomicStore.
func (s *store) Fence(ctx context.Context) (materialize.Checkpoint, error) {
	return s.fence.acquire(ctx)
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
		t, b := s.tables[r.Binding], s.stage[r.Binding]
		var buf []byte
		var err error
		if r.Delete && s.cfg.HardDelete && !t.delta {
			if !r.Exists {
				continue // created and deleted within one transaction
			}
			b = s.gone[r.Binding]
			buf, err = t.appendKey(s.rows.room(b), r.Key)
		} else {
			buf, err = t.appendRow(s.rows.room(b), r)
		}
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
// not lock rows which its successor is waiting for; then one statement for each table that has rows.
func (s *store) Commit(ctx context.Context, cp materialize.Checkpoint) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.fence.update(ctx, cp); err != nil {
		return err
	}
	var statements []string
	for i, t := range s.tables {
		if s.gone[i].used {
			statements = append(statements, t.remove())
		}
		if s.stage[i].used && s.stage[i].statement != t.copyDirect() {
			statements = append(statements, t.merge())
		}
		s.stage[i].used, s.gone[i].used = false, false
	}
	statements = append(statements, "COMMIT")
	if err := s.w.exec(ctx, strings.Join(statements, ";")); err != nil {
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
