package materialize

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Forget removes what the log keeps of a materialization that was given up, so that it holds back nothing any more; or only of one
// of its bindings that the pipeline does not have any more, by its state key. Errors are for people.
func Forget(ctx context.Context, log readable, task, stateKey string) error {
	stored, err := log.Get(record(task, "spec"))
	if err != nil {
		return err
	}
	if stored == nil {
		return usererr.New(nil, "the log knows no materialization %s: sluice log stats shows those that it knows", task)
	}
	if stateKey != "" {
		return forgetBinding(ctx, log, task, stateKey)
	}
	names, err := log.Names(recordPrefix + task + "/")
	if err != nil {
		return err
	}
	changes := wal.Records{}
	for _, name := range names {
		if !strings.Contains(strings.TrimPrefix(name, recordPrefix+task+"/"), "/") { // else of another task
			changes[name] = nil
		}
	}
	return log.Put(ctx, changes)
}

func forgetBinding(ctx context.Context, log readable, task, stateKey string) error {
	spec, cp, err := stored(log, task)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(spec.InactiveBindings, func(b *flowpb.MaterializationSpec_Binding) bool { return b.StateKey == stateKey })
	if i < 0 {
		return usererr.New(nil, "the materialization %s has no binding %s that it could forget: only those that its last run did not have any more are kept for when they come back", task, stateKey)
	}
	spec.InactiveBindings = slices.Delete(spec.InactiveBindings, i, i+1)
	for name := range cp.Sources {
		if strings.HasSuffix(name, ";"+stateKey) {
			delete(cp.Sources, name)
		}
	}
	changes := wal.Records{}
	for what, message := range map[string]proto.Message{"spec": spec, "checkpoint": cp} {
		if changes[record(task, what)], err = proto.Marshal(message); err != nil {
			return fmt.Errorf("encoding the %s of %s: %w", what, task, err)
		}
	}
	return log.Put(ctx, changes)
}
