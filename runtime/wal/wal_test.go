package wal

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/sluicedata/sluice/sdk/process"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func open(t require.TestingT, dir string) *Embedded {
	log, err := Open(Options{Dir: dir, Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1})
	require.NoError(t, err)
	return log
}

func block(docs ...string) *Block {
	b := &Block{Schema: 3}
	for _, d := range docs {
		b.Add([]byte(d))
	}
	return b
}

// contents reads a journal from an offset, and returns its documents and the offsets between its blocks.
func contents(t require.TestingT, log *Embedded, j Journal, from int64) (docs []string, offsets []int64) {
	for _, h := range log.Heads(j.Collection) {
		if h.Journal != j {
			continue
		}
		r, err := log.Reader(j, from, h.Offset)
		require.NoError(t, err)
		for {
			b, next, ok, err := r.Next()
			require.NoError(t, err)
			if !ok {
				break
			}
			require.NoError(t, b.Docs(func(doc []byte) error { docs = append(docs, string(doc)); return nil }))
			offsets = append(offsets, next)
		}
		require.NoError(t, r.Close())
	}
	return docs, offsets
}

func TestOnlyCommittedBlocksAreThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := open(t, dir)
	identity := log.Identity()
	j := Journal{"acme/a", "acme/source"}
	w, err := log.Writer(j.Part)
	require.NoError(t, err)
	changed := log.Changed()
	require.NoError(t, w.Append(j.Collection, block(`{"n":1}`, `{"n":2}`)))
	require.Empty(t, log.Heads(j.Collection), "not committed")
	require.NoError(t, w.Commit(t.Context(), Records{"state": []byte("1")}))
	<-changed
	require.NoError(t, w.Append(j.Collection, block(`{"n":3}`)))
	require.NoError(t, w.Append("acme/b", block(`{"n":4}`)))
	docs, _ := contents(t, log, j, 0)
	require.Equal(t, []string{`{"n":1}`, `{"n":2}`}, docs)

	// The next writer, after a failure or a restart, begins behind what was committed.
	w, err = log.Writer(j.Part)
	require.NoError(t, err)
	require.NoError(t, w.Append(j.Collection, block(`{"n":5}`)))
	require.NoError(t, w.Commit(t.Context(), Records{"state": []byte("2"), "other": []byte("x")}))
	require.NoError(t, log.Put(t.Context(), Records{"other": nil}))
	require.NoError(t, log.Close())

	log = open(t, dir)
	defer func() { require.NoError(t, log.Close()) }()
	require.Equal(t, identity, log.Identity())
	docs, offsets := contents(t, log, j, 0)
	require.Equal(t, []string{`{"n":1}`, `{"n":2}`, `{"n":5}`}, docs)
	docs, _ = contents(t, log, j, offsets[0])
	require.Equal(t, []string{`{"n":5}`}, docs)
	require.Empty(t, log.Heads("acme/b"))
	state, err := log.Get("state")
	require.NoError(t, err)
	require.Equal(t, "2", string(state))
	other, err := log.Get("other")
	require.NoError(t, err)
	require.Nil(t, other)
}

// TestLargeTransaction: documents of a transaction that does not fit into memory are handed on before their commit, and
// still are visible only with it.
func TestLargeTransaction(t *testing.T) {
	t.Parallel()
	log := open(t, t.TempDir())
	defer func() { require.NoError(t, log.Close()) }()
	j := Journal{"acme/a", "acme/source"}
	big := strings.Repeat("x", 1<<20)
	w, err := log.Writer(j.Part)
	require.NoError(t, err)
	for range 12 {
		require.NoError(t, w.Append(j.Collection, block(big)))
	}
	w, err = log.Writer(j.Part) // the first attempt is given up
	require.NoError(t, err)
	require.Empty(t, log.Heads(j.Collection))
	for range 10 {
		require.NoError(t, w.Append(j.Collection, block(big)))
	}
	require.NoError(t, w.Commit(t.Context(), nil))
	docs, _ := contents(t, log, j, 0)
	require.Len(t, docs, 10)
}

