package materialize

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Forget removes what the log keeps of a materialization that was given up, so that it holds back nothing any more; or only of one
// of its bindings that the pipeline does not have any more, by its state key. What the pipeline's file still has, also where it is disabled, is not given
// up: it would begin anew, which nobody wants by mistake. Errors are for people.
func Forget(ctx context.Context, log readable, p *pipeline.Pipeline, task, stateKey string) error {
	stored, err := log.Get(record(task, "spec"))
	if err != nil {
		return err
	}
	if stored == nil {
		return usererr.New(nil, "the log knows no materialization %s: sluice log stats shows those that it knows", task)
	}
	kept := p.Find(task)
	if stateKey != "" {
		return forgetBinding(ctx, log, kept, task, stateKey)
	}
	if kept != nil {
		return usererr.New(nil, "the pipeline's file still has the materialization %s (%s), which would begin anew: it is forgotten only when it was given up. "+
			"Take it out of the file first; or leave it, and raise the backfill of its bindings, if it is to begin anew", task, kept.At)
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

func forgetBinding(ctx context.Context, log readable, kept *pipeline.Materialization, task, stateKey string) error {
	spec, _, err := stored(log, task)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(spec.InactiveBindings, func(b *flowpb.MaterializationSpec_Binding) bool { return b.StateKey == stateKey })
	if i < 0 {
		return usererr.New(nil, "the materialization %s has no binding %s that it could forget: only those that its last run did not have any more are kept for when they come back", task, stateKey)
	}
	if at := whereKept(kept, spec.InactiveBindings[i]); at != "" {
		return usererr.New(nil, "the pipeline's file still has the binding %s of the materialization %s (%s), which would begin anew: it is forgotten only when it was given up. "+
			"Take it out of the file first; or leave it, and raise its backfill, if it is to begin anew", stateKey, task, at)
	}
	spec.InactiveBindings = slices.Delete(spec.InactiveBindings, i, i+1)
	shards, err := shardsOf(log, task)
	if err != nil {
		return err
	}
	messages := map[string]proto.Message{"spec": spec}
	for _, s := range shards {
		cp := &flowpb.Checkpoint{}
		if err := read(log, task, "checkpoint"+s.Suffix(), cp); err != nil {
			return err
		}
		for name := range cp.Sources {
			if strings.HasSuffix(name, ";"+stateKey) {
				delete(cp.Sources, name)
			}
		}
		messages["checkpoint"+s.Suffix()] = cp
	}
	changes := wal.Records{}
	for what, message := range messages {
		if changes[record(task, what)], err = proto.Marshal(message); err != nil {
			return fmt.Errorf("encoding the %s of %s: %w", what, task, err)
		}
	}
	return log.Put(ctx, changes)
}

// whereKept is where a materialization of the pipeline's file has a binding of the last specification; empty if nowhere. Only the connector knows the
// path of a resource. So bindings are taken for the same that read one collection, and of whose path each part is in the resource of the file's,
// or in neither, because the connector has added it.
func whereKept(kept *pipeline.Materialization, b *flowpb.MaterializationSpec_Binding) string {
	if kept == nil {
		return ""
	}
	before := texts(b.ResourceConfigJson)
	for _, now := range slices.Concat(kept.Bindings, kept.Paused) {
		in := texts(now.Resource)
		same := now.Source == b.Collection.GetName()
		for _, part := range b.ResourcePath {
			same = same && (in[part] || !before[part])
		}
		if same {
			return now.At
		}
	}
	return ""
}

// texts are all texts in a JSON value.
func texts(text json.RawMessage) map[string]bool {
	found := map[string]bool{}
	var root any
	_ = json.Unmarshal(text, &root) // what is no JSON has none
	var walk func(node any)
	walk = func(node any) {
		switch v := node.(type) {
		case map[string]any:
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		case string:
			found[v] = true
		}
	}
	walk(root)
	return found
}
