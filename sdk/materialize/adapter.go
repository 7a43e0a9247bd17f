package materialize

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// connector is a Sink without its types: what a session talks to.
type connector interface {
	spec() *materializepb.Response_Spec
	validate(ctx context.Context, log *logrus.Entry, req *materializepb.Request_Validate) (*materializepb.Response_Validated, error)
	apply(ctx context.Context, log *logrus.Entry, req *materializepb.Request_Apply) (*materializepb.Response_Applied, error)
	open(ctx context.Context, log *logrus.Entry, req *materializepb.Request_Open) (*Transactor, []shape, error)
	check(ctx context.Context, log *logrus.Entry, config json.RawMessage) error
}

// adapter translates between the protocol's messages and a sink's types. It holds no state.
type adapter[C, R Config] struct{ sink Sink[C, R] }

func (a adapter[C, R]) spec() *materializepb.Response_Spec {
	s := a.sink.Spec()
	resource := schema.Reflect[R](s.Title + " Resource")
	if s.LoadOptional {
		resource = append([]byte(`{"x-load-optional":true,`), resource[1:]...)
	}
	return &materializepb.Response_Spec{
		Protocol:                 flowpb.ProtocolVersion,
		ConfigSchemaJson:         schema.Reflect[C](s.Title),
		ResourceConfigSchemaJson: resource,
		DocumentationUrl:         s.DocsURL,
	}
}

func (a adapter[C, R]) check(ctx context.Context, log *logrus.Entry, raw json.RawMessage) error {
	cfg, err := parse[C](raw, endpoint)
	if err != nil {
		return err
	}
	if checker, ok := a.sink.(Checker[C, R]); ok {
		return checker.Check(ctx, Env{Range: FullRange(), Log: log}, cfg, nil)
	}
	return nil
}

func (a adapter[C, R]) validate(
	ctx context.Context, log *logrus.Entry, req *materializepb.Request_Validate,
) (*materializepb.Response_Validated, error) {
	const intro = "The materialization cannot run as it is configured:"
	cfg, err := parse[C](req.GetConfigJson(), endpoint)
	problems := []error{err}
	last := a.published(req.GetLastMaterialization())
	proposals := make([]*Proposal[R], len(req.GetBindings()))
	paths := map[string]string{}
	for i, b := range req.GetBindings() {
		p, err := a.propose(cfg, b, b.GetCollection())
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if other, taken := paths[key(p.Target.Path)]; taken {
			problems = append(problems, usererr.New(nil, "Collections %q and %q both go to %s. Give one of the bindings another resource.",
				other, p.Collection, strings.Join(p.Target.Path, ".")))
		}
		paths[key(p.Target.Path)] = p.Collection
		p.Last = find(last, p.Target.Path)
		proposals[i] = p
	}
	if err := usererr.Join(intro, problems); err != nil {
		return nil, err
	}
	env := Env{Task: req.GetName(), Range: FullRange(), Log: log}
	if checker, ok := a.sink.(Checker[C, R]); ok {
		if err := usererr.Join(intro, []error{checker.Check(ctx, env, cfg, proposals)}); err != nil {
			return nil, err
		}
	}
	log.WithField("bindings", len(proposals)).Debug("validated")
	return a.validated(proposals), nil
}

func (a adapter[C, R]) validated(proposals []*Proposal[R]) *materializepb.Response_Validated {
	res := &materializepb.Response_Validated{}
	for _, p := range proposals {
		b := &materializepb.Response_Validated_Binding{ResourcePath: p.Target.Path, DeltaUpdates: p.Target.Delta}
		wireConstraints(p.Fields, p.Constraints, b)
		res.Bindings = append(res.Bindings, b)
	}
	return res
}

func (a adapter[C, R]) propose(
	cfg C, b *materializepb.Request_Validate_Binding, c *flowpb.CollectionSpec,
) (*Proposal[R], error) {
	r, err := parse[R](b.GetResourceConfigJson(), resourceOf(c.GetName()))
	if err != nil {
		return nil, err
	}
	p := &Proposal[R]{
		Resource:   r,
		Target:     a.sink.Target(cfg, r),
		Collection: c.GetName(),
		Backfill:   b.GetBackfill(),
		Fields:     fieldsOf(c, b.GetGroupBy(), b.GetFieldConfigJsonMap()),
	}
	p.Constraints = constrain(p.Fields, func(f Field) Constraint { return a.sink.Constrain(cfg, p.Target, f) })
	return p, nil
}

func (a adapter[C, R]) apply(
	ctx context.Context, log *logrus.Entry, req *materializepb.Request_Apply,
) (*materializepb.Response_Applied, error) {
	spec := req.GetMaterialization()
	cfg, bindings, err := a.task(spec)
	if err != nil {
		return nil, err
	}
	env := Env{Task: spec.GetName(), Version: req.GetVersion(), Range: FullRange(), Log: log}
	last := a.published(req.GetLastMaterialization())
	changes := plan(bindings, last)
	drained, err := a.drain(ctx, env, cfg, changes, req.GetStateJson())
	if err != nil || drained != nil {
		return drained, err
	}
	summary, err := a.sink.Apply(ctx, env, cfg, changes)
	if err != nil {
		return nil, err
	}
	return &materializepb.Response_Applied{ActionDescription: summary}, nil
}

