package conformance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// The test's binary is also connectors, each of which breaks one rule: its mode.
const (
	fakeEnv   = "SLUICE_CONFORMANCE_FAKE" // source or sink
	modeEnv   = "SLUICE_CONFORMANCE_MODE" // the rule that is broken
	folderEnv = "SLUICE_CONFORMANCE_FOLDER"
)

// fake is what both kinds have in common.
type fake struct {
	mode   string
	folder string
	task   string // of a destination's session
	table  string
	delta  bool
	full   bool // its output was, once
	codec  frame.Codec
	in     *frame.Reader
	out    *frame.Writer
}

func newFake() *fake {
	codec, err := frame.ParseCodec(os.Getenv("SLUICE_CODEC"))
	if err != nil {
		codec = frame.Proto
	}
	return &fake{
		mode: os.Getenv(modeEnv), folder: os.Getenv(folderEnv), codec: codec,
		in: frame.NewReader(os.Stdin, codec, 0), out: frame.NewWriter(os.Stdout, codec),
	}
}

func (f *fake) log(level, format string, args ...any) {
	text, _ := json.Marshal(map[string]string{"level": level, "message": fmt.Sprintf(format, args...)})
	fmt.Fprintf(os.Stderr, "%s\n", text)
}

func (f *fake) die(format string, args ...any) {
	f.log("error", format, args...)
	os.Exit(1)
}

// next is the next request's body; it ends the process with the input.
func (f *fake) next() []byte {
	body, err := f.in.Next()
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		os.Exit(0)
	}
	if err != nil && (f.mode == "cut-frame" || f.mode == "huge-frame") {
		os.Exit(0)
	}
	if err != nil {
		f.die("reading a request: %v", err)
	}
	if f.mode == "lenient" && (strings.Contains(string(body), "unheardOf") || strings.HasSuffix(string(body), "\xe8\x07\x01")) {
		f.die("there is an unknown field")
	}
	return body
}

const fakeConfigSchema = `{"type":"object","required":["password"],"additionalProperties":false,"properties":{
 "password":{"type":"string","title":"Password","description":"What it says.","secret":true}}}`

// fakeSpec is the common part of the answer to Spec.
func (f *fake) spec(resource string) *capturepb.Response_Spec {
	spec := &capturepb.Response_Spec{
		Protocol: 3032023, ConfigSchemaJson: []byte(fakeConfigSchema), ResourceConfigSchemaJson: []byte(resource), DocumentationUrl: "https://example.com",
	}
	edit := func(old, replaced string) {
		spec.ConfigSchemaJson = []byte(strings.Replace(string(spec.ConfigSchemaJson), old, replaced, 1))
		spec.ResourceConfigSchemaJson = []byte(strings.Replace(string(spec.ResourceConfigSchemaJson), old, replaced, 1))
	}
	switch f.mode {
	case "spec-protocol":
		spec.Protocol = 1
	case "spec-schema":
		edit(`"type":"string"`, `"type":"text"`)
	case "spec-secrets":
		edit(`,"secret":true`, ``)
	case "spec-described":
		edit(`"title":"Password",`, ``)
	case "spec-documentation":
		spec.DocumentationUrl = ""
	case "spec-resource":
		edit(`,"x-collection-name":true`, ``)
	case "codecs-agree":
		spec.DocumentationUrl += "/" + f.codec.String()
	}
	return spec
}

func (f *fake) checkConfig(config []byte) {
	var c struct {
		Password string `json:"password"`
	}
	if json.Unmarshal(config, &c) != nil || c.Password == "" {
		if f.mode == "exit-code" {
			os.Exit(0)
		}
		f.die("the configuration has no password")
	}
	if f.mode == "no-secrets" {
		f.log("info", "logging in with %s", c.Password)
	}
}

