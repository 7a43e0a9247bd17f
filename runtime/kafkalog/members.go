package kafkalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	// moveTimeout is how long processes have to end what they are to give to others.
	moveTimeout = time.Minute
	// leaveTimeout is how long a process that ends tries to say so. Others find out by its silence.
	leaveTimeout = 5 * time.Second
	// beats are how often a process is heard of while it may be silent for the session's timeout once.
	beats = 4
)

// groupName is the consumer group of the processes that share the pipeline, and unitsTopic the topic whose partitions stand for its units: nothing is ever written to it,
// but it is what Kafka's own assignment of partitions divides among the members, so that what has not to move stays.
func (l *Log) groupName() string  { return l.o.Kafka.Prefix + ".sluice" }
func (l *Log) unitsTopic() string { return l.o.Kafka.Prefix + ".sluice-units" }

// member is this process in the group.
type member struct {
	log     *Log
	client  *kgo.Client
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Join makes this process one of those that share some units, whose names are for people, and returns when it has asked for its part of them. assigned is called with units that it is
// to run from now on, and must not wait; revoked with such as it must not run any more, and returns when it does not: others get them then.
// A process that is not heard of for the session's timeout loses its units to others without a word; taking over what they do is what keeps
// it from committing anything. leave gives back what is left; nothing is called after it. Errors are for people.
func (l *Log) Join(ctx context.Context, units []string, assigned, revoked func(units []int)) (leave func(), err error) {
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	if err := l.openUnits(asking, len(units)); err != nil {
		return nil, err
	}
	if err := l.nameUnits(asking, units); err != nil {
		return nil, err
	}
	numbers := func(call func([]int)) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			var list []int
			for _, p := range partitions[l.unitsTopic()] {
				list = append(list, int(p))
			}
			slices.Sort(list)
			call(list)
		}
	}
	silence := l.o.Kafka.SessionTimeout
	client, err := newClient(l.o.Kafka, l.o.Log,
		kgo.ClientID(l.instance.clientID()), kgo.ConsumerGroup(l.groupName()), kgo.ConsumeTopics(l.unitsTopic()), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(silence), kgo.HeartbeatInterval(silence/beats), kgo.RebalanceTimeout(moveTimeout), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(numbers(assigned)), kgo.OnPartitionsRevoked(numbers(revoked)), kgo.OnPartitionsLost(numbers(revoked)),
	)
	if err != nil {
		return nil, err
	}
	m := &member{log: l, client: client}
	ctx, m.stop = context.WithCancel(l.ctx)
	m.running.Go(func() { m.listen(ctx) })
	return m.leave, nil
}

// listen says what goes wrong in the group, until it is left.
func (m *member) listen(ctx context.Context) {
	for ctx.Err() == nil {
		for _, failed := range m.client.PollFetches(ctx).Errors() {
			if ctx.Err() == nil && !errors.Is(failed.Err, kgo.ErrClientClosed) {
				err := m.log.explain(failed.Err, "sharing the pipeline in the group "+m.log.groupName(), m.log.unitsTopic())
				m.log.o.Log.WithError(failed.Err).Warn(usererr.Message(err))
			}
		}
	}
}

func (m *member) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := m.client.LeaveGroupContext(ctx); err != nil {
		m.log.o.Log.WithError(err).Debug("leaving the group")
	}
	m.stop()
	m.running.Wait()
	m.client.Close()
}

// nameUnits notes what the units are called, for whoever asks where they run.
func (l *Log) nameUnits(ctx context.Context, units []string) error {
	text, err := json.Marshal(units)
	if err != nil {
		return fmt.Errorf("encoding the names of tasks: %w", err)
	}
	return l.owner(pipelineTask).update(ctx, func() (map[string][]byte, error) {
		if bytes.Equal(l.state.get(unitsKey), text) {
			return nil, nil
		}
		return map[string][]byte{unitsKey: text}, nil
	})
}

// openUnits makes the topic that stands for the units, or gives it more partitions. Those that it has too many stand for nothing.
func (l *Log) openUnits(ctx context.Context, units int) error {
	name := l.unitsTopic()
	found, err := l.describe(ctx, name)
	if err != nil {
		return err
	}
	t, exists := found[name]
	if exists && len(t.Partitions) < units {
		made, err := l.admin.UpdatePartitions(ctx, units, name)
		if err == nil {
			err = made.Error()
		}
		if err != nil && !l.grown(ctx, units) { // unless another process did it
			return l.explain(cause(ctx, err), "making room for more tasks and shards", name)
		}
	}
	_, err = l.create(ctx, name, units, map[string]string{"cleanup.policy": "delete"}) // waits until it can be used, too
	return err
}

func (l *Log) grown(ctx context.Context, units int) bool {
	found, err := l.describe(ctx, l.unitsTopic())
	return err == nil && len(found[l.unitsTopic()].Partitions) >= units
}

// clientID names a process for people who look at the group with Kafka's own tools.
func (i *instance) clientID() string { return fmt.Sprintf("%s-%s-%d", clientID, i.Host, i.PID) }

// Place is who runs a unit of a pipeline.
type Place struct {
	Unit string
	// Process is the one that runs it: its host and number; "" if none does.
	Process string
}

// Places lists who runs which unit, in their order, as the group knows it; none if no processes have shared the pipeline yet. Errors are for people.
func (l *Log) Places(ctx context.Context) ([]Place, error) {
	var units []string
	stored := l.state.get(unitsKey)
	if stored == nil {
		return nil, nil
	}
	if err := json.Unmarshal(stored, &units); err != nil {
		return nil, fmt.Errorf("reading the names of tasks: %w", err)
	}
	asking, cancel := context.WithTimeoutCause(ctx, l.o.Patience, errStalled)
	defer cancel()
	groups, err := l.admin.DescribeGroups(asking, l.groupName())
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return nil, l.explain(cause(asking, err), "asking who runs what", "")
	}
	places := make([]Place, len(units))
	for i, unit := range units {
		places[i].Unit = unit
	}
	for _, m := range groups[l.groupName()].Members {
		for _, p := range assignedTo(&m, l.unitsTopic()) {
			if int(p) < len(units) {
				places[p].Process = strings.TrimPrefix(m.ClientID, clientID+"-")
			}
		}
	}
	return places, nil
}

func assignedTo(m *kadm.DescribedGroupMember, topic string) []int32 {
	consumer, ok := m.Assigned.AsConsumer()
	if !ok {
		return nil
	}
	for _, t := range consumer.Topics {
		if t.Topic == topic {
			return t.Partitions
		}
	}
	return nil
}
