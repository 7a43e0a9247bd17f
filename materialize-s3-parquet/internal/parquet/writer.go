package parquet

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/compress/gzip"
	"github.com/parquet-go/parquet-go/compress/snappy"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Options are how files are written. The zero value is good.
type Options struct {
	// Table names the binding in errors.
	Table string
	// Compression is zstd (also if empty), snappy, gzip or none.
	Compression string
	// RowGroupRows and RowGroupBytes end a row group, whichever comes first; zero means a million, and 64 MiB before
	// compression. Row groups are held in memory until they are written.
	RowGroupRows  int
	RowGroupBytes int64
	// BloomFilters writes a Bloom filter of every column of the key, for readers that look for single rows.
	BloomFilters bool
	// Room, if it is set, is called before values become pages, which takes some times their memory, and release after it.
	Room func() (release func())
}

const (
	defaultRowGroupRows  = 1_000_000
	defaultRowGroupBytes = 64 << 20
	// openPages is how much memory the pages and dictionaries of all columns may take while a row group is written.
	openPages = 16 << 20
	// manyColumns is from when on row groups are half as large: so many buffers, which grow one by one, and so many open pages
	// take as much again.
	manyColumns = 64
)

// Writer writes one file. It is for one goroutine at a time.
type Writer struct {
	out     *counter
	schema  *Schema
	options Options
	buffers []*buffer
	absent  *absentees
	file    *pq.GenericWriter[any] // made when the first row group is written: a Writer that waits costs next to nothing
	scratch []pq.Value
	rows    int
	bytes   int64 // of the buffers
	raw     int64 // bytes of the buffers that became what was written
	err     error
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// NewWriter returns a Writer of one file to w, to which it writes from the goroutine of its caller, in large pieces and only
// when a row group is full, and in Close. It fails on an unknown compression.
func NewWriter(w io.Writer, s *Schema, o Options) (*Writer, error) {
	if _, err := s.codec(o.Compression); err != nil {
		return nil, err
	}
	if o.RowGroupRows <= 0 {
		o.RowGroupRows = defaultRowGroupRows
	}
	if o.RowGroupBytes <= 0 {
		o.RowGroupBytes = defaultRowGroupBytes
	}
	if len(s.columns) > manyColumns {
		o.RowGroupBytes /= 2
	}
	out := &Writer{out: &counter{w: w}, schema: s, options: o, buffers: make([]*buffer, len(s.columns))}
	for i := range s.columns {
		out.buffers[i] = newBuffer(&s.columns[i], i)
	}
	if s.absent != nil {
		out.absent = &absentees{plan: s.absent}
	}
	return out, nil
}

func (s *Schema) codec(name string) (compress.Codec, error) {
	switch name {
	case "", "zstd":
		return &s.zstd, nil
	case "snappy":
		return &snappy.Codec{}, nil
	case "gzip":
		return &gzip.Codec{Level: gzip.DefaultCompression}, nil
	case "none":
		return &pq.Uncompressed, nil
	default:
		return nil, usererr.New(nil, "compression %q is none of zstd, snappy, gzip and none.", name)
	}
}

// Append adds a row, which may change when Append has returned. After an error the Writer is of no more use, and every
// further call returns that error. A value that its column cannot hold gives an error for people.
func (w *Writer) Append(row *materialize.Row) error {
	if w.err == nil {
		w.err = w.append(row)
	}
	return w.err
}

func (w *Writer) append(row *materialize.Row) error {
	s := w.schema
	if len(row.Key) != s.keys || len(row.Values) != s.values {
		return fmt.Errorf("writing %s: a row has %d and %d elements, the schema %d and %d", w.options.Table, len(row.Key), len(row.Values), s.keys, s.values)
	}
	for i := range row.Key {
		if err := w.value(i, &row.Key[i], row); err != nil {
			return err
		}
	}
	for i := range row.Values {
		if err := w.value(s.keys+i, &row.Values[i], row); err != nil {
			return err
		}
	}
	if s.document >= 0 {
		if err := w.value(s.document, &tuple.Element{Kind: tuple.Bytes, Bytes: row.Doc}, row); err != nil {
			return err
		}
	}
	if w.absent != nil {
		w.appendAbsent(row)
	}
	w.rows++
	if w.rows >= w.options.RowGroupRows || w.bytes >= w.options.RowGroupBytes {
		return w.flush()
	}
	return nil
}

func (w *Writer) value(column int, e *tuple.Element, row *materialize.Row) error {
	n, err := w.buffers[column].append(e)
	w.bytes += int64(n)
	if err == nil {
		return nil
	}
	c := &w.schema.columns[column]
	return usererr.New(err, "A value of the field %q cannot be stored as %s in %q: %v. The value is %s, the row's key %s. "+
		"If such values are to be stored, give the field {castToString: true} in the pipeline.",
		c.name, c.typeName(), w.options.Table, err, describe(e), describeKey(row.Key))
}

func describeKey(key []tuple.Element) string {
	parts := make([]string, len(key))
	for i := range key {
		parts[i] = describe(&key[i])
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (w *Writer) appendAbsent(row *materialize.Row) {
	b := w.buffers[len(w.buffers)-1]
	if len(row.Doc) == 0 || !w.absent.candidates(row.Values) {
		w.bytes += int64(b.appendNames(nil, nil))
		return
	}
	w.absent.look(row.Doc)
	w.bytes += int64(b.appendNames(w.absent.plan.fields, func(i int) bool {
		return !w.absent.present[i] && row.Values[w.absent.plan.fields[i].value].Kind == tuple.Nil
	}))
}

// Size is how many bytes the file will have if it is closed now: what was written, and an estimate of what is not.
func (w *Writer) Size() int64 {
	if w.raw == 0 {
		const usual = 4
		return w.out.n + w.bytes/usual
	}
	return w.out.n + int64(float64(w.bytes)*float64(w.out.n)/float64(w.raw))
}

// Buffered is how many bytes of values are held in memory.
func (w *Writer) Buffered() int64 { return w.bytes }

// Shrink gives memory back that only the next row group would need.
func (w *Writer) Shrink() {
	if w.rows > 0 {
		return
	}
	for i := range w.buffers {
		w.buffers[i] = newBuffer(&w.schema.columns[i], i)
	}
}

// Close writes what is left, and the footer. It does not close what the Writer writes to.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	w.err = fmt.Errorf("writing %s: the file is closed", w.options.Table)
	if w.rows > 0 || w.file == nil {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if err := guard(w.file.Close); err != nil {
		return fmt.Errorf("writing the end of a Parquet file: %w", err)
	}
	return nil
}

// flush writes the buffers as a row group.
func (w *Writer) flush() error {
	if w.options.Room != nil {
		defer w.options.Room()()
	}
	err := guard(w.writeGroup)
	if err != nil {
		return fmt.Errorf("writing a row group of %d rows: %w", w.rows, err)
	}
	w.raw += w.bytes
	w.rows, w.bytes = 0, 0
	return nil
}

func (w *Writer) writeGroup() error {
	if err := w.open(); err != nil || w.rows == 0 {
		return err
	}
	columns := w.file.ColumnWriters()
	for i, b := range w.buffers {
		if err := b.drain(columns[i], w.scratch, w.pageBytes()); err != nil {
			return fmt.Errorf("column %q: %w", b.c.name, err)
		}
		b.reset()
	}
	if err := w.file.Flush(); err != nil {
		return err
	}
	return nil
}

// pageBytes is the size of pages before compression: a mebibyte, or less where that many columns would take too much memory.
func (w *Writer) pageBytes() int {
	const most, least = 1 << 20, 8 << 10
	return max(least, min(most, openPages/max(1, len(w.buffers))))
}

func (w *Writer) open() error {
	if w.file != nil {
		return nil
	}
	c, err := w.schema.codec(w.options.Compression)
	if err != nil {
		return err
	}
	const portion, headroom = 1024, 2
	options := []pq.WriterOption{
		w.schema.fileSchema(), pq.Compression(c), pq.CreatedBy("sluice", version(), ""),
		// Pages end where drain ends them.
		pq.PageBufferSize(headroom * w.pageBytes()), pq.DictionaryMaxBytes(int64(w.pageBytes())),
		pq.MaxRowsPerRowGroup(int64(w.options.RowGroupRows) + 1),
		// Bounds are in the index of pages, shortened; in every page's header they would be repeated at full length.
		pq.DataPageStatistics(false),
		pq.DataPageVersion(1),
	}
	if w.options.BloomFilters {
		options = append(options, pq.BloomFilters(w.schema.filters()...))
	}
	w.file = pq.NewGenericWriter[any](w.out, append(options, w.schema.boundless()...)...)
	w.scratch = make([]pq.Value, 0, portion)
	return nil
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

// guard turns a panic of the library, of which it has some where others return errors, into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Parquet library panicked: %v", p)
		}
	}()
	return f()
}
