package main

import (
	"context"
	"fmt"

	"github.com/sluicedata/sluice/sdk/materialize"
)

// Load implements materialize.Loader: keys go to temporary tables as they come, beside the previous commit; then one
// join for each table that was asked for. The join sees what has been committed when it starts.
func (s *store) Load(ctx context.Context, keys *materialize.Keys, found func(int, []byte) error) error {
	if err := s.r.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED"); err != nil {
		return err
	}
	for keys.Next() {
		i := keys.Binding()
		buf, err := s.tables[i].appendLoadKey(s.keys.room(s.ask[i]), keys.Key())
		if err != nil {
			return err
		}
		if err := s.keys.grown(ctx, s.ask[i], buf); err != nil {
			return err
		}
	}
	if err := keys.Err(); err != nil {
		return err
	}
	if err := s.keys.flush(ctx); err != nil {
		return err
	}
	for i, t := range s.tables {
		if s.ask[i].take() == 0 {
			continue
		}
		if err := s.r.keepStaged(ctx, t, t.nkeys); err != nil {
			return err
		}
		if err := s.loadTable(ctx, t, found); err != nil {
			return fmt.Errorf("loading from %s: %w", t.name, s.r.culprit(ctx, t, err, staging{t.keys, t.nkeys}))
		}
	}
	return s.r.exec(ctx, "COMMIT")
}

func (s *store) loadTable(ctx context.Context, t *table, found func(int, []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.r.timeout)
	defer cancel()
	reader := s.r.pg.ExecParams(ctx, t.load(), nil, nil, nil, t.resultFormats())
	var doc []byte
	var failed error
	for failed == nil && reader.NextRow() {
		row := reader.Values()
		doc = doc[:0]
		if t.hasDoc {
			doc = append(doc, row[0]...)
		} else {
			doc, failed = t.doc.append(doc, row)
		}
		// A row without its document was not stored by us, or before the document was selected.
		if failed == nil && len(doc) > 0 {
			failed = found(t.index, doc)
		}
	}
	_, err := reader.Close()
	if failed != nil {
		return failed
	}
	return s.r.explain(ctx, err)
}