func runFakeSource() {
	f := newFake()
	if f.mode == "log-format" {
		fmt.Fprintln(os.Stderr, "starting")
	} else {
		f.log("info", "starting")
	}
	for {
		var r capturepb.Request
		if err := f.codec.Unmarshal(f.next(), &r); err != nil {
			f.die("%v", err)
		}
		switch {
		case r.Spec != nil:
			spec := f.spec(`{"type":"object","required":["table"],"properties":{"table":{"type":"string","title":"Table","description":"Its name."}}}`)
			spec.ResourcePathPointers = []string{"/table"}
			if f.mode == "spec-resource" {
				spec.ResourcePathPointers = []string{"/stream"}
			}
			f.answer(&capturepb.Response{Spec: spec})
			if f.mode == "frame" {
				f.answer(&capturepb.Response{Spec: spec})
			}
		case r.Discover != nil:
			f.checkConfig(r.Discover.ConfigJson)
			schema := `{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},"text":{"type":"string"}}}`
			if f.mode == "discover" {
				schema = strings.Replace(schema, `"required":["id"],`, ``, 1)
			}
			f.answer(&capturepb.Response{Discovered: &capturepb.Response_Discovered{Bindings: []*capturepb.Response_Discovered_Binding{{
				RecommendedName: "items", ResourceConfigJson: []byte(`{"table":"items"}`), DocumentSchemaJson: []byte(schema), Key: []string{"/id"},
			}}}})
		case r.Validate != nil:
			path := "items"
			if f.mode == "validate" {
				path = "others"
			}
			f.answer(&capturepb.Response{Validated: &capturepb.Response_Validated{Bindings: []*capturepb.Response_Validated_Binding{{ResourcePath: []string{path}}}}})
		case r.Apply != nil:
			file := filepath.Join(f.folder, "applied")
			if _, err := os.Stat(file); err == nil && f.mode == "apply" {
				f.die("it is there already")
			}
			_ = os.WriteFile(file, nil, 0o600)
			f.answer(&capturepb.Response{Applied: &capturepb.Response_Applied{}})
		case r.Open != nil:
			f.capture(r.Open)
		default:
			if f.mode == "wrong-order" {
				continue
			}
			f.die("a request may not come now, or is empty")
		}
	}
}

func (f *fake) answer(m *capturepb.Response) {
	if err := errors.Join(f.out.Write(m), f.out.Flush()); err != nil {
		os.Exit(1)
	}
}

// pauseOfFake is how long a source that pauses is silent in the middle of what it has.
const pauseOfFake = 4 * time.Second

const (
	fakeDocuments = 40
	fakeEvery     = 5 // documents to a checkpoint
)

// capture gives documents and then waits to be told to stop.
func (f *fake) capture(open *capturepb.Request_Open) {
	lock := filepath.Join(f.folder, "lock")
	if _, err := os.Stat(lock); err == nil && f.mode == "killed" {
		f.die("another process holds the lock")
	}
	_ = os.WriteFile(lock, nil, 0o600)
	go f.stopAtSignal(lock)
	var state struct{ N int }
	_ = json.Unmarshal(open.StateJson, &state)
	switch {
	case f.mode == "resume" && state.N > 0:
		state.N += fakeEvery
	case f.mode == "resume-once" && state.N > 0:
		state.N -= fakeEvery
	}
	f.answer(&capturepb.Response{Opened: &capturepb.Response_Opened{ExplicitAcknowledgements: true}})
	go f.acknowledged()
	filler := ""
	if strings.HasPrefix(f.mode, "slow-reader") {
		filler = strings.Repeat("x", 128<<10)
	}
	var ballast []byte
	queue := make(chan []*capturepb.Response, 1)
	go func() {
		for batch := range queue {
			for _, m := range batch {
				f.answer(m)
			}
		}
	}()
	for n := state.N; n < fakeDocuments; n += fakeEvery {
		var batch []*capturepb.Response
		for i := n; i < n+fakeEvery; i++ {
			doc := fmt.Sprintf(`{"id":%d,"text":"%d%s"}`, i, i, filler)
			if f.mode == "documents" || f.mode == "documents behind a pause" && n >= fakeDocuments/2 {
				doc = `{"id":"one"}`
			}
			batch = append(batch, &capturepb.Response{Captured: &capturepb.Response_Captured{DocJson: []byte(doc)}})
		}
		next := fmt.Sprintf(`{"n":%d}`, n+fakeEvery)
		if f.mode == "state" {
			next = "[1]"
		}
		batch = append(batch, &capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{State: &flowpb.ConnectorState{UpdatedJson: []byte(next), MergePatch: true}}})
		if (f.mode == "pauses" || f.mode == "documents behind a pause") && n == fakeDocuments/2 && n > state.N {
			time.Sleep(pauseOfFake) //nolint:forbidigo // a source has its pace
		}
		if !strings.HasPrefix(f.mode, "slow-reader") {
			queue <- batch
			continue
		}
		select {
		case queue <- batch:
		case <-time.After(400 * time.Millisecond): // dropped, or kept with much else
			if f.mode == "slow-reader grows" {
				ballast = bytes.Repeat([]byte("x"), 64<<20)
				queue <- batch
			}
		}
	}
	runtime.KeepAlive(ballast)
	select {}
}

