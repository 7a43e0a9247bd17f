package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/ratio"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// benchMode is one line of the result: rows that are stored through the protocol, beside a bare COPY of as many rows of the
// same shape into a table with the same primary key, on the same server, in turns.
//
//	go test -run '^$' -bench Throughput/insert$ -benchtime 1x -timeout 60m .
//
// SLUICE_BENCH_ROWS says how many rows, a million if it is not set; SLUICE_BENCH_PAIRS how many pairs of runs, five if not.
type benchMode struct {
	name  string
	shape *benchShape
	aim   float64 // 0 is none: the ratio is only printed
	cpu   float64 // at most so many seconds of the connector a million rows; 0 is no aim
	delta bool    // append
	loads bool    // every key is loaded before it is stored, as our runtime does with documents that leave something out
	// updates is the part of the rows that have keys which an earlier transaction stored.
	updates float64
	history bool // versions, not rows
}

func benchModes() []benchMode {
	return []benchMode{
		{name: "insert", shape: narrowRows(), aim: 0.6, cpu: 1.5},
		{name: "insert-with-loads", shape: narrowRows(), aim: 0.5, loads: true},
		{name: "update", shape: narrowRows(), aim: 0.35, cpu: 1.5, updates: 1},
		{name: "update-with-loads", shape: narrowRows(), aim: 0.35, updates: 1, loads: true},
		{name: "append", shape: narrowRows(), aim: 0.8, cpu: 1.5, delta: true},
		// A new version is compared with what is stored of its key, and closes the version before it. Nobody has asked for a speed.
		{name: "history-new", shape: narrowRows(), history: true},
		{name: "history-change", shape: narrowRows(), updates: 1, history: true},
		// 60 % at 0.6 and 40 % at 0.35 of a COPY's speed.
		{name: "documents", shape: kilobyteDocuments(), aim: 0.47, updates: 0.4, loads: true},
	}
}

func BenchmarkThroughput(b *testing.B) {
	for _, mode := range benchModes() {
		b.Run(mode.name, func(b *testing.B) {
			for b.Loop() {
				newDatabase(b).compare(b, mode)
			}
		})
	}
}

// compare runs the pairs and prints their ratio. The limit is the faster one of the two formats of COPY.
func (d database) compare(b *testing.B, mode benchMode) {
	b.Helper()
	rows := benchNumber(b, "SLUICE_BENCH_ROWS", 1_000_000)
	text := mode.shape.text(b, rows)
	d.bare(b, mode, rows, text, "")
	binary := d.dump(b)
	base := mode.record(b, rows)
	var servers, bares []float64
	result, err := ratio.Pairs(benchNumber(b, "SLUICE_BENCH_PAIRS", 5), func(int) (ratio.Run, error) {
		best, server := d.bare(b, mode, rows, text, "")
		if bin, s := d.bare(b, mode, rows, binary, " (FORMAT binary)"); bin.Took < best.Took {
			best, server = bin, s
		}
		bares = append(bares, server)
		return best, nil
	}, func(int) (ratio.Run, error) {
		spec := d.benchTask(b, mode)
		// The server's checkpoint comes before the rows that are updated, not between: right behind one, every page that
		// is touched is logged whole, which a bare COPY into new pages never pays.
		d.exec(b, "CHECKPOINT")
		if len(base.first) > 0 {
			d.play(b, spec, base.first, false)
		}
		run, server := d.play(b, spec, base.stores, mode.loads)
		servers = append(servers, server)
		run.Rows = int64(rows)
		require.Equal(b, fmt.Sprint(base.keys), d.exec(b, "SELECT count(DISTINCT id) FROM rows"))
		if mode.history {
			require.Equal(b, fmt.Sprintf("%d|%d", rows, len(base.first)*rows/len(base.stores)), d.exec(b, "SELECT count(*) FILTER (WHERE is_current), count(*) FILTER (WHERE NOT is_current) FROM rows"))
		}
		return run, nil
	})
	require.NoError(b, err)
	slices.Sort(servers)
	slices.Sort(bares)
	million := 1e6 / float64(rows)
	ours, theirs := servers[len(servers)/2]*million, bares[len(bares)/2]*million
	name := "materialize-postgres/" + mode.name
	report := func(name string, value float64, op ratio.Op, aim float64, detail string) {
		require.NoError(b, ratio.Print(os.Stdout, name, value, op, aim, detail))
	}
	detail := fmt.Sprintf("%s; server %.2f CPU s a million against %.2f, %.2f as much", result, ours, theirs, theirs/ours)
	if mode.aim > 0 {
		report(name, result.Ratio, ratio.AtLeast, mode.aim, detail)
	} else {
		require.NoError(b, ratio.PrintOnly(os.Stdout, name, result.Ratio, detail))
	}
	report(name+"-memory", float64(result.Ours.Peak)/1e6, ratio.AtMost, 150, "MB")
	if mode.cpu > 0 {
		report(name+"-cpu", result.Ours.CPUPerMillion(), ratio.AtMost, mode.cpu, "CPU seconds of the connector a million rows")
	}
}

