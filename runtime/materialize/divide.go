package materialize

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// prepared is what a session is opened with.
type prepared struct {
	spec     *flowpb.MaterializationSpec
	version  string
	state    []byte
	versions []*collection.Version // by binding
}

// specify makes ready what a session is opened with. The first shard validates and applies the specification, after the task was divided if it has
// to be; the others wait until that is done.
func (t *Task) specify(ctx context.Context) (*prepared, error) {
	if !t.Shard.Leads() {
		return t.follow(ctx)
	}
	d, err := t.division()
	if err == nil && d.Stale(t.Shard.Count, t.Pipeline) {
		err = t.divide(ctx, d)
	}
	if err != nil {
		return nil, err
	}
	p := &prepared{}
	if p.versions, err = t.versions(); err != nil {
		return nil, err
	}
	if p.spec, err = t.validate(ctx, p.versions); err != nil {
		return nil, err
	}
	p.version, p.state, err = t.apply(ctx, p.spec, p.versions)
	return p, err
}

func (t *Task) division() (shard.Division, error) {
	return shard.Load(t.Store.Get, t.record("division"))
}

// follow waits until the first shard has applied the specification of this pipeline, with the schemas that this one needs.
func (t *Task) follow(ctx context.Context) (*prepared, error) {
	d, err := shard.Await(ctx, t.Log.Changed, t.division, func(d shard.Division) bool {
		return d.Shards == t.Shard.Count && d.Pipeline == t.Pipeline && t.suffices(d)
	})
	if err != nil {
		return nil, err
	}
	return t.as(d)
}

func (t *Task) suffices(d shard.Division) bool {
	for source, version := range t.needs {
		if d.Versions[source] < version {
			return false
		}
	}
	return true
}

// as is the specification that the first shard has applied.
func (t *Task) as(d shard.Division) (*prepared, error) {
	spec, version, err := t.lastSpec()
	if err != nil {
		return nil, err
	}
	if spec == nil || len(spec.Bindings) != len(t.Def.Bindings) {
		return nil, fmt.Errorf("following the first shard of %s: what it has applied has other bindings", t.Def.Name)
	}
	spec.ConfigJson = t.Def.Endpoint.Config
	p := &prepared{spec: spec, version: version}
	if p.versions, err = t.versions(); err != nil {
		return nil, err
	}
	for i, v := range p.versions {
		p.versions[i] = &collection.Version{Number: d.Versions[t.Def.Bindings[i].Source], Spec: spec.Bindings[i].Collection, Plan: v.Plan}
	}
	p.state, err = t.state()
	return p, err
}

// divide locks out whatever ran of the task before, and gives each of its shards what the former ones have come to, all together: the state, of which each
// changes only what is its own by the protocol, and the positions.
func (t *Task) divide(ctx context.Context, d shard.Division) error {
	old, all := shard.Of(d.Shards), &flowpb.Checkpoint{}
	states := make([][]byte, len(old))
	changes := wal.Records{}
	for i, s := range old {
		if s.Suffix() != t.Shard.Suffix() {
			if err := t.Fence(ctx, s.Suffix()); err != nil {
				return err
			}
		}
		var err error
		if states[i], err = t.stateOf(s); err != nil {
			return err
		}
		cp, err := t.storedCheckpoint(s)
		if err != nil {
			return err
		}
		join(all, cp)
		changes[t.record("state"+s.Suffix())], changes[t.record("checkpoint"+s.Suffix())] = nil, nil
	}
	if len(old) > 1 {
		if err := t.level(ctx, old, states, all); err != nil {
			return err
		}
	}
	base, err := t.Store.Get(t.record("base"))
	if err != nil {
		return err
	}
	union, err := shard.Union(base, states)
	if err != nil {
		return err
	}
	positions, err := proto.Marshal(all)
	if err != nil {
		return fmt.Errorf("encoding the checkpoint of %s: %w", t.Def.Name, err)
	}
	for _, s := range shard.Of(t.Shard.Count) {
		changes[t.record("state"+s.Suffix())], changes[t.record("checkpoint"+s.Suffix())] = union, positions
	}
	changes[t.record("base")] = union
	if changes[t.record("division")], err = (shard.Division{Shards: max(t.Shard.Count, 1)}).Encode(); err != nil {
		return err
	}
	t.Logger.WithFields(map[string]any{"before": len(old), "shards": max(t.Shard.Count, 1)}).Info("divided the materialization among its shards")
	return t.Store.Put(ctx, changes)
}

// level has a destination that keeps positions itself commit those of all former shards together, for each of them. That locks older
// instances out there, and makes no difference between the shards any more: whatever they are divided into, or joined to, goes on
// from the same positions. all and the states get what the destination has.
func (t *Task) level(ctx context.Context, old []shard.Shard, states [][]byte, all *flowpb.Checkpoint) (err error) {
	last, version, err := t.lastSpec()
	if err != nil || last == nil {
		return err
	}
	last.ConfigJson = t.Def.Endpoint.Config
	var sessions []*host.MaterializeSession
	defer func() {
		if err == nil {
			return
		}
		for _, s := range sessions {
			_ = s.Close() // the error is known
		}
	}()
	kept := false
	for i, s := range old {
		h := t.host()
		h.Part = s.Suffix()
		session, err := h.Open(ctx, &materializepb.Request_Open{Materialization: last, Version: version, StateJson: states[i], Range: s.Range()}, t.unasked)
		if err != nil {
			return err
		}
		sessions = append(sessions, session)
		if cp := session.Opened().RuntimeCheckpoint; cp != nil {
			if !kept { // ours may be older, or of another destination: it is the truth
				kept, all.Sources = true, nil
			}
			join(all, cp)
		}
	}
	for i, session := range sessions {
		if states[i], err = t.commitLevel(ctx, session, states[i], all, kept); err != nil {
			return session.Explain(err)
		}
	}
	return nil
}

// commitLevel takes a session through one empty transaction, if the destination keeps positions, and ends it.
func (t *Task) commitLevel(ctx context.Context, session *host.MaterializeSession, state []byte, all *flowpb.Checkpoint, kept bool) ([]byte, error) {
	reduce := func(update *flowpb.ConnectorState, err error) error {
		if err == nil && len(update.GetUpdatedJson()) > 0 {
			state, err = flowpb.ReduceState(state, update)
		}
		return err
	}
	if err := session.Acknowledge(); err != nil {
		return nil, err
	}
	if kept {
		if err := reduce(session.Await(ctx, host.Acknowledged)); err != nil {
			return nil, err
		}
		if err := reduce(session.Flush(ctx)); err != nil {
			return nil, err
		}
		if err := reduce(session.StartCommit(ctx, all)); err != nil {
			return nil, err
		}
		if err := session.Acknowledge(); err != nil {
			return nil, err
		}
	}
	// Closed before Acknowledged is here, a connector does not hold that back to let documents gather.
	if err := session.CloseInput(); err != nil {
		return nil, err
	}
	if err := reduce(session.Await(ctx, host.Acknowledged)); err != nil {
		return nil, err
	}
	return state, session.Wait(ctx, t.Timeouts.Stop)
}

var errUnasked = errors.New("the connector loaded a document that nobody asked for")

func (t *Task) unasked(uint32, []byte) error {
	return usererr.New(errUnasked, "the connector of %s sent Loaded although no key was asked for", t.Def.Name)
}