func (f *fake) stopAtSignal(lock string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	_ = os.Remove(lock)
	if f.mode == "stop" {
		os.Exit(3)
	}
	os.Exit(0)
}

func (f *fake) acknowledged() {
	for {
		body, err := f.in.Next()
		if err != nil {
			return
		}
		var r capturepb.Request
		if f.codec.Unmarshal(body, &r) != nil || r.Acknowledge == nil {
			f.die("only Acknowledge may follow")
		}
		n := r.Acknowledge.Checkpoints
		if n > fakeDocuments && f.mode != "too-many-acks" || n > 1 && f.mode == "acknowledgements" {
			f.die("%d checkpoints were acknowledged, and these were not sent", n)
		}
	}
}

// fakeStore is what a fake destination keeps of a task, in one file: what is written at once is there at once.
type fakeStore struct {
	Position int64
	Session  int
	Rows     map[string]json.RawMessage
	Added    []json.RawMessage // by delta updates
}

func (f *fake) file() string { return filepath.Join(f.folder, url.PathEscape(f.task)) }

func (f *fake) store() *fakeStore {
	s := &fakeStore{Rows: map[string]json.RawMessage{}}
	text, _ := os.ReadFile(f.file())
	_ = json.Unmarshal(text, s)
	return s
}

func (f *fake) put(s *fakeStore) {
	text, _ := json.Marshal(s)
	if err := errors.Join(os.WriteFile(f.file()+".new", text, 0o600), os.Rename(f.file()+".new", f.file())); err != nil {
		f.die("%v", err)
	}
	// What others see of it.
	var lines []string
	for _, doc := range append(slices.Collect(maps.Values(s.Rows)), s.Added...) {
		lines = append(lines, string(doc)+"\n")
	}
	if f.mode == "stored" && len(lines) > 0 {
		lines = lines[1:]
	}
	if err := os.WriteFile(filepath.Join(f.folder, f.table+".jsonl"), []byte(strings.Join(lines, "")), 0o600); err != nil {
		f.die("%v", err)
	}
}

func (f *fake) say(m *materializepb.Response) {
	if err := errors.Join(f.out.Write(m), f.out.Flush()); err != nil {
		os.Exit(1)
	}
}

func runFakeSink() {
	f := newFake()
	f.log("info", "starting")
	for {
		var r materializepb.Request
		if err := f.codec.Unmarshal(f.next(), &r); err != nil {
			f.die("%v", err)
		}
		switch {
		case r.Spec != nil:
			s := f.spec(`{"type":"object","x-load-optional":true,"required":["table"],"properties":{"table":{"type":"string","title":"Table","description":"Its name.","x-collection-name":true},"delta":{"type":"boolean","title":"Delta","description":"Append.","x-delta-updates":true}}}`)
			f.say(&materializepb.Response{Spec: &materializepb.Response_Spec{
				Protocol: s.Protocol, ConfigSchemaJson: s.ConfigSchemaJson, ResourceConfigSchemaJson: s.ResourceConfigSchemaJson, DocumentationUrl: s.DocumentationUrl,
			}})
		case r.Validate != nil:
			f.checkConfig(r.Validate.ConfigJson)
			f.validate(r.Validate)
		case r.Apply != nil:
			f.say(&materializepb.Response{Applied: &materializepb.Response_Applied{}})
		case r.Open != nil:
			f.task = r.Open.Materialization.Name
			f.table, f.delta = fakeResource(r.Open.Materialization.Bindings[0].ResourceConfigJson)
			f.materialize()
		default:
			f.die("a request may not come now, or is empty")
		}
	}
}

func (f *fake) validate(r *materializepb.Request_Validate) {
	answer := &materializepb.Response_Validated{}
	for _, b := range r.Bindings {
		table, delta := fakeResource(b.ResourceConfigJson)
		out := &materializepb.Response_Validated_Binding{ResourcePath: []string{table}, DeltaUpdates: delta && f.mode != "delta-updates"}
		if f.mode == "validate" {
			out.ResourcePath = []string{"one for all"}
		}
		for _, p := range b.Collection.Projections {
			c := &materializepb.Response_Validated_Constraint{Type: materializepb.Response_Validated_Constraint_FIELD_OPTIONAL, Reason: "it can be stored"}
			if f.mode == "constraints" && p.Field == "size" {
				continue
			}
			if p.Ptr == "" {
				c.Type = materializepb.Response_Validated_Constraint_LOCATION_REQUIRED
			}
			out.ProjectionConstraints = append(out.ProjectionConstraints, &materializepb.Response_Validated_ProjectionConstraint{Field: p.Field, Constraint: c})
		}
		answer.Bindings = append(answer.Bindings, out)
	}
	f.say(&materializepb.Response{Validated: answer})
}

