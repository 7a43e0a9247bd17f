package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	pqformat "github.com/parquet-go/parquet-go/format"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// begin begins a transaction of one table with an integer key and columns of text, partitioned by the first one.
func (g ground) begin(t testing.TB, columns int, change func(map[string]any)) *transaction {
	t.Helper()
	cfg := g.parsed(t, change)
	p, err := openPlace(t.Context(), cfg)
	require.NoError(t, err)
	b := &materialize.Binding[resource]{
		Resource: resource{Path: "t", PartitionBy: []string{"c0"}},
		Keys:     []materialize.Field{{Name: "id", Pointer: "/id", Types: []string{"integer"}, Key: true, Required: true}},
	}
	for i := range columns {
		b.Values = append(b.Values, materialize.Field{Name: "c" + strconv.Itoa(i), Pointer: "/c" + strconv.Itoa(i), Types: []string{"string"}})
	}
	columnsOf, err := newFormat(cfg, []*materialize.Binding[resource]{b})
	require.NoError(t, err)
	planned, err := newTable(b)
	require.NoError(t, err)
	s := &store{cfg: cfg, place: p, format: columnsOf, names: newNamer(cfg, "acme/t", materialize.FullRange()), log: quiet(), now: time.Now, tables: []*table{planned}}
	sealing, _ := errgroup.WithContext(t.Context())
	sealing.SetLimit(finishing)
	return newTransaction(s, 1, sealing)
}

// end ends the transaction and returns its files.
func (t *transaction) end(tb testing.TB) []file {
	tb.Helper()
	require.NoError(tb, t.sealAll(tb.Context()))
	require.NoError(tb, t.sealing.Wait())
	return t.sealed
}

func textRow(id int, values ...string) *materialize.Row {
	row := &materialize.Row{Key: []tuple.Element{{Kind: tuple.Int, Int: int64(id)}}}
	for _, v := range values {
		row.Values = append(row.Values, tuple.Element{Kind: tuple.String, Bytes: []byte(v)})
	}
	return row
}

func noise(bytes int) string {
	raw := make([]byte, bytes*3/4)
	_, _ = rand.Read(raw)
	return base64.StdEncoding.EncodeToString(raw)
}

// No file is much larger than its limit, however badly its values can be compressed, nor much smaller when they can be well.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	const limit = 2 << 20
	for _, c := range []struct {
		name        string
		compresses  bool
		rows, files int
	}{{"noise", false, 10_000, 4}, {"words", true, 100_000, 2}} {
		transaction := newFolderGround(t).begin(t, 2, func(c map[string]any) { c["fileSizeLimit"] = limit })
		for i := range c.rows {
			text := noise(800)
			if c.compresses {
				text = strings.Repeat(text[:80], 10)
			}
			require.NoError(t, transaction.add(t.Context(), textRow(i, "x", text)))
		}
		files := transaction.end(t)
		require.GreaterOrEqual(t, len(files), c.files, c.name)
		full := 0
		for _, f := range files {
			require.Less(t, f.Bytes, int64(limit*5/4), c.name)
			if f.Bytes > limit*3/4 {
				full++
			}
		}
		require.GreaterOrEqual(t, full, len(files)-1, "%s: all files but the last are full", c.name)
	}
}

// Many files of wide rows, each larger than a row group, need hardly more memory than one: what is live at the same time is
// bounded. It is not parallel to others, whose memory would count.
func TestMemoryOfPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const columns, width, partitions, run = 1000, 200, 12, 180
	transaction := newFolderGround(t).begin(t, columns, nil)
	values := make([]string, columns)
	text := noise(columns * width * 2)
	highest := uint64(0)
	var stats runtime.MemStats
	for i := range partitions * run {
		for c := range values {
			at := (i*7919 + c*width) % (len(text) - width)
			values[c] = text[at : at+width]
		}
		values[0] = strconv.Itoa(i / run)
		require.NoError(t, transaction.add(t.Context(), textRow(i, values...)))
		if i%90 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&stats)
			highest = max(highest, stats.HeapAlloc)
		}
	}
	require.GreaterOrEqual(t, len(transaction.end(t)), partitions)
	t.Logf("the heap had %d MB at most", highest>>20)
	require.Less(t, highest, uint64(256<<20))
}

// Files are written as the configuration says.
func TestFilesAreAsConfigured(t *testing.T) {
	t.Parallel()
	for compression, codec := range map[string]pqformat.CompressionCodec{"zstd": pqformat.Zstd, "snappy": pqformat.Snappy, "gzip": pqformat.Gzip, "none": pqformat.Uncompressed} {
		g := newFolderGround(t)
		transaction := g.begin(t, 1, func(c map[string]any) {
			c["compression"], c["advanced"] = compression, map[string]any{"rowGroupRows": 3, "bloomFilters": compression == "zstd"}
		})
		for i := range 7 {
			require.NoError(t, transaction.add(t.Context(), textRow(i, "x")))
		}
		files := transaction.end(t)
		require.Len(t, files, 1)
		require.NoError(t, g.place(t).finish(t.Context(), files[0]))
		in, err := os.Open(filepath.Join(g.root, files[0].Name))
		require.NoError(t, err)
		defer in.Close()
		read, err := parquet.OpenFile(in, files[0].Bytes)
		require.NoError(t, err)
		var rows []string
		for _, group := range read.Metadata().RowGroups {
			rows = append(rows, fmt.Sprint(group.NumRows))
			require.Equal(t, codec, group.Columns[0].MetaData.Codec)
			require.Equal(t, compression == "zstd", group.Columns[0].MetaData.BloomFilterOffset > 0)
		}
		require.Equal(t, []string{"3", "3", "1"}, rows)
	}
}

// A part of the time that has a field's name would hide the field from readers.
func TestPartitionHasNameOfField(t *testing.T) {
	t.Parallel()
	r := newFolderGround(t).runtime(t, "hidden", `{"path":"t","partitionBy":["Region=%Y"]}`, nil)
	_, err := r.Apply()
	require.ErrorContains(t, err, `Table "t" cannot be partitioned by the time under the name "Region": its collection has a field "region", and readers would see the time in its place. Choose another name in partitionBy.`)
}