// TestTornWrites cuts and damages the end of the newest write-ahead file, as a crash of the machine may, at every
// length: what is there afterwards is always a prefix of the commits, whole, and the log goes on.
func TestTornWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := open(t, dir)
	j := Journal{"acme/a", "acme/source"}
	w, err := log.Writer(j.Part)
	require.NoError(t, err)
	const commits = 20
	for n := range commits {
		require.NoError(t, w.Append(j.Collection, block(fmt.Sprintf(`{"n":%d,"half":1}`, n), fmt.Sprintf(`{"n":%d,"half":2}`, n))))
		require.NoError(t, w.Commit(t.Context(), Records{"state": fmt.Append(nil, n+1)}))
	}
	copied := t.TempDir()
	require.NoError(t, os.CopyFS(copied, os.DirFS(dir))) // as the disk was when the power went: not closed
	require.NoError(t, log.Close())
	wal := newestWAL(t, copied)
	text, err := os.ReadFile(wal)
	require.NoError(t, err)
	seen := map[int]bool{}
	for cut := len(text); cut > 0; cut -= max(len(text)/25, 1) {
		at := t.TempDir()
		require.NoError(t, os.CopyFS(at, os.DirFS(copied)))
		require.NoError(t, os.WriteFile(newestWAL(t, at), text[:cut], 0o600))
		log := open(t, at)
		state, err := log.Get("state")
		require.NoError(t, err)
		var n int
		_, _ = fmt.Sscan(string(state), &n)
		seen[n] = true
		docs, _ := contents(t, log, j, 0)
		require.Len(t, docs, 2*n, "the documents of exactly the commits whose state is there")
		w, err := log.Writer(j.Part)
		require.NoError(t, err)
		require.NoError(t, w.Append(j.Collection, block(`{"n":"more"}`)))
		require.NoError(t, w.Commit(t.Context(), nil))
		docs, _ = contents(t, log, j, 0)
		require.Len(t, docs, 2*n+1)
		require.NoError(t, log.Close())
	}
	require.True(t, seen[commits])
	require.Greater(t, len(seen), 3, "some cuts lose commits")
}

func newestWAL(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	sort.Strings(files)
	return files[len(files)-1]
}

// TestLogIsTheModel drives captures, commits, failures and restarts at random against lists in memory.
func TestLogIsTheModel(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("opens many logs")
	}
	root := t.TempDir()
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		dir := filepath.Join(root, fmt.Sprint(runs))
		log := open(t, dir)
		captures := []string{"x", "y"}
		writers := map[string]Writer{}
		committed, pending := map[Journal][]string{}, map[Journal][]string{}
		writer := func(c string) Writer {
			if writers[c] == nil {
				var err error
				writers[c], err = log.Writer(c)
				require.NoError(t, err)
			}
			return writers[c]
		}
		forget := func(c string) {
			delete(writers, c)
			for j := range pending {
				if j.Part == c {
					delete(pending, j)
				}
			}
		}
		n := 0
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			c := rapid.SampledFrom(captures).Draw(t, "capture")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				n++
				j := Journal{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "collection"), c}
				require.NoError(t, writer(c).Append(j.Collection, block(fmt.Sprint(n))))
				pending[j] = append(pending[j], fmt.Sprint(n))
			case 3:
				require.NoError(t, writer(c).Commit(t.Context(), nil))
				for j, docs := range pending {
					if j.Part == c {
						committed[j] = append(committed[j], docs...)
						delete(pending, j)
					}
				}
			case 4:
				forget(c)
			case 5:
				require.NoError(t, log.Close())
				log = open(t, dir)
				for _, c := range captures {
					forget(c)
				}
			}
			for j, want := range committed {
				got, _ := contents(t, log, j, 0)
				require.Equal(t, want, got)
			}
		}
		require.NoError(t, log.Close())
	})
}

// A child process that is being started has copies of all descriptors for a moment; the folder is free all the same.
func TestClosedFolderIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := open(t, dir)
	child, err := syscall.Dup(int(log.lock.Fd()))
	require.NoError(t, err)
	defer func() { require.NoError(t, syscall.Close(child)) }()
	require.NoError(t, log.Close())
	require.NoError(t, open(t, dir).Close())
}