func benchNumber(b *testing.B, name string, otherwise int) int {
	b.Helper()
	if text := os.Getenv(name); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(b, err, name)
		return n
	}
	return otherwise
}

// benchTask makes the task's table anew.
func (d database) benchTask(b *testing.B, mode benchMode) *flowpb.MaterializationSpec {
	b.Helper()
	c := d.sinkCase()
	resource := c.Resource("rows", mode.delta)
	if mode.history {
		resource = json.RawMessage(`{"table":"rows","history":"scd2","historyTime":"at"}`)
	}
	r := sinktest.NewRuntime(b, c, frame.Proto, sinktest.Task{Name: "bench", Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: mode.shape.collection, Resource: resource},
	}})
	d.exec(b, "DROP TABLE IF EXISTS rows, sluice_tables_v1, sluice_checkpoints_v1")
	r.MustApply()
	return r.Applied
}

// play stores recorded transactions through the connector. It returns what the connector took, and the CPU seconds of the
// server's processes that worked for it.
func (d database) play(b *testing.B, spec *flowpb.MaterializationSpec, transactions []recorded, withLoads bool) (ratio.Run, float64) {
	b.Helper()
	cmd := child.Self(b, child.Connector)
	cmd.Env = append(cmd.Env, "SLUICE_CODEC=proto", "LOG_LEVEL=warn")
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
	for i, txn := range transactions {
		acknowledge()
		if withLoads {
			replay(b, in, txn.loads)
		}
		expect(func(m *materializepb.Response) bool { return m.GetAcknowledged() != nil })
		send(&materializepb.Request{Flush: &materializepb.Request_Flush{}})
		expect(func(m *materializepb.Response) bool { return m.GetFlushed() != nil })
		replay(b, in, txn.stores)
		send(&materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(i)}})
		expect(func(m *materializepb.Response) bool { return m.GetStartedCommit() != nil })
	}
	acknowledge()
	expect(func(m *materializepb.Response) bool { return m.GetAcknowledged() != nil })
	took := time.Since(start)
	server := d.backends(b, "sluice bench")
	used, err := ratio.Usage(cmd.Process.Pid)
	require.NoError(b, err)
	require.NoError(b, in.Close())
	require.NoError(b, cmd.Wait())
	return ratio.Run{Took: took, CPU: used.CPU, Peak: used.Peak}, server
}

func replay(b *testing.B, to io.Writer, path string) {
	b.Helper()
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	require.NoError(b, err)
}

// bare copies rows from a file into a table of its own.
func (d database) bare(b *testing.B, mode benchMode, rows int, path, options string) (ratio.Run, float64) {
	b.Helper()
	columns := mode.shape.columns
	if mode.delta {
		columns = strings.Replace(columns, " PRIMARY KEY", "", 1)
	}
	d.exec(b, "DROP TABLE IF EXISTS bare", "CREATE TABLE bare ("+columns+")", "CHECKPOINT")
	c := d.connect(b)
	defer c.close()
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	start := time.Now()
	_, err = c.pg.CopyFrom(context.WithoutCancel(b.Context()), bufio.NewReaderSize(f, 1<<20), "COPY public.bare FROM STDIN"+options)
	require.NoError(b, err)
	return ratio.Run{Rows: int64(rows), Took: time.Since(start)}, d.backends(b, "test")
}

// backends is the processor time in seconds that the server's processes for an application have used. On a machine that
// is busy with other things it says more than a clock.
func (d database) backends(b *testing.B, application string) float64 {
	b.Helper()
	var sum time.Duration
	for pid := range strings.FieldsSeq(d.exec(b, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = '"+application+"'")) {
		n, err := strconv.Atoi(pid)
		require.NoError(b, err)
		used, err := ratio.Usage(n)
		require.NoError(b, err)
		sum += used.CPU
	}
	return sum.Seconds()
}

// dump writes what bare left in the table as a binary COPY.
func (d database) dump(b *testing.B) string {
	b.Helper()
	path := b.TempDir() + "/copy.bin"
	c := d.connect(b)
	defer c.close()
	f, err := os.Create(path)
	require.NoError(b, err)
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = c.pg.CopyTo(b.Context(), w, "COPY public.bare TO STDOUT (FORMAT binary)")
	require.NoError(b, err)
	require.NoError(b, w.Flush())
	require.NoError(b, f.Close())
	return path
}

func (d database) connect(t testing.TB) *conn {
	t.Helper()
	var cfg config
	require.NoError(t, json.Unmarshal(d.config(nil), &cfg))
	c, err := connect(t.Context(), cfg, "test")
	require.NoError(t, err)
	return c
}
