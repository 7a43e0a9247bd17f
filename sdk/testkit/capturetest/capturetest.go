// Package capturetest is the contract of a capture connector, executable: every source runs it against the system that it
// captures.
package capturetest

import (
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/golden"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// Case is one source with something to capture. What it captures must not change while the suite runs, and it must yield
// the same documents of a binding in the same order whenever it is read from the same state.
type Case struct {
	// Connector makes the connector; each simulated process has its own.
	Connector func() capture.Connector
	// Config is the endpoint's configuration, as a value that encodes to JSON.
	Config any
	// Documents is how many documents a test reads, over all bindings: enough for several transactions. A source that
	// ends by itself before is read to its end.
	Documents int
	// Scrub replaces what differs between two readings of the same document, such as the time of reading.
	Scrub *golden.Scrubber
	// Blocked is how long the output stays blocked in the test of that; 0 means 300 ms.
	Blocked time.Duration
}

// Run runs the suite, in both codecs:
//
//   - what Spec and Discover answer is golden (testdata/golden/<test's name>);
//   - resuming after every checkpoint gives exactly the rest;
//   - a stop in the middle of Read ends cleanly, at the end of a transaction, and leaves no goroutine;
//   - an output that nobody reads for a while loses nothing, and acknowledgements are taken meanwhile;
//   - acknowledgements are counted;
//   - wrong messages are refused with a reason.
func Run(t *testing.T, c Case) {
	t.Helper()
	if c.Blocked == 0 {
		c.Blocked = 300 * time.Millisecond
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			s := &suite{Case: c, name: name, codec: codec}
			t.Run("spec", s.spec)
			t.Run("discover", s.discover)
			t.Run("resume", s.resume)
			t.Run("stop", s.stop)
			t.Run("blocked output", s.blocked)
			t.Run("acknowledgements", s.acknowledgements)
			t.Run("wrong messages", s.wrongMessages)
		})
	}
}

type suite struct {
	Case
	name  string // of the test that runs the suite
	codec frame.Codec
}

// golden is the name of a golden file. A package may run the suite for several sources.
func (s *suite) golden(file string) string { return s.name + "/" + file }

func (s *suite) start(t *testing.T) *session.Session {
	t.Helper()
	return session.Start(t, s.Connector(), s.codec)
}

// open starts a process and opens a session of everything that can be captured.
func (s *suite) open(t *testing.T, state json.RawMessage) *session.Session {
	t.Helper()
	process := s.start(t)
	process.Open(process.Task(s.Config), state)
	return process
}

func (s *suite) spec(t *testing.T) {
	process := s.start(t)
	res := process.Call(&capturepb.Request{Spec: &capturepb.Request_Spec{
		ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: json.RawMessage("{}"),
	}})
	require.NotNil(t, res.Spec)
	text, err := frame.JSON.AppendBody(nil, res.Spec)
	require.NoError(t, err)
	golden.CompareJSON(t, s.golden("spec.json"), text)

	process.CloseRequests()
	require.NoError(t, process.Wait(), "the end of requests is a clean end")
}

func (s *suite) discover(t *testing.T) {
	found := s.start(t).Discover(s.Config)
	require.NotEmpty(t, found.Bindings)
	text, err := frame.JSON.AppendBody(nil, found)
	require.NoError(t, err)
	golden.CompareJSON(t, s.golden("discover.json"), s.Scrub.Scrub(text))
}

// reading is what a session gave.
type reading struct {
	docs   map[int][]string // by binding
	count  int
	points []checkpoint // after each transaction
	ended  bool
}

// checkpoint is a place where a reading can be resumed.
type checkpoint struct {
	state  json.RawMessage
	count  int
	before map[int]int // documents of each binding up to here
}

// read reads at least n documents from a session that was opened with a state, and acknowledges as it goes.
func (s *suite) read(t *testing.T, process *session.Session, state json.RawMessage, n int) *reading {
	t.Helper()
	r := &reading{docs: map[int][]string{}}
	for r.count < n {
		tx, err := process.Transaction()
		if errors.Is(err, io.EOF) {
			require.NoError(t, process.Wait())
			r.ended = true
			break
		}
		require.NoError(t, err)
		state = r.add(t, s, tx, state)
		process.Ack(1)
	}
	return r
}

// add notes a transaction and returns the state after it.
func (r *reading) add(t *testing.T, s *suite, tx *session.Transaction, state json.RawMessage) json.RawMessage {
	t.Helper()
	for _, d := range tx.Documents {
		require.True(t, json.Valid(d.Doc), "document %s", d.Doc)
		r.docs[d.Binding] = append(r.docs[d.Binding], string(s.Scrub.Scrub(d.Doc)))
	}
	r.count += len(tx.Documents)
	state, err := flowpb.MergePatch(state, tx.Patch)
	require.NoError(t, err)
	point := checkpoint{state: state, count: r.count, before: map[int]int{}}
	for binding, docs := range r.docs {
		point.before[binding] = len(docs)
	}
	r.points = append(r.points, point)
	return state
}