func TestErrorsForPeople(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := open(t, dir)
	_, err := Open(Options{Dir: dir, Log: logrus.NewEntry(process.Discard())})
	require.Contains(t, usererr.Message(err), fmt.Sprintf("the data folder %s is in use by another sluice run (process %d)", dir, os.Getpid()))

	j := Journal{"acme/a", "acme/source"}
	w, err := log.Writer(j.Part)
	require.NoError(t, err)
	require.NoError(t, w.Append(j.Collection, block(`{"n":1}`)))
	require.NoError(t, w.Commit(t.Context(), nil))
	r, err := log.Reader(j, 5, log.Heads(j.Collection)[0].Offset)
	require.NoError(t, err)
	_, _, _, err = r.Next()
	require.Contains(t, usererr.Message(err), "the log has no block at byte 5 of the collection acme/a")
	require.NoError(t, r.Close())
	_, err = log.Reader(Journal{"no", "no"}, 0, 1)
	require.ErrorContains(t, err, "does not exist")
	require.NoError(t, log.Close())

	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(Options{Dir: filepath.Join(file, "x"), Log: logrus.NewEntry(process.Discard())})
	require.Contains(t, usererr.Message(err), "cannot create the data folder")

	_, err = Open(Options{Dir: t.TempDir(), Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1 << 62})
	require.Contains(t, usererr.Message(err), "is full:")
}

func TestMarks(t *testing.T) {
	t.Parallel()
	b := block("one", "two")
	mark := b.Mark()
	b.Add([]byte("three"))
	all := func(b *Block) (docs []string) {
		require.NoError(t, b.Docs(func(d []byte) error { docs = append(docs, string(d)); return nil }))
		require.Len(t, docs, b.Count)
		return docs
	}
	require.Equal(t, []string{"one", "two"}, all(b.Before(mark)))
	b.Drop(mark)
	require.Equal(t, []string{"three"}, all(b))
	b.Drop(b.Mark())
	require.Empty(t, all(b))
	require.True(t, b.Mark().Empty())
}

func BenchmarkCommit(b *testing.B) {
	log := open(b, b.TempDir())
	w, err := log.Writer("c")
	require.NoError(b, err)
	for b.Loop() {
		require.NoError(b, w.Append("a", block(`{"id":1,"name":"something"}`)))
		require.NoError(b, w.Commit(b.Context(), Records{"state": []byte(`{"cursor":1}`)}))
	}
	require.NoError(b, log.Close())
}

// BenchmarkStream writes documents in commits of four megabytes, to two journals in turns, and reads them back, as a capture and a
// materialization behind it do. It gives the CPU seconds that a gigabyte takes.
func BenchmarkStream(b *testing.B) {
	const commits, blocks = 150, 14
	used := func() float64 {
		var r syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
		return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
	}
	random := rand.New(rand.NewPCG(1, 2))
	var full [64]Block
	for i := range full {
		for id := i * 2_000; full[i].Size() < 256<<10; id++ {
			full[i].Add(fmt.Appendf(nil, `{"id":%d,"customer":%d,"amount":"%d.%02d","note":"a row of many, with some words","ref":"%016x","at":"2024-02-29T23:%02d:59.%06dZ","_meta":{"op":"c","source":{"loc":[%d,%d,0]}}}`,
				id, random.IntN(1000), random.IntN(100_000), random.IntN(100), random.Uint64(), id/2_000%60, random.IntN(1_000_000), 1<<35+id*100, id%1000))
		}
	}
	for b.Loop() {
		log := open(b, b.TempDir())
		w, err := log.Writer("c")
		require.NoError(b, err)
		before, size := used(), 0
		for n := range commits {
			for i := range blocks {
				block := &full[(n*blocks+i)%len(full)]
				size += block.Size()
				require.NoError(b, w.Append([]string{"a", "b"}[i%2], block))
			}
			require.NoError(b, w.Commit(b.Context(), Records{"state": []byte(`{"cursor":1}`)}))
		}
		for _, name := range []string{"a", "b"} {
			r, err := log.Reader(Journal{name, "c"}, 0, log.Heads(name)[0].Offset)
			require.NoError(b, err)
			for ok := true; ok; {
				_, _, ok, err = r.Next()
				require.NoError(b, err)
			}
			require.NoError(b, r.Close())
		}
		require.NoError(b, log.Close())
		b.ReportMetric((used()-before)/float64(size)*1e9, "cpu-s/GB")
	}
}
