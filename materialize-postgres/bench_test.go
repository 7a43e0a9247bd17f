package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// The benchmark of throughput: a million rows stored through the protocol, beside a bare COPY of the same rows into a
// table with the same primary key, on the same server, in turns. Run it alone:
//
//	go test -run '^$' -bench Throughput -benchtime 1x -timeout 30m .
const (
	benchRows        = 1_000_000
	benchTransaction = 100_000
	benchRounds      = 3
)

func benchCollection() sinktest.Collection {
	return sinktest.Collection{Name: "bench/rows", Columns: []sinktest.Column{
		{Name: "id", Types: []string{"integer"}, Key: true},
		{Name: "amount", Types: []string{"string", "null"}, Format: "number"},
		{Name: "at", Types: []string{"string", "null"}, Format: "date-time"},
		{Name: "data", Types: []string{"object", "null"}},
		{Name: "label", Types: []string{"string", "null"}},
		{Name: "ref", Types: []string{"string", "null"}, Format: "uuid"},
		{Name: "small", Types: []string{"integer", "null"}},
	}}
}

// benchRow is one row in both forms: the packed key and values, and the text of COPY.
func benchRow(i, generation int) (key, values []byte, text string) {
	at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i*1000+generation) * time.Millisecond)
	amount := fmt.Sprintf("%d.%02d", i%100000, (i+generation)%100)
	data := fmt.Sprintf(`{"n":%d,"tags":["a","b"]}`, i+generation)
	label := fmt.Sprintf("row number %d of generation %d", i, generation)
	ref := fmt.Sprintf("00000000-0000-4000-8000-%012x", i*7+generation)
	values = tuple.AppendString(nil, amount)
	values = tuple.AppendString(values, at.Format("2006-01-02T15:04:05.999999Z"))
	values = tuple.AppendBytes(values, []byte(data))
	values = tuple.AppendString(values, label)
	values = tuple.AppendString(values, ref)
	values = tuple.AppendInt(values, int64(i%1000))
	text = fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%d\n", i, amount, at.Format("2006-01-02 15:04:05.999999Z07:00"), data, label, ref, i%1000)
	return tuple.AppendInt(nil, int64(i)), values, text
}

const benchTable = `(id bigint NOT NULL PRIMARY KEY, amount numeric, at timestamptz, data jsonb, label text, ref uuid, small bigint)`

// recording is a protocol stream and a COPY stream of the same rows, on disk so that making them costs nothing when
// they are played.
type recording struct {
	loads, stores []string // a file for each transaction
	text          string
}

func record(b *testing.B, generation int, exists bool) recording {
	b.Helper()
	dir := b.TempDir()
	r := recording{text: dir + "/copy.txt"}
	text, err := os.Create(r.text)
	require.NoError(b, err)
	copies := bufio.NewWriterSize(text, 1<<20)
	for first := 0; first < benchRows; first += benchTransaction {
		var loads, stores []byte
		for i := first; i < first+benchTransaction; i++ {
			key, values, line := benchRow(i, generation)
			loads = materializepb.AppendLoad(loads, frame.Proto, &materializepb.Request_Load{KeyPacked: key})
			stores = materializepb.AppendStore(stores, frame.Proto, &materializepb.Request_Store{KeyPacked: key, ValuesPacked: values, Exists: exists})
			_, _ = copies.WriteString(line)
		}
		r.loads = append(r.loads, fmt.Sprintf("%s/loads.%d", dir, first))
		r.stores = append(r.stores, fmt.Sprintf("%s/stores.%d", dir, first))
		require.NoError(b, os.WriteFile(r.loads[len(r.loads)-1], loads, 0o600))
		require.NoError(b, os.WriteFile(r.stores[len(r.stores)-1], stores, 0o600))
	}
	require.NoError(b, copies.Flush())
	require.NoError(b, text.Close())
	return r
}

// usage is what a run cost.
type usage struct {
	took   time.Duration
	cpu    time.Duration // of the connector
	server time.Duration // of the server's processes that worked for it
	peakMB float64
}