func fakeResource(text []byte) (table string, delta bool) {
	var r struct {
		Table string `json:"table"`
		Delta bool   `json:"delta"`
	}
	_ = json.Unmarshal(text, &r)
	return r.Table, r.Delta
}

func (f *fake) materialize() {
	s := f.store()
	s.Session++
	session := s.Session
	f.put(s)
	f.say(&materializepb.Response{Opened: &materializepb.Response_Opened{RuntimeCheckpoint: checkpoint(s.Position)}})
	rows, loads := []fakeRow{}, 0
	for {
		var r materializepb.Request
		if err := f.codec.Unmarshal(f.next(), &r); err != nil {
			f.die("%v", err)
		}
		switch {
		case r.Acknowledge != nil:
			if f.mode == "exactly-once" && len(rows) > 0 { // too late
				s = f.store()
				f.add(s, rows)
				f.put(s)
			}
			s, rows, loads = f.store(), nil, 0
			f.wait()
			f.say(&materializepb.Response{Acknowledged: &materializepb.Response_Acknowledged{}})
		case r.Load != nil:
			if loads++; loads > 1000 && f.mode == "many-loads" {
				f.die("out of memory")
			}
			if doc, ok := s.Rows[f.key(r.Load.KeyJson, r.Load.KeyPacked)]; ok {
				if f.mode == "load" {
					doc = json.RawMessage(strings.Replace(string(doc), "transaction", "old", 1))
				}
				f.loaded(doc)
			}
		case r.Flush != nil:
			if f.mode == "transactions" {
				f.say(&materializepb.Response{StartedCommit: &materializepb.Response_StartedCommit{}})
			}
			f.wait()
			f.say(&materializepb.Response{Flushed: &materializepb.Response_Flushed{}})
		case r.Store != nil:
			rows = append(rows, fakeRow{f.key(r.Store.KeyJson, r.Store.KeyPacked), r.Store.DocJson, r.Store.Delete, r.Store.Exists})
		case r.StartCommit != nil:
			s = f.store()
			if s.Session != session && f.mode != "fence" {
				f.die("another session took over")
			}
			s.Position = r.StartCommit.RuntimeCheckpoint.GetSources()["conformance"].GetReadThrough()
			if f.mode != "exactly-once" {
				f.add(s, rows)
			}
			f.put(s)
			f.say(&materializepb.Response{StartedCommit: &materializepb.Response_StartedCommit{}})
		default:
			f.die("a request may not come now")
		}
	}
}

// fakeRow is a row of a transaction.
type fakeRow struct {
	key     string
	doc     json.RawMessage
	deleted bool
	exists  bool
}

func (f *fake) add(s *fakeStore, rows []fakeRow) {
	for i, r := range rows {
		_, there := s.Rows[r.key]
		switch {
		case f.mode == "beliefs" && r.exists != there: // neither an update nor an insert
		case f.delta && f.mode == "delta-updates reduced" && i > 0 && rows[i-1].key == r.key:
			s.Added[len(s.Added)-1] = r.doc
		case f.delta:
			s.Added = append(s.Added, r.doc)
		case r.deleted && f.mode != "deletes":
			delete(s.Rows, r.key)
		case !r.deleted:
			s.Rows[r.key] = r.doc
		}
	}
}

// wait makes a destination slow that shall be.
func (f *fake) wait() {
	if f.mode == "pauses" {
		time.Sleep(pauseOfFake / 10) //nolint:forbidigo // a destination has its pace
	}
}

// loaded answers a Load; a broken one drops what is not taken at once.
func (f *fake) loaded(doc json.RawMessage) {
	m := &materializepb.Response{Loaded: &materializepb.Response_Loaded{DocJson: doc}}
	if f.mode != "slow-reader" {
		f.say(m)
		return
	}
	if f.full {
		return
	}
	began := time.Now()
	f.say(m)
	f.full = time.Since(began) > 400*time.Millisecond
}

// key is the same for both forms of a key.
func (f *fake) key(text, packed []byte) string {
	if f.codec == frame.JSON {
		var values []json.RawMessage
		_ = json.Unmarshal(text, &values)
		for _, v := range values {
			packed, _ = tuple.AppendJSON(packed, v)
		}
	}
	return hex.EncodeToString(packed)
}
