package main

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/materialize-s3-parquet/internal/parquet"
	"github.com/sluicedata/sluice/sdk/materialize"
)

// transaction is one transaction while its rows come in.
type transaction struct {
	*store
	number uint64
	at     time.Time
	// open are the files that rows still go to, by table and partition.
	open      map[string]*openFile
	sequences []int // by table: files that were begun
	held      int64 // bytes that open files hold in memory
	clock     int64 // counts rows
	folder    []byte

	// sealing runs what ends files, beside the rows that go to other ones.
	sealing *errgroup.Group
	mu      sync.Mutex
	sealed  []file
	drafts  []draft // all of them
}

// openFile is a file that rows go to.
type openFile struct {
	key    string
	table  *table
	draft  draft
	writer *parquet.Writer
	rows   int64
	held   int64
	used   int64 // when the last row came, by the transaction's clock
}

// take writes rows to their files.
func (t *transaction) take(ctx context.Context, rows *materialize.Rows) error {
	for rows.Next() {
		row := rows.Row()
		f, err := t.fileOf(ctx, row)
		if err != nil {
			return err
		}
		if err := f.writer.Append(row); err != nil {
			return err
		}
		t.clock++
		f.rows, f.used = f.rows+1, t.clock
		held := f.writer.Buffered()
		t.held += held - f.held
		f.held = held
		switch {
		case f.writer.Size() >= t.cfg.FileSizeLimit:
			t.seal(ctx, f)
		case t.held > heldLimit:
			t.seal(ctx, t.which(func(f *openFile) int64 { return f.held }))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// fileOf returns the open file that a row goes to, and begins one if there is none.
func (t *transaction) fileOf(ctx context.Context, row *materialize.Row) (*openFile, error) {
	tab := t.tables[row.Binding]
	t.folder = append(t.folder[:0], byte(row.Binding), byte(row.Binding>>8), byte(row.Binding>>16), byte(row.Binding>>24))
	t.folder = tab.appendPartitions(t.folder, row, t.at)
	if f, ok := t.open[string(t.folder)]; ok {
		return f, nil
	}
	if len(t.open) >= t.cfg.Advanced.OpenPartitions {
		t.seal(ctx, t.which(func(f *openFile) int64 { return -f.used }))
	}
	folder := t.names.tableFolder(tab.path, tab.backfill, t.at)
	if partitions := string(t.folder[4:]); partitions != "" {
		folder += "/" + partitions[:len(partitions)-1]
	}
	t.sequences[row.Binding]++
	name, err := t.names.file(folder, t.number, t.sequences[row.Binding])
	if err != nil {
		return nil, err
	}
	f := &openFile{key: string(t.folder), table: tab}
	if f.draft, err = t.place.create(ctx, name); err != nil {
		return nil, err
	}
	t.open[f.key] = f
	t.drafts = append(t.drafts, f.draft)
	f.writer, err = t.format.writer(row.Binding, writerFunc(func(p []byte) (int, error) {
		if err := f.draft.write(ctx, p); err != nil {
			return 0, err
		}
		return len(p), nil
	}))
	return f, err
}

// writerFunc is an io.Writer. It carries the transaction's context to the draft without keeping it.
type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// which returns the open file with the greatest measure.
func (t *transaction) which(measure func(*openFile) int64) *openFile {
	var best *openFile
	for _, f := range t.open {
		if best == nil || measure(f) > measure(best) {
			best = f
		}
	}
	return best
}

// seal ends a file, on another goroutine; it waits while too many end.
func (t *transaction) seal(ctx context.Context, f *openFile) {
	delete(t.open, f.key)
	t.held -= f.held
	t.sealing.Go(func() error {
		err := f.writer.Close()
		var done file
		if err == nil {
			done, err = f.draft.seal(ctx)
		}
		if err != nil {
			return err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		done.Rows, done.Path, done.Backfill = f.rows, f.table.path, f.table.backfill
		t.sealed = append(t.sealed, done)
		return nil
	})
}

// sealAll ends what is open.
func (t *transaction) sealAll(ctx context.Context) error {
	for _, f := range t.open {
		t.seal(ctx, f)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// discard removes everything that the transaction wrote. Nothing of it runs any more.
func (t *transaction) discard() {
	for _, d := range t.drafts {
		d.discard()
	}
}
