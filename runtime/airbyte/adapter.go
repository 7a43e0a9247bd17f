package airbyte

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// docsURL is where people read on.
const docsURL = "https://github.com/sluicedata/sluice/blob/main/docs/guides/airbyte.md"

// Adapter answers the requests of one runtime. It is used by one goroutine.
type Adapter struct {
	Source Source
	Codec  frame.Codec
	// Brief spares the starts of the source whose answers only people read: the configuration's form, and the check of what ran before.
	// Programs take seconds to start.
	Brief bool

	form *form // once the source was asked
}

// resource is what people write for one stream.
type resource struct {
	Stream      string   `json:"stream" title:"Stream" desc:"Name of the stream." x-collection-name:"true"`
	Namespace   string   `json:"namespace,omitempty" title:"Namespace" desc:"Namespace of the stream, if the source has any." x-schema-name:"true"`
	SyncMode    string   `json:"syncMode,omitempty" title:"Sync Mode" desc:"Whether each sync reads what is new, or everything. Empty means what is new, if the source can tell by itself." enum:"incremental,full_refresh"`
	CursorField []string `json:"cursorField,omitempty" title:"Cursor Field" desc:"The field that tells what is new, as a path, if not the one that the source proposes."`
}

func (r *resource) descriptor() airbyte.Descriptor {
	return airbyte.Descriptor{Name: r.Stream, Namespace: r.Namespace}
}

func (r *resource) path() []string {
	if r.Namespace == "" {
		return []string{r.Stream}
	}
	return []string{r.Namespace, r.Stream}
}

// Serve answers the requests that come from in on out: any number of Spec, Discover, Validate and Apply, and at most one Open, whose
// session is one sync. It returns nil when in or the sync has ended, or ctx. Errors are for people.
func (a *Adapter) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	requests, responses := frame.NewReader(in, a.Codec, 0), frame.NewWriter(out, a.Codec)
	for {
		request, err := next(ctx, requests)
		if errors.Is(err, io.EOF) || err != nil && ctx.Err() != nil {
			return nil //nolint:nilerr // the end, or the echo of the stop
		}
		if err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		if request.Open != nil {
			err = a.open(ctx, request.Open, responses)
		} else {
			err = a.answer(ctx, request, responses)
		}
		if err != nil && ctx.Err() != nil && !errors.Is(err, errUnfinished) {
			return nil // the echo of the stop
		}
		if err != nil || request.Open != nil {
			return err
		}
	}
}

// next waits for the next request, or for ctx to end.
func next(ctx context.Context, requests *frame.Reader) (*capturepb.Request, error) {
	request := &capturepb.Request{}
	read := make(chan error, 1)
	go func() { read <- requests.Read(request) }() // ends with the input
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case err := <-read:
		if err != nil {
			return nil, err
		}
	}
	return request, errors.Join(request.Check(), request.InlineCollections())
}

func (a *Adapter) answer(ctx context.Context, request *capturepb.Request, out *frame.Writer) error {
	response := &capturepb.Response{}
	var err error
	switch {
	case request.Spec != nil:
		response.Spec, err = a.spec(ctx)
	case request.Discover != nil:
		response.Discovered, err = a.discover(ctx, request.Discover)
	case request.Validate != nil:
		response.Validated, err = a.validate(ctx, request.Validate)
	case request.Apply != nil:
		response.Applied = &capturepb.Response_Applied{}
	default:
		err = errors.New("the runtime sent a request that may not come here")
	}
	if err != nil {
		return err
	}
	return errors.Join(out.Write(response), out.Flush())
}

// asForm asks the source for its form, once.
func (a *Adapter) asForm(ctx context.Context) (*form, error) {
	if a.form != nil {
		return a.form, nil
	}
	var found *form
	err := a.Source.run(ctx, "spec", "spec", nil, func(kind string, line []byte) (err error) {
		if kind == airbyte.TypeSpec {
			found, err = parseForm(line)
		}
		return err
	}, nil)
	if err == nil && found == nil {
		err = a.unanswered("spec", airbyte.TypeSpec)
	}
	a.form = found
	return found, err
}

func (a *Adapter) unanswered(verb, kind string) error {
	return usererr.New(nil, "%s ended without a %s message when it was asked to %s: it may be no source of Airbyte.", a.Source.Endpoint.Label, kind, verb)
}

func (a *Adapter) spec(ctx context.Context) (*capturepb.Response_Spec, error) {
	shown := &form{Schema: json.RawMessage(`{"type":"object"}`)}
	if !a.Brief {
		var err error
		if shown, err = a.asForm(ctx); err != nil {
			return nil, err
		}
	}
	url := shown.DocumentationURL
	if url == "" {
		url = docsURL
	}
	return &capturepb.Response_Spec{
		Protocol: flowpb.ProtocolVersion, ConfigSchemaJson: shown.Schema, ResourceConfigSchemaJson: schema.Reflect[resource]("Stream"),
		DocumentationUrl: url, ResourcePathPointers: []string{"/namespace", "/stream"},
	}, nil
}

// prepare learns what is secret in a configuration, before the source can repeat it.
func (a *Adapter) prepare(ctx context.Context, config json.RawMessage) error {
	f, err := a.asForm(ctx)
	if err == nil {
		a.Source.secrets, err = findSecrets(config, f.Secrets)
	}
	return err
}

