package parquet

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// narrow is a table of seven columns, as in the benchmarks of the other connectors.
func narrow() Selection {
	return selection([]materialize.Field{keyField("id", "integer")},
		field("customer", "integer"), format("created", "date-time"), field("score", "number"), field("active", "boolean"),
		field("status", "string"), field("note", "string"))
}

// narrowDocs makes documents of it, the same for everybody who reads them.
type narrowDocs struct {
	random *rand.Rand
	words  []string
	id     int
	doc    []byte
}

func newNarrowDocs() *narrowDocs {
	d := &narrowDocs{random: rand.New(rand.NewPCG(1, 2))}
	for range 3000 {
		word := make([]byte, 3+d.random.IntN(8))
		for i := range word {
			word[i] = byte('a' + d.random.IntN(26))
		}
		d.words = append(d.words, string(word))
	}
	return d
}

// next returns the next document, valid until the following call.
func (d *narrowDocs) next() []byte {
	r := d.random
	d.id++
	d.doc = fmt.Appendf(d.doc[:0], `{"id":%d,"customer":%d,"created":"%s","score":%d.%02d,"active":%t,"status":"%s","note":"%s %s %s %s"}`,
		d.id, r.IntN(100_000), time.Unix(1_700_000_000+int64(d.id)/10, int64(r.IntN(1_000_000))*1000).UTC().Format("2006-01-02T15:04:05.000000Z"),
		r.IntN(1000), r.IntN(100), r.IntN(3) == 0, [...]string{"new", "paid", "shipped", "returned"}[r.IntN(4)],
		d.words[r.IntN(3000)], d.words[r.IntN(3000)], d.words[r.IntN(3000)], d.words[r.IntN(3000)])
	return d.doc
}

func cpu(who int) time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// packed is documents' rows as the protocol has them: a length and a packed tuple of all columns.
func packed(t testing.TB, s Selection, docs int) (rows []byte, json string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "docs.json")
	f, err := os.Create(path)
	require.NoError(t, err)
	w := bufio.NewWriterSize(f, 1<<20)
	d := newNarrowDocs()
	var out, scratch []byte
	for range docs {
		doc := d.next()
		_, _ = w.Write(doc)
		_ = w.WriteByte('\n')
		row := rowOf(t, s, string(doc))
		scratch = scratch[:0]
		for _, e := range append(row.Key, row.Values...) {
			scratch = appendElement(scratch, e)
		}
		out = append(strconv.AppendInt(out, int64(len(scratch)), 10), ' ')
		out = append(out, scratch...)
	}
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
	return out, path
}

func appendElement(dst []byte, e tuple.Element) []byte {
	switch e.Kind {
	case tuple.Int:
		return tuple.AppendInt(dst, e.Int)
	case tuple.Float:
		return tuple.AppendFloat(dst, e.Float)
	case tuple.Bool:
		return tuple.AppendBool(dst, e.Bool)
	case tuple.String:
		return tuple.AppendStringBytes(dst, e.Bytes)
	default:
		return tuple.AppendNil(dst)
	}
}

// convert writes packed rows, decoding them as the framework does.
func convert(t testing.TB, s Selection, rows []byte, out io.Writer, times int) int {
	t.Helper()
	plan, err := Plan(s)
	require.NoError(t, err)
	w, err := NewWriter(out, plan, Options{})
	require.NoError(t, err)
	row := &materialize.Row{}
	elements := make([]tuple.Element, 0, 16)
	n := 0
	for range times {
		for rest := rows; len(rest) > 0; n++ {
			at := bytes.IndexByte(rest, ' ')
			size, _ := strconv.Atoi(string(rest[:at]))
			body := rest[at+1 : at+1+size]
			rest = rest[at+1+size:]
			elements = elements[:0]
			for len(body) > 0 {
				e, after, err := tuple.Next(body)
				if err != nil {
					require.NoError(t, err)
				}
				elements, body = append(elements, e), after
			}
			row.Key, row.Values = elements[:1], elements[1:]
			if err := w.Append(row); err != nil {
				require.NoError(t, err)
			}
		}
	}
	require.NoError(t, w.Close())
	return n
}

