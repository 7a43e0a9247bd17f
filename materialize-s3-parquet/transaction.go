package main

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

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
	limit     int64 // of held
	clock     int64 // counts rows
	folder    []byte
	// started is the open file that has row groups already. There is one at most: it holds some times the memory of a row
	// group, whatever is buffered.
	started *openFile
	// converting bounds the values that become pages at the same time.
	converting *semaphore.Weighted

	// sealing runs what ends files, beside the rows that go to other ones.
	sealing *errgroup.Group
	mu      sync.Mutex
	sealed  []file
	drafts  []draft // all of them
}

func newTransaction(s *store, number uint64, sealing *errgroup.Group) *transaction {
	return &transaction{
		store: s, number: number, at: s.now().UTC(), sealing: sealing, open: map[string]*openFile{}, sequences: make([]int, len(s.tables)),
		limit: max(heldLimit, s.cfg.Advanced.RowGroupBytes), converting: semaphore.NewWeighted(convertLimit),
	}
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
	// ending says that the file's rows have room to become pages already.
	ending bool
	cost   int64 // of its columns
}

// take writes rows to their files.
func (t *transaction) take(ctx context.Context, rows *materialize.Rows) error {
	for rows.Next() {
		if err := t.add(ctx, rows.Row()); err != nil {
			return err
		}
	}
	return rows.Err()
}

// add writes a row to its file, and ends files that are large enough.
func (t *transaction) add(ctx context.Context, row *materialize.Row) error {
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
	if held == 0 && len(t.open) > 1 {
		f.writer.Shrink() // a row group was written; other files need the memory
	}
	switch {
	case f.writer.Size() >= t.cfg.FileSizeLimit:
		t.seal(ctx, f)
	case t.held > t.limit:
		t.seal(ctx, t.which(func(f *openFile) int64 { return f.held }))
	}
	return ctx.Err()
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
	f := &openFile{key: string(t.folder), table: tab, cost: columnCost * int64(t.format.columns(row.Binding))}
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
	}), func() func() {
		if f.ending {
			return func() {}
		}
		if t.started != nil && t.started != f {
			t.seal(ctx, t.started)
		}
		t.started = f
		return t.room(ctx, f.writer.Buffered()+f.cost)
	})
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

// room waits until so many bytes of values may become pages. What needs more than there is gets all. When the transaction is
// over nobody waits: what comes next fails.
func (t *transaction) room(ctx context.Context, bytes int64) (release func()) {
	bytes = min(bytes, convertLimit)
	if t.converting.Acquire(ctx, bytes) != nil {
		return func() {}
	}
	return func() { t.converting.Release(bytes) }
}

// seal ends a file, on another goroutine; it waits while too many end.
func (t *transaction) seal(ctx context.Context, f *openFile) {
	delete(t.open, f.key)
	t.held -= f.held
	if t.started == f {
		t.started = nil
	}
	release := t.room(ctx, f.held+f.cost)
	f.ending = true
	t.sealing.Go(func() error {
		err := f.writer.Close()
		f.writer = nil // what it holds is not needed while the rest is sent
		release()
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
