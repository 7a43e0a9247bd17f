package cdctest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// patience bounds the waits for the output to become what the tables hold.
const patience = 2 * time.Minute

// Run runs the suite:
//
//   - backfill while the tables are written to at random: the reduced output becomes what the tables hold, and no key ever
//     goes back in time;
//   - the same, while the connector is killed at random moments and resumes from any checkpoint that is not older than the
//     last acknowledged one;
//   - keys that change, with and without values that the log leaves out, live and while the table is backfilled;
//   - columns that come, with a default, and go, while the tables are written to;
//   - a table that is dropped and created again;
//   - a table without a key: every row once, also when the connector is killed;
//   - one huge transaction, in bounded memory.
func Run(t *testing.T, b Backend) {
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"backfill while writing", func(t *testing.T) { b.whileWriting(t, false) }},
		{"killed at random", func(t *testing.T) { b.whileWriting(t, true) }},
		{"changes of keys", b.keyChanges},
		{"changes of shape", b.shapes},
		{"dropped and created again", b.recreated},
		{"no key", b.keyless},
		{"huge transaction", b.huge},
	} {
		if len(b.Only) == 0 || slices.Contains(b.Only, part.name) {
			t.Run(part.name, part.run)
		}
	}
}

// seed differs from run to run, and is logged.
func seed(t testing.TB) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	t.Logf("seed %d", n)
	return rand.New(rand.NewPCG(n, n))
}

func (b Backend) writer(t testing.TB, db Database, rnd *rand.Rand, me, n int) *writer {
	t.Helper()
	conn := db.Connect(t)
	t.Cleanup(func() { conn.Close(t) })
	return &writer{
		t: t, b: b, db: db, conn: conn, me: me, n: n, live: map[string][]int{},
		rnd: rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64())),
	}
}

// writers is how many sessions write at once.
const writers = 3

