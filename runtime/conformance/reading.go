package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// document is a captured document as it is compared: without its metadata, which say when and from where it was read.
type document struct {
	key  string // with the binding
	text string // "" of a deletion
}

// point is a checkpoint: the state, and how many documents came before it.
type point struct {
	state []byte
	docs  int
}

// reading is what a capture gave.
type reading struct {
	docs     []document
	points   []point
	invalid  error // the first document or state that breaks a rule
	badState error
	exit     error
	complete bool // it ended since nothing more came
}

// final is the last document of each key.
func final(docs []document) map[string]string {
	last := map[string]string{}
	for _, d := range docs {
		last[d.key] = d.text
	}
	return last
}

// missing tells what another reading does not have, or has otherwise; "" if nothing.
func (r *reading) missing(other *reading) string {
	want, got := final(r.docs), final(other.docs)
	if len(got) < len(want) && len(other.docs) > 0 {
		return fmt.Sprintf("%d of %d keys are missing", len(want)-len(got), len(want))
	}
	for key, text := range want {
		have, ok := got[key]
		switch {
		case !ok:
			return "a document is missing: " + text
		case have != text:
			return fmt.Sprintf("a document is %s where one run gave %s", have, text)
		}
	}
	if len(got) > len(want) && r.complete {
		return fmt.Sprintf("%d keys came that one run did not give: the source does not stand still, or needs a longer --quiet", len(got)-len(want))
	}
	return ""
}

// again is a document of those before a checkpoint that came after it, and that one run does not give after it.
func again(whole, resumed []document, at int) string {
	rest, before := map[document]int{}, map[document]bool{}
	for _, d := range whole[at:] {
		rest[d]++
	}
	for _, d := range whole[:at] {
		before[d] = true
	}
	for _, d := range resumed[at:] {
		if rest[d]--; rest[d] < 0 && before[d] {
			return d.text
		}
	}
	return ""
}

// life is one session of the capture under test, for one goroutine.
type life struct {
	reading
	s        *suite
	session  *host.CaptureSession
	keys     []*jsonscan.Pointers
	schemas  []*jsonschema.Schema
	want     *reading // what is to come in the end, if that is known
	rest     bool     // it looks whether anything is left, and most likely nothing is
	acks     int      // so many checkpoints are acknowledged at once; 0 for never
	owed     int
	overdone bool // the rule's own doing was done
}

// open opens the capture; i chooses the codec.
func (s *suite) open(ctx context.Context, i int, state []byte) (*life, error) {
	session, err := s.capture(i).Open(ctx, &capturepb.Request_Open{Capture: s.task, StateJson: state})
	if err != nil {
		return nil, err
	}
	l := &life{s: s, session: session}
	for _, b := range s.task.Bindings {
		schema, err := compile(b.Collection.WriteSchemaJson)
		if err != nil {
			return nil, err
		}
		l.keys, l.schemas = append(l.keys, jsonscan.NewPointers(b.Collection.Key)), append(l.schemas, schema)
	}
	return l, nil
}

// lacks reports whether it is known that something is still to come.
func (l *life) lacks() bool { return l.want != nil && l.want.missing(&l.reading) != "" }

// patience is how long the capture may be silent before it counts as being at its end. Silence says little while it has given nothing, or
// not all that it once gave: there it has the time that any answer has. Otherwise a source that has been silent for a while
// before may be so again.
func (l *life) patience(lacks, complete bool) time.Duration {
	quiet := max(l.s.opts.Quiet, 2*l.s.longest)
	switch {
	case complete:
		return min(quiet, time.Second) // resumed where nothing more will come, unless it comes again
	case lacks, len(l.points) == 0 && !l.rest:
		return l.s.opts.Connector.Answer
	}
	return quiet
}

// read reads until done, which is asked at each checkpoint, or until the capture has been silent for too long; then it is told to stop, and
// read to its end. It returns how that ended.
func (l *life) read(ctx context.Context, done func() bool) error {
	asked, over := make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() { close(asked) })
	var stopping sync.WaitGroup
	stopping.Go(func() {
		select {
		case <-asked:
			l.s.watch.sample(l.session.Process())
			l.session.Stop(l.s.opts.Connector.Answer)
		case <-over:
		}
	})
	err := l.receive(ctx, stop, done)
	close(over)
	if err != nil {
		_ = l.session.Close() // the error is known
	}
	stopping.Wait()
	if err != nil {
		return err
	}
	return l.session.Wait(ctx)
}