func (u usage) rate() float64 { return benchRows / u.took.Seconds() }

// play stores a recording through the connector.
func (d database) play(b *testing.B, spec *flowpb.MaterializationSpec, r recording, withLoads bool) usage {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), connectorEnv+"=1", "SLUICE_CODEC=proto", "LOG_LEVEL=warn")
	if path := os.Getenv("SLUICE_TEST_PPROF"); path != "" {
		cmd.Env = append(cmd.Env, "SLUICE_PPROF="+path)
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(b, err)
	out, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	w, responses := frame.NewWriter(in, frame.Proto), frame.NewReader(out, frame.Proto, 0)
	send := func(m *materializepb.Request) {
		require.NoError(b, w.Write(m))
		require.NoError(b, w.Flush())
	}
	expect := func(done func(*materializepb.Response) bool) {
		for {
			body, err := responses.Next()
			require.NoError(b, err)
			m := &materializepb.Response{}
			if materializepb.ParseLoaded(frame.Proto, body, &materializepb.Response_Loaded{}) {
				continue
			}
			require.NoError(b, frame.Proto.Unmarshal(body, m))
			if done(m) {
				return
			}
		}
	}
	send(&materializepb.Request{Open: &materializepb.Request_Open{Materialization: spec, Version: "1", Range: flowpb.FullRange(), StateJson: []byte("{}")}})
	expect(func(m *materializepb.Response) bool { return m.GetOpened() != nil })
	start := time.Now()
	acknowledge := func() {
		send(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}})
	}
	for i := range r.stores {
		acknowledge()
		if withLoads {
			replay(b, in, r.loads[i])
		}
		expect(func(m *materializepb.Response) bool { return m.GetAcknowledged() != nil })
		send(&materializepb.Request{Flush: &materializepb.Request_Flush{}})
		expect(func(m *materializepb.Response) bool { return m.GetFlushed() != nil })
		replay(b, in, r.stores[i])
		send(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(i)}})
		expect(func(m *materializepb.Response) bool { return m.GetStartedCommit() != nil })
	}
	acknowledge()
	expect(func(m *materializepb.Response) bool { return m.GetAcknowledged() != nil })
	took := time.Since(start)
	server := d.backends(b, "sluice bench")
	require.NoError(b, in.Close())
	require.NoError(b, cmd.Wait())
	rusage, _ := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return usage{
		took: took, server: server, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), peakMB: float64(rusage.Maxrss) / 1024,
	}
}

func replay(b *testing.B, to io.Writer, path string) {
	b.Helper()
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	require.NoError(b, err)
}

// bare copies the same rows from a file, in the text format and, re-encoded beforehand, in the binary one.
func (d database) bare(b *testing.B, path, options string) usage {
	b.Helper()
	d.exec(b, "DROP TABLE IF EXISTS bare", "CREATE TABLE bare "+benchTable)
	d.settle(b)
	c := d.connect(b)
	defer c.close()
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	start := time.Now()
	_, err = c.pg.CopyFrom(context.WithoutCancel(b.Context()), bufio.NewReaderSize(f, 1<<20), "COPY public.bare FROM STDIN"+options)
	require.NoError(b, err)
	return usage{took: time.Since(start), server: d.backends(b, "test")}
}

