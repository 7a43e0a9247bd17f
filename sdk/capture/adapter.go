package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// New makes a Connector of a typed Source.
func New[C, R Config, S any](src Source[C, R, S]) Connector {
	return &adapter[C, R, S]{src: src}
}

// adapter translates between the protocol's messages and a source's types. It holds no state.
type adapter[C, R Config, S any] struct {
	src Source[C, R, S]
}

func (a *adapter[C, R, S]) spec() (*capturepb.Response_Spec, error) {
	s := a.src.Spec()
	if len(s.ResourcePath) == 0 || s.DocsURL == "" {
		return nil, fmt.Errorf("describing connector %q: Spec needs a DocsURL and a ResourcePath", s.Title)
	}
	return &capturepb.Response_Spec{
		Protocol:                 flowpb.ProtocolVersion,
		ConfigSchemaJson:         schema.Reflect[C](s.Title),
		ResourceConfigSchemaJson: schema.Reflect[R](s.Title + " Resource"),
		DocumentationUrl:         s.DocsURL,
		ResourcePathPointers:     s.ResourcePath,
	}, nil
}

func (a *adapter[C, R, S]) airbyteFields() airbyte.Fields { return a.src.Spec().AirbyteFields }

func (a *adapter[C, R, S]) discover(
	ctx context.Context, log *logrus.Entry, req *capturepb.Request_Discover,
) (*capturepb.Response_Discovered, error) {
	cfg, err := parse[C](req.ConfigJson, endpoint)
	if err != nil {
		return nil, err
	}
	found, err := a.src.Discover(ctx, newEnv(req.Name, log), cfg)
	if err != nil {
		return nil, fmt.Errorf("discovering: %w", err)
	}
	res := &capturepb.Response_Discovered{}
	for i := range found {
		b, err := a.discovered(&found[i])
		if err != nil {
			return nil, fmt.Errorf("discovering %q: %w", found[i].Name, err)
		}
		res.Bindings = append(res.Bindings, b)
	}
	return res, nil
}

func (a *adapter[C, R, S]) discovered(c *Collection[R]) (*capturepb.Response_Discovered_Binding, error) {
	resource, err := json.Marshal(c.Resource)
	if err != nil {
		return nil, fmt.Errorf("writing its resource: %w", err)
	}
	path, err := resourcePath(resource, a.src.Spec().ResourcePath)
	if err != nil {
		return nil, err
	}
	return &capturepb.Response_Discovered_Binding{
		RecommendedName:    collectionName(c.Name),
		ResourceConfigJson: resource,
		DocumentSchemaJson: c.Schema,
		Key:                c.Key,
		Disable:            c.Disable,
		ResourcePath:       path,
		IsFallbackKey:      c.FallbackKey,
	}, nil
}

func (a *adapter[C, R, S]) validate(
	ctx context.Context, log *logrus.Entry, req *capturepb.Request_Validate,
) (*capturepb.Response_Validated, error) {
	var problems []error
	cfg, err := parse[C](req.ConfigJson, endpoint)
	problems = append(problems, err)

	raw := make([]json.RawMessage, len(req.Bindings))
	for i, b := range req.Bindings {
		raw[i] = b.ResourceConfigJson
	}
	resources, paths, errs := a.resources(raw)
	problems = append(problems, errs...)

	if checker, ok := a.src.(Checker[C, R]); ok && err == nil && len(errs) == 0 {
		problems = append(problems, checker.Check(ctx, newEnv(req.Name, log), cfg, resources))
	}
	if err := usererr.Join("The capture cannot run as it is configured:", problems); err != nil {
		return nil, err
	}
	res := &capturepb.Response_Validated{}
	for _, path := range paths {
		res.Bindings = append(res.Bindings, &capturepb.Response_Validated_Binding{ResourcePath: path})
	}
	return res, nil
}

func (a *adapter[C, R, S]) apply(
	ctx context.Context, log *logrus.Entry, req *capturepb.Request_Apply,
) (*capturepb.Response_Applied, error) {
	applier, ok := a.src.(Applier[C, R])
	if !ok {
		return &capturepb.Response_Applied{}, nil
	}
	cfg, resources, _, err := a.task(req.Capture)
	if err != nil {
		return nil, err
	}
	env := newEnv(req.Capture.Name, log)
	env.Version = req.Version
	summary, err := applier.Apply(ctx, env, cfg, resources)
	if err != nil {
		return nil, fmt.Errorf("applying: %w", err)
	}
	return &capturepb.Response_Applied{ActionDescription: summary}, nil
}

