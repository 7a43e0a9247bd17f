package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/capture"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/sdk/retry"
)

// rig is a pipeline of fakes: one capture into one collection, which any number of sinks read.
type rig struct {
	t       *testing.T
	dir     string
	p       *pipeline.Pipeline
	source  fakeConfig
	options Options
	log     *logBuffer
}

func newRig(t *testing.T, codec frame.Codec, source fakeConfig) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, dir: dir, log: &logBuffer{}}
	source.Dir = r.mkdir("source")
	r.source = source
	r.p = &pipeline.Pipeline{
		File: "test.yaml",
		Captures: []*pipeline.Capture{{
			Name: "acme/source", Endpoint: r.endpoint("capture", codec, source), Interval: 200 * time.Millisecond, At: "test.yaml:1",
			Bindings: []pipeline.CaptureBinding{{Resource: json.RawMessage(`{"stream":"things"}`), Target: "acme/things"}},
		}},
		Collections: map[string]*pipeline.Collection{"acme/things": {Name: "acme/things", Key: []string{"/id"}, Schema: json.RawMessage(fakeSchema), At: "test.yaml:9"}},
	}
	if onKafka(t) {
		r.p.Kafka = testKafka(t)
	}
	return r
}

func (r *rig) mkdir(name string) string {
	dir := filepath.Join(r.dir, name)
	require.NoError(r.t, os.MkdirAll(dir, 0o700))
	return dir
}

func (r *rig) endpoint(fake string, codec frame.Codec, config fakeConfig) pipeline.Endpoint {
	self, err := os.Executable()
	require.NoError(r.t, err)
	raw, err := json.Marshal(config)
	require.NoError(r.t, err)
	return pipeline.Endpoint{Command: []string{self}, Env: map[string]string{"FAKE": fake}, Codec: codec, Config: raw}
}

// sink adds a materialization with a standard and a delta binding.
func (r *rig) sink(name, fake string, codec frame.Codec, config fakeConfig) *pipeline.Materialization {
	return r.sinkOf(name, fake, codec, config, `{"table":"things"}`, historyTable)
}

// patience bounds every wait, on a machine that may have much else to do.
const patience = 3 * time.Minute

const historyTable = `{"table":"history","delta":true}`

func (r *rig) sinkOf(name, fake string, codec frame.Codec, config fakeConfig, resources ...string) *pipeline.Materialization {
	config.Dir = r.mkdir(name)
	m := &pipeline.Materialization{Name: "acme/" + name, Endpoint: r.endpoint(fake, codec, config), At: "test.yaml:20"}
	for _, resource := range resources {
		m.Bindings = append(m.Bindings, pipeline.MaterializationBinding{Resource: json.RawMessage(resource), Source: "acme/things", Fields: pipeline.Fields{Depth: 1}, At: "test.yaml:22"})
	}
	r.p.Materializations = append(r.p.Materializations, m)
	return m
}

func (r *rig) defaults() Options {
	logger := logrus.New()
	logger.SetOutput(r.log)
	logger.SetLevel(logrus.DebugLevel)
	o := r.options
	o.Pipeline, o.DataDir, o.Logger = r.p, filepath.Join(r.dir, "data"), logger
	o.Launcher = connector.Launcher{Environ: os.Environ()}
	o.Backoff = retry.Backoff{Min: 10 * time.Millisecond, Max: 50 * time.Millisecond, Factor: 1, Jitter: 0.1}
	o.MinFreeBytes = 1
	if o.Capture == (capture.Timeouts{}) {
		o.Capture = capture.Timeouts{Answer: 20 * time.Second, Stop: 5 * time.Second}
	}
	if o.Materialize == (materialize.Timeouts{}) {
		o.Materialize = materialize.Timeouts{Answer: 20 * time.Second, Stop: 5 * time.Second, Settle: time.Millisecond}
	}
	if o.Board == nil {
		o.Board = status.NewBoard()
	}
	return o
}

// start runs the engine until the returned function is called, which waits for its end.
func (r *rig) start() (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	o := r.defaults()
	r.options.Board = o.Board
	ready, told := make(chan struct{}), o.Ready
	o.Ready = func() {
		close(ready)
		if told != nil {
			told()
		}
	}
	go func() { done <- Run(ctx, o) }()
	select { // Kafka takes a while
	case <-ready:
	case err := <-done:
		done <- err
	case <-time.After(patience):
		r.t.Fatalf("the engine does not begin\n%s", r.log)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				require.NoError(r.t, err)
			case <-time.After(patience):
				r.t.Fatalf("the engine does not stop\n%s", r.log)
			}
		})
	}
	r.t.Cleanup(stop)
	return stop
}

