// Package capture drives capture connectors: it starts one, keeps what it sends in the log, checkpoint by checkpoint,
// and acknowledges what is durable.
package capture

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/collection"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
)

// Task is one capture of a pipeline. Its fields are set before Run; Run is called by one goroutine.
type Task struct {
	Def         *pipeline.Capture
	Shard       shard.Shard
	Pipeline    string // its fingerprint; "" if nobody shares it, in a data folder
	Launcher    *host.Launcher
	Log         wal.Log
	Store       wal.Store
	Collections *collection.Registry
	Status      *status.Task
	Logger      *logrus.Entry
	Timeouts    Timeouts
	// Fence locks out what may still run of a shard of the task, named by its suffix; nil if nothing can.
	Fence func(ctx context.Context, suffix string) error
}

// Timeouts bound how long a connector may take.
type Timeouts struct {
	Answer time.Duration // to a single request, and to open; zero is 5 minutes
	Stop   time.Duration // to end when it was asked to; zero is 10 seconds
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Answer == 0 {
		t.Answer = host.DefaultAnswer
	}
	if t.Stop == 0 {
		t.Stop = 10 * time.Second
	}
	return t
}

// Run lives one life of the capture: validate, apply, open, and read until the connector ends. It returns nil when
// the connector ended by itself and all is well, and the context's error when it was told to stop. Other errors are for people.
func (t *Task) Run(ctx context.Context) error {
	t.Timeouts = t.Timeouts.withDefaults()
	t.Status.Set(status.Starting)
	spec, version, state, err := t.specify(ctx)
	if err != nil {
		return err
	}
	s, err := t.open(ctx, spec, version, state)
	if err != nil {
		return err
	}
	err = s.run(ctx)
	if closeErr := s.writer.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (t *Task) record(what string) string { return "capture/" + t.Def.Name + "/" + what }

// stateName is that of the shard's state, and baseName that of the one with which all shards began.
func (t *Task) stateName() string    { return t.record("state" + t.Shard.Suffix()) }
func (t *Task) baseName() string     { return t.record("base") }
func (t *Task) specName() string     { return t.record("spec") }
func (t *Task) divisionName() string { return t.record("division") }

// writerName is what the log calls who writes for this shard.
func (t *Task) writerName() string { return t.Def.Name + t.Shard.Suffix() }

// state is the connector's state as it is committed.
func (t *Task) state() ([]byte, error) { return t.stateOf(t.Shard) }

func (t *Task) stateOf(s shard.Shard) ([]byte, error) {
	state, err := t.Store.Get(t.record("state" + s.Suffix()))
	if err == nil && state == nil {
		state = []byte("{}")
	}
	return state, err
}

// host is the connector as it is run for this task.
func (t *Task) host() *host.Capture {
	return &host.Capture{Connector: host.Connector{
		Endpoint: t.Def.Endpoint, Task: t.Def.Name, Part: t.Shard.Suffix(), Launcher: t.Launcher, Log: t.Logger, Answer: t.Timeouts.Answer,
	}}
}

// validate asks the connector whether the bindings make sense, and builds the specification from its answer.
func (t *Task) validate(ctx context.Context) (*flowpb.CaptureSpec, error) {
	last, lastVersion, err := t.lastSpec()
	if err != nil {
		return nil, err
	}
	request := &capturepb.Request_Validate{LastCapture: last, LastVersion: lastVersion}
	for _, b := range t.Def.Bindings {
		version, err := t.Collections.Current(b.Target)
		if err != nil {
			return nil, err
		}
		request.Bindings = append(request.Bindings, &capturepb.Request_Validate_Binding{
			ResourceConfigJson: b.Resource, Collection: version.Spec, Backfill: b.Backfill,
		})
	}
	spec, err := t.host().Specify(ctx, request)
	if err != nil {
		return nil, err
	}
	spec.IntervalSeconds = max(uint32(t.Def.Interval/time.Second), 1)
	return spec, nil
}

// lastSpec is the specification that was applied last. Its configuration is not kept, since it may hold secrets: the
// present one stands in for it.
func (t *Task) lastSpec() (*flowpb.CaptureSpec, string, error) {
	stored, err := t.Store.Get(t.specName())
	if err != nil || stored == nil {
		return nil, "", err
	}
	last := &flowpb.CaptureSpec{}
	if err := proto.Unmarshal(stored, last); err != nil {
		return nil, "", fmt.Errorf("reading the stored specification of %s: %w", t.Def.Name, err)
	}
	version, err := specs.Version(last)
	if err != nil {
		return nil, "", err
	}
	if last.ConfigJson, err = specs.Sealed(&t.Def.Endpoint); err != nil {
		return nil, "", err
	}
	return last, version, nil
}
