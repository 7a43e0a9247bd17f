package collection

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/infer"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Watch returns the newest version of a collection, and what looks at its documents as they come; the latter is nil if the schema leaves
// nothing to be learned. It belongs to the caller, who hands what it learns to Learn before the documents are committed. Documents in which
// it finds nothing new may need the version, all of it: another capture of the collection may have learned in the meantime what they have.
func (r *Registry) Watch(name string) (*Version, *infer.Tree, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[name]
	if e != nil {
		if err := r.follow(e); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case e == nil:
		return nil, nil, fmt.Errorf("watching documents of %q: there is no such collection", name)
	case !e.written.Infer:
		return e.version, nil, nil
	}
	tree, err := e.watch()
	return e.version, tree, err
}

func (e *entry) watch() (*infer.Tree, error) {
	sourced, learned, err := e.record.shapes()
	if err != nil {
		return nil, err
	}
	return infer.New(e.written, sourced, learned, e.def.Depth), nil
}

// Learn adds what was learned from documents, and returns the version that they need. It is durable when Learn returns, which may be
// earlier than the documents are: a schema only widens.
func (r *Registry) Learn(ctx context.Context, name string, learned *schema.Shape) (*Version, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[name]
	if e == nil {
		return nil, fmt.Errorf("learning of documents of %q: there is no such collection", name)
	}
	if err := r.learn(ctx, e, learned); err != nil {
		return nil, err
	}
	return e.version, nil
}

func (r *Registry) learn(ctx context.Context, e *entry, learned *schema.Shape) error {
	before := e.record.Version
	err := r.change(ctx, e, func(rec *record) error {
		_, known, err := rec.shapes()
		if err == nil {
			rec.Learned = schema.Widen(known, learned).JSON()
		}
		return err
	})
	if err != nil || e.record.Version == before {
		return err
	}
	return r.copyRecords()
}

// Review looks at documents that are in the log already, where nobody learned from them when they came: those of collections that
// began to leave something to be learned, or more than before. It is called once, before anything reads the log. Errors are for people.
func (r *Registry) Review(ctx context.Context, log wal.Log, logger *logrus.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, e := range r.all {
		scope := infer.ScopeOf(e.written, e.def.Depth)
		if scope == nil && e.record.Watched == nil {
			continue
		}
		if !scope.Within(e.record.Watched) {
			if err := r.review(ctx, log, logger.WithField("collection", name), e); err != nil {
				return err
			}
		}
		if scope.Equal(e.record.Watched) {
			continue
		}
		if err := r.watched(ctx, e, scope); err != nil {
			return err
		}
	}
	return nil
}

// watched notes where documents are looked at from now on.
func (r *Registry) watched(ctx context.Context, e *entry, scope *infer.Scope) error {
	next := *e
	err := wal.Update(ctx, r.store, func() (wal.Records, error) {
		next = *e
		if err := r.reread(&next); err != nil {
			return nil, err
		}
		next.record.Watched = scope
		text, err := json.Marshal(next.record)
		if err != nil {
			return nil, fmt.Errorf("encoding the schema of %s: %w", e.def.Name, err)
		}
		next.stored = text
		return wal.Records{recordName(e.def.Name): text}, nil
	})
	if err != nil {
		return err
	}
	_, err = next.compile()
	if err == nil {
		*e = next
	}
	return err
}

func (r *Registry) review(ctx context.Context, log wal.Log, logger *logrus.Entry, e *entry) error {
	tree, err := e.watch()
	if err != nil {
		return err
	}
	documents := 0
	for _, head := range log.Heads(e.def.Name) {
		n, err := reviewJournal(ctx, log, head, tree)
		if err != nil {
			return err
		}
		documents += n
	}
	if documents > 0 {
		logger.WithField("documents", documents).Info("looked for fields in documents that are in the log")
	}
	if !tree.News() {
		return nil
	}
	return r.learn(ctx, e, tree.Learned())
}

func reviewJournal(ctx context.Context, log wal.Log, head wal.Head, tree *infer.Tree) (documents int, err error) {
	reader, err := log.Reader(head.Journal, 0, head.Offset)
	if err != nil {
		return 0, err
	}
	defer func() {
		if closeErr := reader.Close(); err == nil {
			err = closeErr
		}
	}()
	for ctx.Err() == nil {
		block, _, ok, err := reader.Next()
		if err != nil || !ok {
			return documents, err
		}
		documents += block.Count
		if err := block.Docs(func(doc []byte) error { tree.Valid(doc); return nil }); err != nil {
			return documents, err
		}
	}
	return documents, ctx.Err()
}