// expected is what a destination must have in the end: the documents that are there, and how many each key had.
type expected struct {
	rows  map[string]string // id → "n count"
	total int               // documents in all
}

func (r *rig) expect() expected {
	e := expected{rows: map[string]string{}}
	counts := map[string]int{}
	for n := r.source.From; n < r.source.Total; n++ {
		var doc struct {
			ID   int `json:"id"`
			Meta struct {
				Op string `json:"op"`
			} `json:"_meta"`
		}
		require.NoError(r.t, json.Unmarshal(fakeDoc(&r.source, n), &doc))
		id := strconv.Itoa(doc.ID)
		counts[id]++
		e.total++
		if doc.Meta.Op == "d" {
			delete(e.rows, id)
			counts[id] = 0
			continue
		}
		e.rows[id] = fmt.Sprintf("%d %d", n, counts[id])
	}
	return e
}

// rows are the destination's rows in the form of expect, and the sum of the delta table's counts.
func (r *rig) rows(name string) (rows map[string]string, history int) {
	db, err := readDB(filepath.Join(r.dir, name))
	require.NoError(r.t, err)
	type row struct{ N, Count int }
	rows = map[string]string{}
	for key, doc := range db.Tables["things"] {
		var v row
		require.NoError(r.t, json.Unmarshal(doc, &v))
		rows[key] = fmt.Sprintf("%d %d", v.N, v.Count)
	}
	for _, doc := range db.Deltas["history"] {
		var v row
		require.NoError(r.t, json.Unmarshal(doc, &v))
		history += v.Count
	}
	return rows, history
}

// wait waits until a destination has exactly what it must have.
func (r *rig) wait(name string) {
	r.t.Helper()
	want := r.expect()
	deadline := time.Now().Add(patience)
	for {
		rows, history := r.rows(name)
		if fmt.Sprint(rows) == fmt.Sprint(want.rows) && (r.source.Deletes || history >= want.total) {
			break
		}
		if time.Now().After(deadline) {
			require.Equal(r.t, want.rows, rows, "%.5000s", r.log)
			require.FailNow(r.t, "the history has not come", "%d documents of %d: %.5000s", history, want.total, r.log)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // polling with a deadline
	}
}

// same requires that nothing is lost or repeated, in the delta table either. A deletion restarts its key's count within
// a transaction, so the delta table adds up only without deletions.
func (r *rig) same(name string) {
	r.t.Helper()
	want := r.expect()
	rows, history := r.rows(name)
	require.Equal(r.t, want.rows, rows)
	if !r.source.Deletes {
		require.Equal(r.t, want.total, history, "documents in the delta table")
	}
}

// altered requires that a destination has got the field that the source adds (AlterAt), before any document that needs it.
func (r *rig) altered(name string) {
	r.t.Helper()
	db, err := readDB(filepath.Join(r.dir, name))
	require.NoError(r.t, err)
	require.Equal(r.t, []string{"id", "_meta/op", "count", "extra", "n"}, db.Fields["things"])
	require.False(r.t, db.Lost, "a document was stored before its field was there")
	require.Contains(r.t, r.log.String(), "opening again with the new schema")
	require.NotContains(r.t, r.log.String(), "level=error")
}

type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var _ io.Writer = (*logBuffer)(nil)

// waitLog waits for a text in the log.
func (r *rig) waitLog(text string) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return strings.Contains(r.log.String(), text) }, patience, 5*time.Millisecond, "no %q in the log", text)
}

func TestPipelineInEveryCodec(t *testing.T) { onBoth(t, testPipelineInEveryCodec) }

func testPipelineInEveryCodec(t *testing.T) {
	t.Parallel()
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		for _, fake := range []string{"atomic", "staged"} {
			t.Run(codec.String()+" "+fake, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, codec, fakeConfig{Total: 2000, Batch: 7, Keys: 50, Replace: codec == frame.JSON, Deletes: fake == "atomic"})
				r.sink("one", fake, codec, fakeConfig{Legacy: codec == frame.JSON})
				stop := r.start()
				r.wait("one")
				// The source notes them as they come, and is stopped wherever it is.
				require.Eventually(t, func() bool {
					acked, err := os.ReadFile(filepath.Join(r.dir, "source", "acknowledged"))
					return err == nil && string(acked) == strconv.Itoa((2000+6)/7)
				}, patience, 5*time.Millisecond, "every checkpoint is acknowledged")
				stop()
				r.same("one")
			})
		}
	}
}
