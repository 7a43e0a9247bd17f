package main

import (
	"context"
	"errors"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/sdk/materialize"
)

const (
	// finishing is how many files are sealed or finished at the same time.
	finishing = 8
	// heldLimit bounds what all open files together hold in memory, in bytes, if a row group is not to be larger. Beyond it
	// the file that holds the most ends.
	heldLimit = 64 << 20
	// convertLimit bounds the values that become pages at the same time, in bytes, and columnCost is what a column needs besides.
	convertLimit = 64 << 20
	columnCost   = 32 << 10
)

// work is what one transaction staged.
type work struct {
	Files []file `json:"files"`
}

// store implements materialize.StagedStore and materialize.Resumer over a place.
type store struct {
	cfg    config
	place  place
	format format
	names  namer
	tables []*table
	log    *logrus.Entry
	now    func() time.Time

	committed map[materialize.KeyRange]uint64
	// staged says that this session has staged something, swept that it looked for abandoned drafts behind that.
	staged, swept bool
}

// Resume implements materialize.Resumer: it cleans up after earlier sessions.
func (s *store) Resume(ctx context.Context, committed map[materialize.KeyRange]uint64, pending []work) error {
	s.committed = committed
	if len(committed) > 0 {
		s.sweep(ctx, pending)
	}
	return ctx.Err()
}

// sweep removes what was abandoned for good: drafts of transactions whose numbers are committed, and which are not pending. What
// has a higher number may belong to a newer instance, and stays. Drafts take up room and nothing else, so a store that does
// not let them be listed is no reason to stop.
func (s *store) sweep(ctx context.Context, pending []work) {
	wanted := map[string]bool{}
	for _, w := range pending {
		for _, f := range w.Files {
			wanted[f.Draft] = true
		}
	}
	count, err := s.place.sweep(ctx, s.names.literal(), func(name, draft string) bool {
		keys, transaction, ours := s.names.parse(name)
		committed, looked := s.committed[keys]
		return ours && looked && transaction <= committed && !wanted[draft]
	})
	if count > 0 {
		s.log.WithField("files", count).Info("removed what interrupted transactions had left")
	}
	if err != nil {
		s.log.WithError(err).Warn("what interrupted transactions may have left could not be removed")
	}
}

// Stage implements materialize.StagedStore.
func (s *store) Stage(ctx context.Context, number uint64, rows *materialize.Rows) (work, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(finishing)
	t := newTransaction(s, number, g)
	err := t.take(ctx, rows)
	if err == nil {
		err = t.sealAll(ctx)
	}
	// A failure on another goroutine is the cause; what it made of the others is not.
	if waiting := g.Wait(); waiting != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = waiting
	}
	if err != nil {
		t.discard()
		return work{}, err
	}
	s.committed[s.names.keys], s.staged = number, true // committed when it is applied, and not looked at before
	return work{Files: t.sealed}, nil
}

// Apply implements materialize.StagedStore.
func (s *store) Apply(ctx context.Context, staged work) error {
	g, finishingCtx := errgroup.WithContext(ctx)
	g.SetLimit(finishing)
	for _, f := range staged.Files {
		g.Go(func() error { return s.finish(finishingCtx, f) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var rows int64
	for _, f := range staged.Files {
		rows += f.Rows
	}
	s.log.WithFields(logrus.Fields{"files": len(staged.Files), "rows": rows}).Debug("completed files")
	if s.staged && !s.swept {
		// Attempts at this very transaction that were interrupted before this session are abandoned for good only now.
		s.swept = true
		s.sweep(ctx, nil)
	}
	return nil
}

func (s *store) finish(ctx context.Context, f file) error {
	at, err := placeOf(ctx, s.cfg, s.place, f.Place)
	if err != nil {
		return err
	}
	err = at.finish(ctx, f)
	gone, ok := errors.AsType[*goneError](err)
	if !ok {
		return err
	}
	if s.leaving(f) {
		s.log.WithFields(logrus.Fields{"file": f.Name, "rows": f.Rows}).Warn("what was staged of a table that is being replaced or removed is gone; it is left out")
		return nil
	}
	return lost(f, gone)
}

// leaving says whether a file belongs to a table that is about to be replaced or removed.
func (s *store) leaving(f file) bool {
	for _, t := range s.tables {
		if t.path == f.Path && t.backfill == f.Backfill {
			return t.leaving
		}
	}
	return false
}

// Close implements materialize.StagedStore. What was staged stays: the runtime may have committed it.
func (s *store) Close() error { return nil }

// table is a binding, planned once for a session.
type table struct {
	path       string
	backfill   uint32
	leaving    bool
	partitions []tablePartition
}

// tablePartition is one level of folders: an element of the rows, or a text for the whole transaction.
type tablePartition struct {
	partition
	inKey bool
	index int
}

func newTable(b *materialize.Binding[resource]) (*table, error) {
	t := &table{path: b.Resource.Path, backfill: b.Backfill, leaving: b.Leaving}
	for _, text := range b.Resource.PartitionBy {
		p := tablePartition{partition: parsePartition(text), index: -1}
		for i, f := range b.Keys {
			if f.Name == p.name {
				p.inKey, p.index = true, i
			}
		}
		for i, f := range b.Values {
			if f.Name == p.name {
				p.index = i
			}
		}
		if p.pattern == "" && p.index < 0 {
			return nil, missingPartition(t.path, p.name)
		}
		t.partitions = append(t.partitions, p)
	}
	return t, nil
}

// appendPartitions appends the folders of a row.
func (t *table) appendPartitions(dst []byte, row *materialize.Row, at time.Time) []byte {
	for i := range t.partitions {
		p := &t.partitions[i]
		switch {
		case p.pattern != "":
			dst = append(appendEscaped(dst, []byte(p.name)), '=')
			dst = append(appendEscaped(dst, []byte(expandPattern(p.pattern, at))), '/')
		case p.inKey:
			dst = appendPartition(dst, p.name, row.Key[p.index])
		default:
			dst = appendPartition(dst, p.name, row.Values[p.index])
		}
	}
	return dst
}