// BenchmarkParquet converts the same documents here and in DuckDB, in turns, and compares rows per CPU second and the files'
// sizes. SLUICE_BENCH_ROWS says how many (millions take minutes); documents are repeated beyond a million.
func BenchmarkParquet(b *testing.B) {
	duckdb.Need(b)
	docs := 300_000
	if text := os.Getenv("SLUICE_BENCH_ROWS"); text != "" {
		var err error
		docs, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	s := narrow()
	rows, json := packed(b, s, docs)
	folder := b.TempDir()
	const turns = 3
	var ours, theirs time.Duration
	for range turns {
		f, err := os.Create(filepath.Join(folder, "ours.parquet"))
		require.NoError(b, err)
		out := bufio.NewWriterSize(f, 1<<20)
		began := cpu(syscall.RUSAGE_SELF)
		require.Equal(b, docs, convert(b, s, rows, out, 1))
		require.NoError(b, out.Flush())
		ours += cpu(syscall.RUSAGE_SELF) - began
		require.NoError(b, f.Close())

		began = cpu(syscall.RUSAGE_CHILDREN)
		copyWithDuckDB(b, json, filepath.Join(folder, "theirs.parquet"))
		theirs += cpu(syscall.RUSAGE_CHILDREN) - began
	}
	our, their := size(b, filepath.Join(folder, "ours.parquet")), size(b, filepath.Join(folder, "theirs.parquet"))
	detail := fmt.Sprintf("%d documents: %.2f and %.2f CPU s per million rows", docs, ours.Seconds()/turns/float64(docs)*1e6, theirs.Seconds()/turns/float64(docs)*1e6)
	require.NoError(b, ratio.Print(os.Stdout, "parquet", theirs.Seconds()/ours.Seconds(), ratio.AtLeast, 0.8, detail))
	require.NoError(b, ratio.Print(os.Stdout, "parquet-size", float64(our)/float64(their), ratio.AtMost, 1.1, fmt.Sprintf("%.1f and %.1f bytes a row", float64(our)/float64(docs), float64(their)/float64(docs))))
}

// copyWithDuckDB is what its users would write.
func copyWithDuckDB(b *testing.B, json, parquet string) {
	b.Helper()
	path, err := duckdb.Find()
	require.NoError(b, err)
	sql := fmt.Sprintf(`SET threads = 1; COPY (SELECT * FROM read_json('%s', format = 'newline_delimited', columns = {id: 'BIGINT', customer: 'BIGINT', created: 'TIMESTAMPTZ', score: 'DOUBLE', active: 'BOOLEAN', status: 'VARCHAR', note: 'VARCHAR'}))
		TO '%s' (FORMAT parquet, COMPRESSION zstd)`, json, parquet)
	cmd := exec.CommandContext(b.Context(), path, "-bail", "-c", sql)
	out, err := cmd.CombinedOutput()
	require.NoError(b, err, "%s", out)
}

func size(b *testing.B, path string) int64 {
	b.Helper()
	info, err := os.Stat(path)
	require.NoError(b, err)
	return info.Size()
}

// Appending allocates nothing once buffers have grown, nulls, lists and absent values included.
func TestAppendAllocatesNothing(t *testing.T) {
	s := narrow()
	s.Values = append(s.Values, with(field("list", "array"), func(f *materialize.Field) { f.Items = []string{"string"} }), format("uuid", "uuid"),
		with(format("amount", "number"), func(f *materialize.Field) { f.Config = []byte(`{"decimal":"30,2"}`) }))
	plan, err := Plan(s)
	require.NoError(t, err)
	w, err := NewWriter(io.Discard, plan, Options{RowGroupRows: 1 << 30, RowGroupBytes: 1 << 40})
	require.NoError(t, err)
	row := rowOf(t, s, `{"id":1,"customer":null,"created":"2024-02-29T12:00:00.5+01:00","score":1.5,"active":true,"note":"x\"y","list":["a",null],"uuid":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","amount":"12.5"}`)
	for range 100_000 {
		require.NoError(t, w.Append(row))
	}
	for _, b := range w.buffers {
		b.reset()
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = w.Append(row) }))
}

// Rows of 200 kB in a thousand columns stay within a fraction of 256 MB, however many there are: the heap is measured at its
// highest, when a row group was turned into pages and is not written yet.
func TestMemoryOfWideRows(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const columns, rowsOf, width = 1000, 700, 200
	var values []materialize.Field
	for i := range columns {
		values = append(values, field("c"+strconv.Itoa(i), "string"))
	}
	s := selection([]materialize.Field{keyField("id", "integer")}, values...)
	plan, err := Plan(s)
	require.NoError(t, err)
	highest := uint64(0)
	w, err := NewWriter(writerFunc(func(p []byte) (int, error) {
		if len(p) > 4 {
			return len(p), nil
		}
		runtime.GC() // at the file's beginning and end
		return len(p), nil
	}), plan, Options{})
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(3, 4))
	alphabet := strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789", 10)
	row := &materialize.Row{Key: make([]tuple.Element, 1), Values: make([]tuple.Element, columns), Doc: []byte("{}")}
	text := make([]byte, columns*width)
	var stats runtime.MemStats
	for i := range rowsOf {
		row.Key[0] = tuple.Element{Kind: tuple.Int, Int: int64(i)}
		for at := range text {
			text[at] = alphabet[random.IntN(len(alphabet))]
		}
		for c := range columns {
			row.Values[c] = tuple.Element{Kind: tuple.String, Bytes: text[c*width : (c+1)*width]}
		}
		require.NoError(t, w.Append(row))
		if i%25 == 0 || w.Buffered() == 0 {
			runtime.ReadMemStats(&stats)
			highest = max(highest, stats.HeapInuse)
		}
	}
	require.NoError(t, w.Close())
	require.Greater(t, w.out.n, int64(rowsOf*columns*width/3), "it was all written")
	t.Logf("the heap in use was %d MB at most", highest>>20)
	require.Less(t, highest, uint64(250<<20))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
