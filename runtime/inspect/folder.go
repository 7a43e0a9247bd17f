package inspect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/wal"
)

// folder is a log that this process has open, here or elsewhere. It is safe for use by many goroutines.
type folder struct{ wal.Engine }

// Report implements Log.
func (f *folder) Report(context.Context) (*Report, error) {
	report := &Report{Collections: []Collection{}}
	spans := map[wal.Journal]wal.Span{}
	for _, name := range f.Journals() { // by collection
		span, err := f.Span(name)
		if err != nil {
			return nil, err
		}
		spans[name] = span
		n := len(report.Collections)
		if n == 0 || report.Collections[n-1].Name != name.Collection {
			report.Collections = append(report.Collections, Collection{Name: name.Collection, Readers: []Reader{}})
			n++
		}
		c := &report.Collections[n-1]
		c.Journals = append(c.Journals, Journal{
			Capture: name.Part, Start: span.Start, Head: span.Head, First: span.First, Last: span.Last,
			Documents: span.Documents, Commits: span.Commits, Uncounted: span.Uncounted,
			Size: f.Behind(name, span.Start),
		})
	}
	readers, err := materialize.Readers(f, nil)
	if err != nil {
		return nil, err
	}
	for _, r := range readers {
		row, err := f.reader(r, spans[r.Journal])
		if err != nil {
			return nil, err
		}
		for i := range report.Collections {
			if c := &report.Collections[i]; c.Name == r.Journal.Collection {
				c.Readers = append(c.Readers, row)
			}
		}
	}
	return report, nil
}

func (f *folder) reader(r materialize.Reader, span wal.Span) (Reader, error) {
	out := Reader{
		Materialization: r.Materialization, Binding: r.StateKey, Capture: r.Journal.Part,
		Position: r.Offset, Bytes: max(f.Behind(r.Journal, r.Offset), 0), Documents: span.Documents,
	}
	if out.Bytes == 0 {
		out.Documents, out.Through = 0, span.Last
		return out, nil
	}
	through, err := f.Through(r.Journal, r.Offset)
	if err != nil || through.End <= span.Start {
		return out, err
	}
	last, err := f.Through(r.Journal, span.Head)
	out.Documents, out.Through = last.Documents-through.Documents, through.Time
	return out, err
}

// feed is a journal that is being read, with its next block at hand.
type feed struct {
	reader wal.Reader
	block  wal.Block
}

// Documents implements Log. Several captures' documents come in the order in which they were appended.
func (f *folder) Documents(ctx context.Context, q Query, out io.Writer) (err error) {
	var feeds []*feed
	defer func() {
		for _, feed := range feeds {
			err = errors.Join(err, feed.reader.Close())
		}
	}()
	for _, h := range f.Heads(q.Collection) {
		reader, err := f.open(h, q)
		if err != nil {
			return err
		}
		feed := &feed{reader: reader}
		feeds = append(feeds, feed)
	}
	if len(feeds) == 0 {
		return unknown(q.Collection, f.collections())
	}
	buffered := bufio.NewWriter(out)
	if err := copyDocuments(ctx, feeds, q.Limit, buffered); err != nil {
		return err
	}
	return buffered.Flush()
}

// open reads a journal between the times of a query.
func (f *folder) open(h wal.Head, q Query) (wal.Reader, error) {
	place := func(t time.Time, otherwise int64) (int64, error) {
		if t.IsZero() {
			return otherwise, nil
		}
		return f.At(h.Journal, t)
	}
	from, err := place(q.From, h.Start)
	if err != nil {
		return nil, err
	}
	to, err := place(q.To, h.Offset)
	if err != nil {
		return nil, err
	}
	return f.Reader(h.Journal, from, max(from, to))
}

// collections are those that have something.
func (f *folder) collections() []string {
	var names []string
	for _, j := range f.Journals() {
		names = append(names, j.Collection)
	}
	return slices.Compact(names)
}

// errEnough ends a copy whose limit is reached.
var errEnough = errors.New("there are enough documents")

func copyDocuments(ctx context.Context, feeds []*feed, limit int, out *bufio.Writer) error {
	written := 0
	write := func(doc []byte) error {
		_, err := out.Write(doc)
		if err == nil {
			err = out.WriteByte('\n')
		}
		if err != nil {
			return fmt.Errorf("writing documents: %w", err)
		}
		if written++; written == limit {
			return errEnough
		}
		return nil
	}
	waiting := feeds[:0:0]
	for _, f := range feeds {
		ok, err := f.next()
		if err != nil {
			return err
		}
		if ok {
			waiting = append(waiting, f)
		}
	}
	for len(waiting) > 0 && ctx.Err() == nil {
		oldest := 0
		for i, f := range waiting {
			if f.block.Sealed.Before(waiting[oldest].block.Sealed) {
				oldest = i
			}
		}
		if err := waiting[oldest].block.Docs(write); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
		ok, err := waiting[oldest].next()
		if err != nil {
			return err
		}
		if !ok {
			waiting = append(waiting[:oldest], waiting[oldest+1:]...)
		}
	}
	return ctx.Err()
}

func (f *feed) next() (ok bool, err error) {
	f.block, _, ok, err = f.reader.Next()
	return ok, err
}
