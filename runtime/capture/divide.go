package capture

import (
	"context"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/wal"
)

// specify gives the specification to open with, its version, and the state. The first shard validates and applies it, after the task was divided if
// it has to be; the others wait until that is done.
func (t *Task) specify(ctx context.Context) (spec *flowpb.CaptureSpec, version string, state []byte, err error) {
	if !t.Shard.Leads() {
		return t.follow(ctx)
	}
	d, err := t.division()
	if err == nil && d.Stale(t.Shard.Count, t.Pipeline) {
		err = t.divide(ctx, d)
	}
	if err == nil {
		spec, err = t.validate(ctx)
	}
	if err == nil {
		version, state, err = t.apply(ctx, spec)
	}
	return spec, version, state, err
}

func (t *Task) division() (shard.Division, error) { return shard.Load(t.Store.Get, t.divisionName()) }

// follow waits until the first shard has applied the specification of this pipeline.
func (t *Task) follow(ctx context.Context) (*flowpb.CaptureSpec, string, []byte, error) {
	_, err := shard.Await(ctx, t.Log.Changed, t.division, func(d shard.Division) bool { return d.Shards == t.Shard.Count && d.Pipeline == t.Pipeline })
	if err != nil {
		return nil, "", nil, err
	}
	spec, version, err := t.lastSpec()
	if err != nil {
		return nil, "", nil, err
	}
	spec.ConfigJson = t.Def.Endpoint.Config
	state, err := t.state()
	return spec, version, state, err
}

// divide locks out whatever ran of the task before, and gives each of its shards what the former ones have come to, all together. They change
// only what is their own in the state, by the protocol, so that each may begin with the whole of it.
func (t *Task) divide(ctx context.Context, d shard.Division) error {
	base, err := t.Store.Get(t.baseName())
	if err != nil {
		return err
	}
	changes := wal.Records{}
	var states [][]byte
	for _, s := range shard.Of(d.Shards) {
		if s.Suffix() != t.Shard.Suffix() {
			if err := t.Fence(ctx, s.Suffix()); err != nil {
				return err
			}
		}
		state, err := t.stateOf(s)
		if err != nil {
			return err
		}
		states = append(states, state)
		changes[t.record("state"+s.Suffix())] = nil
	}
	union, err := shard.Union(base, states)
	if err != nil {
		return err
	}
	for _, s := range shard.Of(t.Shard.Count) {
		changes[t.record("state"+s.Suffix())] = union
	}
	changes[t.baseName()] = union
	if changes[t.divisionName()], err = (shard.Division{Shards: max(t.Shard.Count, 1)}).Encode(); err != nil {
		return err
	}
	t.Logger.WithFields(map[string]any{"before": max(d.Shards, 1), "shards": max(t.Shard.Count, 1)}).Info("divided the capture among its shards")
	return t.Store.Put(ctx, changes)
}
