package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// items is what is materialized: two keys, values that may be absent, and the kind of change.
const items = `{"type":"object","required":["id","region"],"properties":{
 "id":{"type":"integer"},"region":{"type":"string"},"note":{"type":["string","null"]},"size":{"type":["integer","null"]},
 "_meta":{"type":"object","properties":{"op":{"type":"string"}}}}}`

// sink checks a materialization. It has tables of its own: for the rules one after the other, and one for each fence.
type sink struct {
	s        *suite
	mark     string // of all tables of this run
	bindings []*materializepb.Request_Validate_Binding
	spec     *flowpb.MaterializationSpec
	task     *task // of the first table
}

func newSink(s *suite) *sink {
	var mark [4]byte
	_, _ = rand.Read(mark[:]) // it does not fail
	return &sink{s: s, mark: hex.EncodeToString(mark[:])}
}

func (k *sink) host(i int, name string) *host.Materialization {
	c := k.s.connector(i)
	c.Task += "-" + k.mark + name
	return &host.Materialization{Connector: c}
}

// table is the name of one of this run's tables.
func (k *sink) table(name string) string { return "sluice_test_" + k.mark + "_" + name }

// resource is the configuration of a binding for a table.
func (k *sink) resource(table string) (json.RawMessage, error) {
	if template := k.s.opts.Resource; template != "" {
		text := strings.ReplaceAll(template, "{table}", table)
		if !json.Valid([]byte(text)) {
			return nil, usererr.New(nil, "the resource is no JSON: %s", text)
		}
		return json.RawMessage(text), nil
	}
	out := map[string]any{}
	members, _ := object(k.s.spec.ResourceConfigSchemaJson)["properties"].(map[string]any)
	for name, p := range members {
		if property, _ := p.(map[string]any); property["x-collection-name"] == true {
			out[name] = table
		}
	}
	return json.Marshal(out)
}

func (k *sink) request(tables ...string) (*materializepb.Request_Validate, error) {
	request := &materializepb.Request_Validate{}
	for _, table := range tables {
		resource, err := k.resource(k.table(table))
		if err != nil {
			return nil, err
		}
		c, err := host.NewCollection(collections+"/items", []string{"/id", "/region"}, json.RawMessage(items))
		if err != nil {
			return nil, err
		}
		request.Bindings = append(request.Bindings, &materializepb.Request_Validate_Binding{
			ResourceConfigJson: resource, Collection: c, GroupBy: []string{"id", "region"}, FieldConfigJsonMap: map[string][]byte{},
		})
	}
	return request, nil
}

// validate has two bindings validated.
func (k *sink) validate(ctx context.Context) error {
	request, err := k.request("a", "b")
	if err != nil {
		return err
	}
	answer, err := k.host(0, "").Validate(ctx, request)
	if err != nil {
		return err
	}
	text, err := frame.JSON.AppendBody(nil, answer)
	if err != nil {
		return err
	}
	k.s.watch.look("the answer to Validate", text)
	paths := map[string]bool{}
	for i, b := range answer.Bindings {
		path := strings.Join(b.ResourcePath, "/")
		if len(b.ResourcePath) == 0 || slices.Contains(b.ResourcePath, "") || paths[path] {
			return fmt.Errorf("binding %d has the resource path %q, which is empty in part, or another's", i, b.ResourcePath)
		}
		paths[path] = true
	}
	k.bindings = request.Bindings
	k.spec, err = k.specify(ctx, "", request)
	return err
}

// specify makes the specification of a task with the first binding of a request.
func (k *sink) specify(ctx context.Context, task string, request *materializepb.Request_Validate) (*flowpb.MaterializationSpec, error) {
	request.Bindings = request.Bindings[:1]
	want := host.Fields{Depth: 1, Require: map[string]json.RawMessage{"note": []byte("{}"), "size": []byte("{}"), "_meta/op": []byte("{}")}}
	return k.host(0, task).Specify(ctx, request, func(_ int, answer *materializepb.Response_Validated_Binding, last *flowpb.FieldSelection) (*flowpb.FieldSelection, error) {
		return host.SelectFields(request.Bindings[0].Collection, &want, answer, last)
	})
}

func (k *sink) constraints(ctx context.Context) error {
	if k.bindings == nil {
		return skipped("needs validate")
	}
	answer, err := k.host(1, "").Validate(ctx, &materializepb.Request_Validate{Bindings: k.bindings})
	if err != nil {
		return err
	}
	for _, b := range answer.Bindings {
		by := b.FieldConstraints()
		for _, p := range k.bindings[0].Collection.Projections {
			all := by[p.Field]
			if len(all) == 0 {
				return fmt.Errorf("there is no constraint of the field %q", p.Field)
			}
			for _, c := range all {
				forbidden := c.GetType() >= materializepb.Response_Validated_Constraint_FIELD_FORBIDDEN
				switch {
				case c.GetType() == 0:
					return fmt.Errorf("the constraint of the field %q has no type", p.Field)
				case c.GetReason() == "":
					return fmt.Errorf("the constraint of the field %q has no reason", p.Field)
				case p.IsPrimaryKey && forbidden:
					return fmt.Errorf("the key field %q is refused: %s", p.Field, c.GetReason())
				}
			}
		}
	}
	return nil
}