func (a *adapter[C, R, S]) open(
	ctx context.Context, log *logrus.Entry, req *capturepb.Request_Open, how opening,
) (*session, error) {
	cfg, resources, paths, err := a.task(req.Capture)
	if err != nil {
		return nil, err
	}
	state, err := parseDocument(req.StateJson)
	if err != nil {
		return nil, err
	}
	s := &session{state: state, outlet: &Outlet{}}
	bindings := make([]*Binding[R, S], len(resources))
	for i, b := range req.Capture.Bindings {
		bindings[i], err = newBinding[R, S](b, resources[i], paths[i], state.bindings[b.StateKey])
		if err != nil {
			return nil, err
		}
		bindings[i].h.index = uint32(i)
		bindings[i].Collection = destination(b.Collection)
		s.bindings = append(s.bindings, &bindings[i].h)
	}
	env := newEnv(req.Capture.Name, log)
	env.Version, env.Ephemeral, env.CatchUp, env.Whole = req.Version, how.ephemeral, how.catchUp, how.whole
	env.Range.Begin, env.Range.End = req.Range.Keys()
	env.Outlet = s.outlet
	env.Shared = state.shared
	env.Dormant = state.dormant(s.bindings)
	s.reader, err = a.src.Open(ctx, env, cfg, bindings)
	if err != nil {
		return nil, fmt.Errorf("opening: %w", err)
	}
	return s, nil
}

// task parses what Apply and Open are given.
func (a *adapter[C, R, S]) task(spec *flowpb.CaptureSpec) (cfg C, rs []R, paths [][]string, err error) {
	var problems []error
	cfg, err = parse[C](spec.ConfigJson, endpoint)
	problems = append(problems, err)
	raw := make([]json.RawMessage, len(spec.Bindings))
	for i, b := range spec.Bindings {
		raw[i] = b.ResourceConfigJson
	}
	rs, paths, errs := a.resources(raw)
	err = usererr.Join("The capture cannot run as it is configured:", append(problems, errs...))
	return cfg, rs, paths, err
}

// resources parses the bindings' configurations and computes their resource paths. It gathers every problem.
func (a *adapter[C, R, S]) resources(raw []json.RawMessage) (rs []R, paths [][]string, problems []error) {
	pointers := a.src.Spec().ResourcePath
	first := make(map[string]int, len(raw))
	for i, text := range raw {
		r, path, err := parseResource[R](text, bindingName(i), pointers)
		key := strings.Join(path, "\x00")
		if before, ok := first[key]; ok && err == nil {
			err = usererr.New(nil, "Bindings %d and %d both capture %s. Remove one of them.",
				before+1, i+1, strings.Join(path, "."))
		}
		if err != nil {
			problems = append(problems, err)
		} else {
			first[key] = i
		}
		rs, paths = append(rs, r), append(paths, path)
	}
	return rs, paths, problems
}

// parseResource parses one binding's configuration. The path is taken from what was parsed, so that a default counts.
func parseResource[R Config](text json.RawMessage, what string, pointers []string) (r R, path []string, err error) {
	if r, err = parse[R](text, what); err != nil {
		return r, nil, err
	}
	full, err := json.Marshal(r)
	if err != nil {
		return r, nil, fmt.Errorf("writing %s: %w", what, err)
	}
	path, err = resourcePath(full, pointers)
	return r, path, err
}

// endpoint is what error messages call the endpoint's configuration.
const endpoint = "the configuration"

func bindingName(i int) string { return fmt.Sprintf("the resource of binding %d", i+1) }

// parse reads a configuration strictly, with its defaults, and validates it.
func parse[T Config](raw json.RawMessage, what string) (T, error) {
	cfg, err := schema.Parse[T](raw, what)
	if err != nil {
		return cfg, err
	}
	err = cfg.Validate()
	switch {
	case err == nil:
		return cfg, nil
	case what == endpoint:
		return cfg, fmt.Errorf("validating %s: %w", what, err)
	default: // of several resources, people must know which
		return cfg, usererr.New(err, "In %s: %s", what, usererr.Message(err))
	}
}

func newEnv(task string, log *logrus.Entry) Env {
	return Env{Task: task, Log: log.WithField("task", task), Range: KeyRange{End: 1<<32 - 1}}
}