// drain applies what an earlier specification staged and did not apply, before any table changes its shape under it
// (hard case 58). The runtime persists the state that says so and calls Apply once more; nothing else may be done
// before that, or the staged work would be repeated against changed tables after a crash.
func (a adapter[C, R]) drain(
	ctx context.Context, env Env, cfg C, changes []Change[R], state json.RawMessage,
) (*materializepb.Response_Applied, error) {
	if !hasStaged(state) {
		return nil, nil
	}
	var last []*Binding[R]
	for _, ch := range changes {
		if ch.Last != nil {
			ch.Last.Leaving = ch.Kind == Replace || ch.Kind == Remove
			last = append(last, ch.Last)
		}
	}
	t, err := a.sink.Open(ctx, env, cfg, last)
	if err != nil {
		return nil, fmt.Errorf("opening the destination to finish staged work: %w", err)
	}
	defer func() { _ = t.phases.close() }()
	work, ok := t.phases.(pendingWork)
	if !ok {
		return nil, fmt.Errorf("finishing staged work: the state lists some, but this destination does not stage")
	}
	if err := work.restore(state, env.Range); err != nil {
		return nil, err
	}
	patch, err := t.phases.acknowledged(ctx)
	if err != nil {
		return nil, fmt.Errorf("finishing staged work: %w", err)
	}
	return &materializepb.Response_Applied{
		ActionDescription: "Finished what the last transaction had staged.",
		State:             patch,
	}, nil
}

func (a adapter[C, R]) open(
	ctx context.Context, log *logrus.Entry, req *materializepb.Request_Open,
) (*Transactor, []shape, error) {
	spec := req.GetMaterialization()
	cfg, bindings, err := a.task(spec)
	if err != nil {
		return nil, nil, err
	}
	env := Env{Task: spec.GetName(), Version: req.GetVersion(), Range: rangeOf(req.GetRange()), Log: log}
	shapes := make([]shape, len(bindings))
	for i, b := range bindings {
		err := checkSelection(b.Fields(), func(f Field) Constraint { return a.sink.Constrain(cfg, b.Target, f) })
		if err != nil {
			return nil, nil, fmt.Errorf("opening %s: %w", strings.Join(b.Target.Path, "."), err)
		}
		shapes[i] = shape{
			keys: len(b.Keys), values: len(b.Values), document: b.Document != nil,
			delta: b.Target.Delta, path: strings.Join(b.Target.Path, "."),
		}
	}
	t, err := a.sink.Open(ctx, env, cfg, bindings)
	if err != nil {
		return nil, nil, err
	}
	if work, ok := t.phases.(pendingWork); ok {
		if err := work.restore(req.GetStateJson(), env.Range); err != nil {
			_ = t.phases.close()
			return nil, nil, err
		}
	}
	return t, shapes, nil
}

// task converts a specification to be applied or opened.
func (a adapter[C, R]) task(spec *flowpb.MaterializationSpec) (cfg C, bindings []*Binding[R], err error) {
	if cfg, err = parse[C](spec.GetConfigJson(), endpoint); err != nil {
		return cfg, nil, err
	}
	for i, b := range spec.GetBindings() {
		c := b.GetCollection()
		r, err := parse[R](b.GetResourceConfigJson(), resourceOf(c.GetName()))
		if err != nil {
			return cfg, nil, err
		}
		converted, err := bindingOf(i, r, b, c)
		if err != nil {
			return cfg, nil, err
		}
		bindings = append(bindings, converted)
	}
	return cfg, bindings, nil
}

// published converts the bindings of an earlier specification, which is only compared with: its endpoint configuration
// may be sealed and its resources may be of an older version, so neither is checked.
func (a adapter[C, R]) published(spec *flowpb.MaterializationSpec) []*Binding[R] {
	var out []*Binding[R]
	for _, b := range spec.GetBindings() {
		var r R
		_ = json.Unmarshal(b.GetResourceConfigJson(), &r)
		c := b.GetCollection()
		if converted, err := bindingOf(-1, r, b, c); err == nil {
			out = append(out, converted)
		}
	}
	return out
}

func bindingOf[R any](i int, r R, b *flowpb.MaterializationSpec_Binding, c *flowpb.CollectionSpec) (*Binding[R], error) {
	sel := b.GetFieldSelection()
	out := &Binding[R]{
		Index:       i,
		Resource:    r,
		Target:      Target{Path: b.GetResourcePath(), Delta: b.GetDeltaUpdates()},
		Collection:  c.GetName(),
		Backfill:    b.GetBackfill(),
		StateKey:    b.GetStateKey(),
		Projections: fieldsOf(c, sel.GetKeys(), sel.GetFieldConfigJsonMap()),
	}
	pick := func(name string) (Field, error) {
		i := slices.IndexFunc(out.Projections, func(f Field) bool { return f.Name == name })
		if i < 0 {
			return Field{}, fmt.Errorf("field %q is selected for %s, but collection %q has no such field",
				name, strings.Join(out.Target.Path, "."), c.GetName())
		}
		return out.Projections[i], nil
	}
	for _, name := range sel.GetKeys() {
		f, err := pick(name)
		if err != nil {
			return nil, err
		}
		out.Keys = append(out.Keys, f)
	}
	for _, name := range sel.GetValues() {
		f, err := pick(name)
		if err != nil {
			return nil, err
		}
		out.Values = append(out.Values, f)
	}
	if name := sel.GetDocument(); name != "" {
		f, err := pick(name)
		if err != nil {
			return nil, err
		}
		out.Document = &f
	}
	return out, nil
}

// rangeOf reads a key range; without one, the session is responsible for everything.
func rangeOf(r *flowpb.RangeSpec) KeyRange {
	if r == nil || (r.GetKeyBegin() == 0 && r.GetKeyEnd() == 0) {
		return FullRange()
	}
	return KeyRange{Begin: r.GetKeyBegin(), End: r.GetKeyEnd()}
}

func key(path []string) string { return strings.Join(path, "\x00") }