// resume reads everything once, then again from the state of each checkpoint.
func (s *suite) resume(t *testing.T) {
	whole := s.read(t, s.open(t, nil), nil, s.Documents)
	require.Greater(t, len(whole.points), 1, "more than one transaction is needed to resume between them")
	for i, point := range sample(whole.points) {
		rest := s.read(t, s.open(t, point.state), point.state, whole.count-point.count)
		for binding, docs := range whole.docs {
			done := point.before[binding]
			want, got := docs[done:], rest.docs[binding]
			n := min(len(want), len(got))
			require.Equal(t, slices.Concat(want[:n]), slices.Concat(got[:n]), "binding %d, resumed after checkpoint %d", binding, i)
		}
		if whole.ended {
			require.Equal(t, whole.count-point.count, rest.count, "resumed after checkpoint %d", i)
		}
	}
}

// sample chooses checkpoints to resume at: all of them, or about twenty of many.
func sample(points []checkpoint) []checkpoint {
	const most = 20
	var chosen []checkpoint
	for i := 0; i < len(points)-1; i += max(1, len(points)/most) {
		chosen = append(chosen, points[i])
	}
	return chosen
}

// stop stops a session while its reader reads.
func (s *suite) stop(t *testing.T) {
	idle := runtime.NumGoroutine()
	process := s.open(t, nil)
	first, err := process.Transaction()
	require.NoError(t, err)
	process.Cancel()
	for {
		tx, err := process.Transaction()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err, "the output must end at the end of a transaction")
		first.Documents = append(first.Documents, tx.Documents...)
	}
	require.NoError(t, process.Wait(), "a stop is a clean end")
	require.NotEmpty(t, first.Documents)
	requireGoroutines(t, idle)
}

// requireGoroutines waits until no more goroutines run than before.
func requireGoroutines(t *testing.T, before int) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("goroutines are left over:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
		require.NoError(t, capture.Sleep(t.Context(), 5*time.Millisecond))
	}
}

// blocked does not read the output for a while.
func (s *suite) blocked(t *testing.T) {
	whole := s.read(t, s.open(t, nil), nil, s.Documents)

	process := s.open(t, nil)
	r := &reading{docs: map[int][]string{}}
	tx, err := process.Transaction()
	require.NoError(t, err)
	state := r.add(t, s, tx, nil)
	require.NoError(t, capture.Sleep(t.Context(), s.Blocked))
	process.Ack(1) // fails the test if nobody takes it while the output is blocked
	for r.count < whole.count {
		tx, err := process.Transaction()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		state = r.add(t, s, tx, state)
	}
	for binding, docs := range whole.docs {
		n := min(len(docs), len(r.docs[binding]))
		require.Equal(t, docs[:n], r.docs[binding][:n], "binding %d", binding)
	}
	require.GreaterOrEqual(t, r.count, whole.count)
}

// acknowledgements acknowledges several checkpoints at once, and then one too many.
func (s *suite) acknowledgements(t *testing.T) {
	process := s.open(t, nil)
	for range 2 {
		_, err := process.Transaction()
		require.NoError(t, err)
	}
	process.Ack(2)
	_, err := process.Transaction()
	if errors.Is(err, io.EOF) {
		return // it ended; nothing more can be acknowledged
	}
	require.NoError(t, err)
	process.Ack(1 << 30)
	for err == nil {
		_, err = process.Transaction()
	}
	require.ErrorContains(t, process.Wait(), "checkpoints were acknowledged")
}

// wrongMessages sends what no runtime should.
func (s *suite) wrongMessages(t *testing.T) {
	frameOf := func(t *testing.T, req *capturepb.Request) []byte {
		t.Helper()
		text, err := frame.Append(nil, s.codec, req)
		require.NoError(t, err)
		return text
	}
	acknowledge := &capturepb.Request{Acknowledge: &capturepb.Request_Acknowledge{Checkpoints: 1}}
	spec := &capturepb.Request{Spec: &capturepb.Request_Spec{
		ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: json.RawMessage("{}"),
	}}
	for name, c := range map[string]struct {
		send []byte
		want string
	}{
		"an acknowledgement before Open": {frameOf(t, acknowledge), "before Open"},
		"a cut frame":                    {frameOf(t, spec)[:3], "message 1 at byte 0 ends"},
		"nothing in a request":           {frameOf(t, &capturepb.Request{}), "request"},
	} {
		t.Run(name, func(t *testing.T) {
			process := s.start(t)
			process.SendBytes(c.send)
			process.CloseRequests()
			require.ErrorContains(t, process.Wait(), c.want)
		})
	}
	t.Run("a request after Open", func(t *testing.T) {
		process := s.open(t, nil)
		process.Send(spec)
		var err error
		for err == nil {
			_, err = process.Transaction()
		}
		require.ErrorContains(t, process.Wait(), "only Acknowledge may follow")
	})
}
