package shard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// Division is what is kept of how a task is divided: the record that shards other than the first wait for.
type Division struct {
	// Shards is how many there are; zero if the task has never run.
	Shards int `json:"shards"`
	// Pipeline is the fingerprint of the pipeline whose specification was applied last, and Versions those of the collections in it. The
	// former is empty from when a task is divided anew until that has been applied.
	Pipeline string            `json:"pipeline"`
	Versions map[string]uint32 `json:"versions,omitempty"`
}

// Parse reads a Division; nil is one of a task that is not divided, or has never run.
func Parse(record []byte) (d Division, err error) {
	if record == nil {
		return d, nil
	}
	if err := json.Unmarshal(record, &d); err != nil {
		return d, fmt.Errorf("reading how a task is divided: %w", err)
	}
	return d, nil
}

// Load reads a Division by the name of its record, with what reads a record of a log (nil if there is none).
func Load(get func(name string) ([]byte, error), name string) (Division, error) {
	record, err := get(name)
	if err != nil {
		return Division{}, err
	}
	return Parse(record)
}

// Await loads a Division again whenever the log has changed, until it will do or the context ends.
func Await(ctx context.Context, changed func() <-chan struct{}, load func() (Division, error), will func(Division) bool) (Division, error) {
	for {
		next := changed() // before it is looked
		d, err := load()
		if err != nil || will(d) {
			return d, err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return d, ctx.Err()
		}
	}
}

// Encode makes the record.
func (d Division) Encode() ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encoding how a task is divided: %w", err)
	}
	return text, nil
}

// Stale tells whether the task must be divided (also into as many shards as before), before anything else is done for a pipeline with a number of shards:
// whatever ran before has to be locked out first, and what it has kept be brought together.
func (d Division) Stale(shards int, pipeline string) bool {
	shards = max(shards, 1)
	return max(d.Shards, 1) != shards || shards > 1 && d.Pipeline != pipeline
}

// Union brings the states together that shards have made of the one that all of them began with: as if each had changed the same document. By the
// protocol a shard changes only what is its own in it.
func Union(base []byte, states [][]byte) ([]byte, error) {
	if len(base) == 0 {
		base = []byte("{}")
	}
	union := base
	for _, state := range states {
		patch, err := diff(base, state)
		if err != nil {
			return nil, err
		}
		if union, err = flowpb.ReduceState(union, &flowpb.ConnectorState{UpdatedJson: patch, MergePatch: true}); err != nil {
			return nil, err
		}
	}
	return union, nil
}

// diff is the merge patch (RFC 7396) that makes one document of another.
func diff(from, to []byte) ([]byte, error) {
	before, err := parse(from)
	if err != nil {
		return nil, err
	}
	after, err := parse(to)
	if err != nil {
		return nil, err
	}
	patch, err := json.Marshal(patchOf(before, after))
	if err != nil {
		return nil, fmt.Errorf("comparing states: %w", err)
	}
	return patch, nil
}

func parse(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // whatever their size
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("reading a state: %w", err)
	}
	return v, nil
}

func patchOf(before, after any) any {
	old, isOld := before.(map[string]any)
	now, isNow := after.(map[string]any)
	if !isOld || !isNow {
		return after
	}
	patch := map[string]any{}
	for name, value := range now {
		was, had := old[name]
		if !had || !reflect.DeepEqual(was, value) {
			patch[name] = patchOf(was, value)
		}
	}
	for name := range old {
		if _, has := now[name]; !has {
			patch[name] = nil
		}
	}
	return patch
}