// receive takes responses to their end, and calls stop when there are enough. stop may be called by another goroutine, and more than once.
func (l *life) receive(ctx context.Context, stop func(), done func() bool) error {
	defer context.AfterFunc(ctx, l.session.Kill)()
	lacks, complete := l.lacks(), len(l.docs) > 0 && done()
	for {
		began := time.Now()
		timer := time.AfterFunc(l.patience(lacks, complete), stop)
		r, err := l.session.Next()
		silent := !timer.Stop()
		if ended(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !silent && len(l.docs) > 0 {
			l.s.longest = max(l.s.longest, time.Since(began))
		}
		l.add(r)
		if r.Checkpoint == nil {
			continue
		}
		lacks = l.lacks()
		if done() {
			stop()
		}
	}
}

// dieAt reads up to a step and kills the capture there. One that is silent before has no such step any more.
func (l *life) dieAt(step string) {
	timer := time.AfterFunc(l.s.opts.Quiet, l.session.Kill)
	defer timer.Stop()
	for {
		r, err := l.session.Next()
		if err != nil {
			break
		}
		timer.Reset(l.s.opts.Quiet)
		if step == "acknowledge" {
			l.acks = 1
		}
		l.add(r)
		if step == "document" && r.Captured != nil || step != "document" && r.Checkpoint != nil {
			break
		}
	}
	_ = l.session.Close() // killed, as it should
}

// dieOpening kills the capture while it opens.
func (s *suite) dieOpening(ctx context.Context, i int) error {
	c := s.connector(i)
	p, err := c.Start(ctx)
	if err != nil {
		return err
	}
	open := &capturepb.Request_Open{Capture: s.task, Version: "conformance", Range: flowpb.FullRange(), StateJson: []byte("{}")}
	_ = p.Send(&capturepb.Request{Open: open})
	_ = p.Flush()
	pause(ctx, 50*time.Millisecond)
	p.Kill()
	_ = p.Wait(ctx) // killed, as it should
	return nil
}

func (l *life) add(r *capturepb.Response) {
	switch {
	case r.Captured != nil:
		l.document(int(r.Captured.Binding), r.Captured.DocJson)
	case r.SourcedSchema != nil:
		l.schemas[r.SourcedSchema.Binding] = nil // the source's word counts from now on
		if _, err := compile(r.SourcedSchema.SchemaJson); err != nil && l.invalid == nil {
			l.invalid = fmt.Errorf("a SourcedSchema: %w", err)
		}
	case r.Checkpoint != nil:
		if updated := r.Checkpoint.State.GetUpdatedJson(); len(updated) > 0 && jsonscan.Kind(updated) != '{' && l.badState == nil {
			l.badState = fmt.Errorf("the state of checkpoint %d is no object: %.60q", len(l.points)+1, updated)
		}
		l.points = append(l.points, point{state: l.session.State(), docs: len(l.docs)})
		if l.owed++; l.acks > 0 && l.owed >= l.acks {
			l.session.Acknowledge(l.owed)
			l.owed = 0
		}
	}
}

func (l *life) document(binding int, text []byte) {
	found := make([][]byte, l.keys[binding].Len())
	l.keys[binding].Find(text, found)
	key := []string{strconv.Itoa(binding)}
	for i, part := range found {
		if (part == nil || jsonscan.IsNull(part)) && l.invalid == nil {
			l.invalid = fmt.Errorf("a document of %s has no %s, which is in its key: %.200q", l.name(binding), l.s.task.Bindings[binding].Collection.Key[i], text)
		}
		key = append(key, canonical(part))
	}
	if schema := l.schemas[binding]; schema != nil && l.invalid == nil {
		if err := fits(schema, text); err != nil {
			l.invalid = fmt.Errorf("a document of %s: %w", l.name(binding), err)
		}
	}
	var members map[string]json.RawMessage
	_ = json.Unmarshal(text, &members)
	d := document{key: strings.Join(key, " ")}
	if op := string(jsonscan.Member(members["_meta"], "op")); op != `"d"` {
		delete(members, "_meta")
		plain, _ := json.Marshal(members)
		d.text = canonical(plain)
	}
	l.docs = append(l.docs, d)
}

func (l *life) name(binding int) string {
	return strings.TrimPrefix(l.s.task.Bindings[binding].Collection.Name, collections+"/")
}

// pause waits, but not longer than the context lives.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