// backends is the processor time that the server's processes for an application have used. On a machine that is busy
// with other things it says more than a clock.
func (d database) backends(b *testing.B, application string) time.Duration {
	b.Helper()
	var ticks int
	for pid := range strings.FieldsSeq(d.exec(b, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = '"+application+"'")) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		require.NoError(b, err)
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
		user, err := strconv.Atoi(fields[11])
		require.NoError(b, err)
		system, err := strconv.Atoi(fields[12])
		require.NoError(b, err)
		ticks += user + system
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// dump writes what bare left in the table as a binary COPY.
func (d database) dump(b *testing.B, path string) {
	b.Helper()
	c := d.connect(b)
	defer c.close()
	f, err := os.Create(path)
	require.NoError(b, err)
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = c.pg.CopyTo(b.Context(), w, "COPY public.bare TO STDOUT (FORMAT binary)")
	require.NoError(b, err)
	require.NoError(b, w.Flush())
	require.NoError(b, f.Close())
}

// settle takes what earlier runs left to do out of the way of the next.
func (d database) settle(b *testing.B) {
	b.Helper()
	d.exec(b, "CHECKPOINT")
}

func (d database) connect(t testing.TB) *conn {
	t.Helper()
	var cfg config
	require.NoError(t, json.Unmarshal(d.config(nil), &cfg))
	c, err := connect(t.Context(), cfg, "test")
	require.NoError(t, err)
	return c
}

// median is the run that took neither longest nor shortest.
func median(runs []usage) usage {
	slices.SortFunc(runs, func(a, b usage) int { return cmp.Compare(a.took, b.took) })
	return runs[len(runs)/2]
}

// benchMode is one line of the result.
type benchMode struct {
	name   string
	aim    float64
	update bool // of rows that are there, each loaded before
	loads  bool
}

func BenchmarkThroughput(b *testing.B) {
	db := newDatabase(b)
	inserts, updates := record(b, 0, false), record(b, 1, true)
	binary := b.TempDir() + "/copy.bin"
	db.bare(b, inserts.text, "")
	db.dump(b, binary)
	for _, mode := range []benchMode{
		{name: "insert", aim: 0.4},
		{name: "insert-with-loads", aim: 0.4, loads: true},
		{name: "update", aim: 0.25, update: true, loads: true},
	} {
		b.Run(mode.name, func(b *testing.B) {
			for b.Loop() {
				db.compare(b, mode, inserts, updates, binary)
			}
		})
	}
}

// compare plays a recording and copies the same rows, in turns, and prints the ratio of the medians. The limit is the
// faster one of the two formats of COPY.
func (d database) compare(b *testing.B, mode benchMode, inserts, updates recording, binary string) {
	b.Helper()
	c := d.sinkCase()
	var texts, binaries, ours []usage
	var cpu, peak float64
	for range benchRounds {
		texts = append(texts, d.bare(b, inserts.text, ""))
		binaries = append(binaries, d.bare(b, binary, " (FORMAT binary)"))
		r := sinktest.NewRuntime(b, c, frame.Proto, sinktest.Task{Name: "bench", Config: c.Config, Bindings: []sinktest.Binding{
			{Collection: benchCollection(), Resource: c.Resource("rows", false)},
		}})
		d.exec(b, "DROP TABLE IF EXISTS rows, sluice_tables_v1, sluice_checkpoints_v1")
		r.MustApply()
		// The server's checkpoint comes before the rows that are updated, not between: right behind one, every page that
		// is touched is logged whole, which a bare COPY into new pages never pays.
		d.settle(b)
		recording := inserts
		if mode.update {
			d.play(b, r.Applied, inserts, false)
			recording = updates
		}
		u := d.play(b, r.Applied, recording, mode.loads)
		ours = append(ours, u)
		cpu, peak = cpu+u.cpu.Seconds()/benchRounds, max(peak, u.peakMB)
		require.Equal(b, fmt.Sprint(benchRows), d.exec(b, "SELECT count(*) FROM rows"))
	}
	us, text, bin := median(ours), median(texts), median(binaries)
	best := text
	if bin.took < best.took {
		best = bin
	}
	fmt.Printf("ratio materialize-postgres/%s %.2f (aim >= %.2f) %.0f rows/s against %.0f (COPY text %.0f, binary %.0f); connector %.2f CPU s per million, server %.2f against %.2f, peak %.0f MB\n",
		mode.name, us.rate()/best.rate(), mode.aim, us.rate(), best.rate(), text.rate(), bin.rate(), cpu, us.server.Seconds(), best.server.Seconds(), peak)
}