// catalog asks the source for its streams.
func (a *Adapter) catalog(ctx context.Context, task string, config json.RawMessage) (list []*offer, err error) {
	answered := false
	err = a.Source.run(ctx, task, "discover", []file{{"config", config}}, func(kind string, line []byte) (err error) {
		if kind == airbyte.TypeCatalog {
			answered = true
			list, err = parseCatalog(line)
		}
		return err
	}, nil)
	if err == nil && !answered {
		err = a.unanswered("discover", airbyte.TypeCatalog)
	}
	return list, err
}

func (a *Adapter) discover(ctx context.Context, request *capturepb.Request_Discover) (*capturepb.Response_Discovered, error) {
	if err := a.prepare(ctx, request.ConfigJson); err != nil {
		return nil, err
	}
	offers, err := a.catalog(ctx, request.Name, request.ConfigJson)
	if err != nil {
		return nil, err
	}
	response := &capturepb.Response_Discovered{}
	for _, o := range offers {
		b, err := o.binding()
		if err != nil {
			return nil, fmt.Errorf("describing stream %s: %w", o.Descriptor(), err)
		}
		response.Bindings = append(response.Bindings, b)
	}
	return response, nil
}

func (a *Adapter) validate(ctx context.Context, request *capturepb.Request_Validate) (*capturepb.Response_Validated, error) {
	response := &capturepb.Response_Validated{}
	var texts []json.RawMessage
	for _, b := range request.Bindings {
		texts = append(texts, b.ResourceConfigJson)
	}
	resources, err := parseResources(texts)
	if err != nil {
		return nil, err
	}
	for _, r := range resources {
		response.Bindings = append(response.Bindings, &capturepb.Response_Validated_Binding{ResourcePath: r.path()})
	}
	if a.Brief && request.LastCapture != nil {
		return response, nil // it has run: the sync will tell what is wrong now
	}
	return response, a.check(ctx, request.Name, request.ConfigJson)
}

func (a *Adapter) check(ctx context.Context, task string, config json.RawMessage) error {
	if err := a.prepare(ctx, config); err != nil {
		return err
	}
	var status *airbyte.ConnectionStatus
	err := a.Source.run(ctx, task, "check", []file{{"config", config}}, func(kind string, line []byte) error {
		if kind != airbyte.TypeStatus {
			return nil
		}
		var m airbyte.Message
		err := json.Unmarshal(line, &m)
		status = m.ConnectionStatus
		return err
	}, nil)
	switch {
	case status != nil && status.Status != "SUCCEEDED": // also where the exit code says it a second time
		return usererr.New(err, "%s cannot use its configuration: %s", a.Source.Endpoint.Label, a.Source.redact(status.Message))
	case err != nil:
		return err
	case status == nil:
		return a.unanswered("check", airbyte.TypeStatus)
	}
	return nil
}

// parseResources reads the resources of all bindings, and reports every problem.
func parseResources(texts []json.RawMessage) ([]resource, error) {
	var problems []error
	list := make([]resource, len(texts))
	seen := map[airbyte.Descriptor]bool{}
	for i, text := range texts {
		r, err := schema.Parse[resource](text, fmt.Sprintf("the resource of binding %d", i+1))
		if err == nil && seen[r.descriptor()] {
			err = usererr.New(nil, "Two bindings capture the stream %s. Remove one of them.", r.descriptor())
		}
		problems = append(problems, err)
		seen[r.descriptor()] = true
		list[i] = r
	}
	return list, usererr.Join("The capture cannot run as it is configured:", slices.DeleteFunc(problems, func(err error) bool { return err == nil }))
}

// open runs one sync.
func (a *Adapter) open(ctx context.Context, request *capturepb.Request_Open, out *frame.Writer) error {
	if r := request.Range; r != nil {
		if begin, end := r.Keys(); begin != 0 || end != 1<<32-1 {
			return usererr.New(nil, "A source of Airbyte cannot be divided: run the capture %s in one shard.", request.Capture.Name)
		}
	}
	s, err := newSync(request, out, a.identity())
	if err != nil {
		return err
	}
	known, err := s.known()
	if err != nil {
		return err
	}
	if known {
		a.Source.secrets, err = findSecrets(request.Capture.ConfigJson, s.stored.Shared.Source.Secrets)
	} else if err = a.prepare(ctx, request.Capture.ConfigJson); err == nil {
		err = a.learn(ctx, request, s)
	}
	if err != nil {
		return err
	}
	files, err := s.begin(request.Capture.ConfigJson, a.Source.Log)
	if err != nil {
		return err
	}
	opened := &capturepb.Response{Opened: &capturepb.Response_Opened{}}
	if err := errors.Join(out.Write(opened), s.forget(), out.Flush()); err != nil {
		return err
	}
	err = a.Source.run(ctx, request.Capture.Name, "read", files, s.take, out.Flush)
	switch {
	case err != nil && ctx.Err() != nil && s.open:
		return errUnfinished
	case err != nil:
		return errors.Join(err, out.Flush()) // what a state covers counts
	}
	return s.end()
}

// errUnfinished is a stop behind records that no state covers: the output does not end where the protocol allows it.
var errUnfinished = errors.New("stopped in the middle of a sync: the records since the source's last state are dropped, and read again")

// learn asks the source for its streams.
func (a *Adapter) learn(ctx context.Context, request *capturepb.Request_Open, s *sync) error {
	offers, err := a.catalog(ctx, request.Capture.Name, request.Capture.ConfigJson)
	if err != nil {
		return err
	}
	return s.choose(offers, a.form.Secrets)
}

// identity is what is run.
func (a *Adapter) identity() string {
	e := a.Source.Endpoint
	return e.Image + "\x00" + strings.Join(e.Command, "\x00")
}