func (k *sink) apply(ctx context.Context) error {
	if k.spec == nil {
		return skipped("needs validate")
	}
	state := []byte("{}")
	for i := range 2 {
		var err error
		request := &materializepb.Request_Apply{Materialization: k.spec, StateJson: state}
		if i > 0 {
			request.LastMaterialization, request.LastVersion = k.spec, "conformance"
		}
		if state, err = k.host(i, "").Apply(ctx, request, nil); err != nil {
			return err
		}
	}
	k.task = &task{k: k, table: k.table("a"), spec: k.spec, state: state}
	return nil
}

// transactions runs a few transactions and ends.
func (k *sink) transactions(ctx context.Context) error {
	if k.task == nil {
		return skipped("needs apply")
	}
	for i := range k.s.codecs {
		s, err := k.task.open(ctx, i)
		if err != nil {
			return err
		}
		for range 2 {
			if err := k.task.transaction(ctx, s, "", 3); err != nil {
				return s.fail(err)
			}
		}
		if err := s.finish(ctx); err != nil {
			return inCodec(s.Codec(), err)
		}
	}
	return nil
}

func (k *sink) load(ctx context.Context) error {
	switch {
	case k.task == nil || len(k.task.rows) == 0:
		return skipped("needs transactions")
	case k.task.delta():
		return skipped("its bindings take delta updates, of which nothing is loaded")
	}
	return k.task.check(ctx, 1)
}

func (k *sink) manyLoads(ctx context.Context) error {
	switch {
	case k.task == nil || len(k.task.rows) == 0:
		return skipped("needs transactions")
	case k.task.delta():
		return skipped("its bindings take delta updates, of which nothing is loaded")
	}
	const many = 4000
	s, err := k.task.open(ctx, 0)
	if err != nil {
		return err
	}
	for range 2 { // the second time all of them are there
		if err := k.task.transaction(ctx, s, "", many); err != nil {
			return s.fail(err)
		}
		k.task.next -= many
	}
	k.task.next += many
	return s.finish(ctx)
}

// exactlyOnce kills the connector at each step of a transaction, and looks each time at what it has.
func (k *sink) exactlyOnce(ctx context.Context) error {
	if k.task == nil || len(k.task.rows) == 0 {
		return skipped("needs transactions")
	}
	k.task.next += 10_000 // rows that nobody has stored
	for i, step := range []string{"Opened", "Acknowledge", "Acknowledged", "Load", "Flushed", "Store", "StartCommit", "StartedCommit", "committed"} {
		s, err := k.task.open(ctx, i)
		if err != nil {
			return fmt.Errorf("before a kill at %s: %w", step, err)
		}
		err = k.task.transaction(ctx, s, step, 3)
		if !errors.Is(err, errKilled) {
			return s.fail(fmt.Errorf("before a kill at %s: %w", step, errOr(err)))
		}
		_ = s.Close() // killed, as it should
	}
	if k.task.delta() {
		s, err := k.task.open(ctx, 0)
		if err != nil {
			return err
		}
		return s.finish(ctx)
	}
	return k.task.check(ctx, 0)
}

// fence opens a second session while one is open.
func (k *sink) fence(ctx context.Context) error {
	if k.task == nil {
		return skipped("needs apply")
	}
	older, err := k.task.open(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { _ = older.Close() }()
	if older.Opened().RuntimeCheckpoint == nil {
		return skipped("the runtime keeps the position, so only one of two sessions is ever committed")
	}
	if err := k.task.transaction(ctx, older, "", 1); err != nil {
		return older.fail(err)
	}
	if err := older.Acknowledge(); err != nil { // it has committed when this is answered
		return older.fail(err)
	}
	if _, err := older.Await(ctx, host.Acknowledged); err != nil {
		return older.fail(err)
	}
	newer, err := k.task.open(ctx, 1)
	if err != nil {
		return fmt.Errorf("a second session beside an open one: %w", err)
	}
	stale := *k.task
	stale.content = content{}
	err = stale.commitOnly(ctx, older)
	if err == nil {
		_ = newer.Close()
		return errors.New("the older session committed after the newer one was opened")
	}
	if err := k.task.transaction(ctx, newer, "", 1); err != nil {
		return newer.fail(err)
	}
	return newer.finish(ctx)
}

func errOr(err error) error {
	if err == nil {
		return errors.New("the step never came")
	}
	return err
}