func (b Backend) whileWriting(t *testing.T, kill bool) {
	db, rnd := b.Open(t), seed(t)
	ks := kinds()
	for _, k := range ks {
		db.Exec(t, k.table())
	}
	ws := make([]*writer, writers)
	for i := range ws {
		ws[i] = b.writer(t, db, rnd, i, writers)
		for _, k := range ks {
			ws[i].fill(k, 400)
		}
	}
	f := follow(t, db)
	var wg sync.WaitGroup
	for _, w := range ws {
		wg.Go(func() {
			for range 150 {
				w.transaction(ks)
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); wg.Wait() }()
	kills := 0
	for writing := true; writing || kill && kills < 10; {
		select {
		case <-done:
			writing = false
		case <-time.After(time.Duration(20+rnd.IntN(200)) * time.Millisecond):
		}
		require.NoError(t, f.failed())
		f.acknowledge(rnd)
		if kill {
			f.kill(rnd)
			f.start()
			kills++
		}
	}
	for i, k := range ks {
		f.becomes(i, k, "v, note, big")
	}
	f.stop()
}

// becomes waits until the reduced output of a table is what the table holds.
func (f *follower) becomes(binding int, k kind, columns string) {
	f.t.Helper()
	binding = f.binding(k.name, binding)
	var diff string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		require.NoError(f.t, f.failed(), "in table %s, %s", k.name, diff)
		if diff = f.differs(binding, k, columns); diff == "" {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	require.FailNow(f.t, "the output does not become what table "+k.name+" holds", diff)
}

func (f *follower) binding(name string, guess int) int {
	for i := range f.tables {
		if f.tables[i].name == name {
			return i
		}
	}
	require.FailNow(f.t, "table "+name+" was not discovered")
	return guess
}

// differs says in what the reduced output differs from the table.
func (f *follower) differs(binding int, k kind, columns string) string {
	rows := f.db.Query(f.t, "SELECT "+strings.Join(k.key, ", ")+", "+columns+" FROM "+k.name)
	names := append(append([]string{}, k.key...), strings.Split(columns, ", ")...)
	f.mu.Lock()
	defer f.mu.Unlock()
	docs := f.tables[binding].docs
	var out []string
	seen := map[string]bool{}
	for _, row := range rows {
		parts := make([]string, len(k.key))
		for i := range k.key {
			parts[i] = *row[i]
		}
		key := strings.Join(parts, "|")
		seen[key] = true
		d, ok := docs[key]
		if !ok || d.deleted {
			out = append(out, "key "+key+" is missing")
			continue
		}
		for i, name := range names {
			if got := d.columns[name]; text(got) != text(row[i]) {
				out = append(out, fmt.Sprintf("column %s of key %s is %s instead of %s", name, key, text(got), text(row[i])))
			}
		}
	}
	for key, d := range docs {
		if !d.deleted && !seen[key] {
			out = append(out, "key "+key+" is not in the table")
		}
	}
	if len(out) > 5 {
		out = append(out[:5], strconv.Itoa(len(out)-5)+" more")
	}
	return strings.Join(out, "\n")
}

// text shows a value, but not all of a long one.
func text(v *string) string {
	if v == nil {
		return "null"
	}
	if len(*v) > 60 {
		return fmt.Sprintf("%.60q… (%d bytes, sum %x)", *v, len(*v), sum(*v))
	}
	return strconv.Quote(*v)
}

func sum(s string) (h uint32) {
	for i := range len(s) {
		h = h*31 + uint32(s[i])
	}
	return h
}

func (b Backend) keyChanges(t *testing.T) {
	db, rnd := b.Open(t), seed(t)
	k := kinds()[0]
	db.Exec(t, k.table())
	w := b.writer(t, db, rnd, 0, 1)
	w.fill(k, 3000)
	f := follow(t, db)
	move := func(count int) {
		for range count {
			i := rnd.IntN(len(w.live[k.name]))
			to := w.number()
			db.Exec(t, fmt.Sprintf("UPDATE %s SET id = %d, v = v + 1 WHERE %s", k.name, to, k.where(w.live[k.name][i])))
			w.live[k.name][i] = to
		}
	}
	move(200) // while it is backfilled, more or less
	f.becomes(0, k, "v, note, big")
	move(200)
	f.becomes(0, k, "v, note, big")
	f.stop()
}

func (b Backend) shapes(t *testing.T) {
	db, rnd := b.Open(t), seed(t)
	ks := kinds()[:2]
	w := b.writer(t, db, rnd, 0, 1)
	for _, k := range ks {
		db.Exec(t, k.table())
		w.fill(k, 1000)
	}
	f := follow(t, db)
	write := func() {
		for range 30 {
			w.transaction(ks)
		}
	}
	alter := func(change string) {
		for _, k := range ks {
			db.Exec(t, "ALTER TABLE "+k.name+" "+change)
		}
	}
	write()
	alter("ADD COLUMN c1 INTEGER DEFAULT 7")
	write()
	alter("ADD COLUMN c2 TEXT")
	f.kill(rnd)
	f.start()
	write()
	alter("DROP COLUMN note")
	alter("ADD COLUMN note TEXT DEFAULT ('new')")
	write()
	for i, k := range ks {
		f.becomes(i, k, "v, note, big, c1, c2")
	}
	f.stop()
}

func (b Backend) recreated(t *testing.T) {
	db, rnd := b.Open(t), seed(t)
	k := kinds()[0]
	db.Exec(t, k.table())
	w := b.writer(t, db, rnd, 0, 1)
	w.fill(k, 500)
	f := follow(t, db)
	f.becomes(0, k, "v, note, big")
	db.Exec(t, "DROP TABLE "+k.name)
	w.live = map[string][]int{}
	db.Exec(t, k.table())
	w.fill(k, 300)
	for range 30 {
		w.transaction([]kind{k})
	}
	// Rows of the table that is gone stay: their end is not in the log.
	f.forgetBut(0, w.live[k.name], k)
	f.becomes(0, k, "v, note, big")
	for range 30 {
		w.transaction([]kind{k})
	}
	f.becomes(0, k, "v, note, big")
	f.stop()
}

// forgetBut takes keys out of the reduced output that are none of the given ones.
func (f *follower) forgetBut(binding int, numbers []int, k kind) {
	keep := map[string]bool{}
	for _, n := range numbers {
		keep[strings.Trim(k.keyOf(n)[0], "'")] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.tables[binding].docs {
		if !keep[key] {
			delete(f.tables[binding].docs, key)
		}
	}
}

func (b Backend) keyless(t *testing.T) {
	db, rnd := b.Open(t), seed(t)
	db.Exec(t, "CREATE TABLE cdc_events (id BIGINT, note TEXT)")
	if b.LogWholeRows != nil {
		db.Exec(t, b.LogWholeRows("cdc_events"))
	}
	next := 0
	insert := func(count int) {
		values := make([]string, count)
		for i := range values {
			next++
			values[i] = fmt.Sprintf("(%d, 'event %d')", next, next)
		}
		db.Exec(t, "INSERT INTO cdc_events (id, note) VALUES "+strings.Join(values, ", "))
	}
	for range 20 {
		insert(100)
	}
	f := follow(t, db)
	for i := range 60 {
		insert(1 + rnd.IntN(20))
		if i%10 == 5 {
			f.acknowledge(rnd)
			f.kill(rnd)
			f.start()
		}
	}
	require.Eventually(t, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.tables[0].docs) == next
	}, patience, 50*time.Millisecond, "not every row was captured")
	f.stop()
	for key, n := range f.tables[0].count {
		require.LessOrEqual(t, n, 1, "row %s was captured more than once", key)
	}
}

// huge is a transaction of many rows: the connector must neither hold it nor what is read beside it. It is a process of its
// own here, since nothing but its own memory counts.
func (b Backend) huge(t *testing.T) {
	const side, limit = 600, 128 << 20 // the transaction has 200 MB
	note := strings.Repeat("a row of a huge transaction ", 20)
	db := b.Open(t)
	k := kinds()[0]
	db.Exec(t, k.table())
	db.Exec(t, "CREATE TABLE cdc_digits (id BIGINT PRIMARY KEY)")
	values := make([]string, side)
	for i := range values {
		values[i] = "(" + strconv.Itoa(i) + ")"
	}
	db.Exec(t, "INSERT INTO cdc_digits VALUES "+strings.Join(values, ", "))
	spec := discover(t, db)
	cmd := b.Command(t)
	log := &bytes.Buffer{} // read when the process has ended
	cmd.Stderr = log
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	s := session.Command(t, cmd, frame.Proto)
	s.Open(spec, nil)
	_, err := s.Transaction() // the log is open now
	require.NoError(t, err)
	written := make(chan struct{})
	go func() {
		defer close(written)
		db.Exec(t, fmt.Sprintf("INSERT INTO %s (id, v, note) SELECT a.id * %d + b.id, 1, '%s' FROM cdc_digits a, cdc_digits b", k.name, side, note))
	}()
	// The server may be long about it, and nothing comes before it is done.
	select {
	case <-written:
	case <-time.After(5 * patience):
		require.FailNow(t, "the huge transaction was not written in time")
	}
	for docs := 0; docs < side*side+side; {
		res, err := s.Next()
		if errors.Is(err, io.EOF) {
			require.NoError(t, s.Wait())
		}
		require.NoError(t, err)
		if res.Captured != nil {
			docs++
		}
	}
	if peak, ok := peakMemory(t, cmd.Process.Pid); ok {
		require.Less(t, peak, limit, "bytes that the connector needed at most for a transaction of %d rows", side*side)
	}
	require.NoError(t, s.Stop())
}

// peakMemory is how many bytes a process has had in memory at most; false where the system does not say.
func peakMemory(t *testing.T, pid int) (int, bool) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) && runtime.GOOS != "linux" {
		return 0, false
	}
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(text), "VmHWM:")
	require.True(t, ok, "the process has ended")
	kilobytes, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(t, err)
	return kilobytes << 10, true
}
