package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// bounds are the offsets that a partition has now.
type bounds struct {
	start, end int64 // end is the offset of the next record that is written
	// begin is where the user wants the capture of the topic to begin.
	begin int64
	// epochEnd is where the leader epoch of the position ends; -1 if that is not known.
	epochEnd int64
}

// place is where a partition is read on, and what was lost before it.
type place struct {
	position
	loss *loss // nil if nothing was lost
}

// loss is a part of a partition that was not captured, and never will be, or that was taken back.
type loss struct {
	topic     string
	partition int32
	from, to  int64 // offsets that are gone; to is the one that the capture goes on with
	kind      lossKind
}

type lossKind uint8

const (
	expired   lossKind = iota // the topic keeps records for too short a time, or somebody deleted them
	truncated                 // the cluster lost records that it had acknowledged, and has others in their place
	recreated                 // the topic was deleted and created again
)

// placeOf decides where a partition goes on. topic is its id; was is the position in the state, nil if there is none; old tells
// that the partition was there when the capture of the topic began.
func placeOf(name string, partition int32, topic string, was *position, old bool, b bounds) place {
	at := func(next int64) place { return place{position: position{Topic: topic, Next: next, Epoch: -1}} }
	lost := func(next int64, kind lossKind) place {
		p := at(next)
		p.loss = &loss{topic: name, partition: partition, from: was.Next, to: next, kind: kind}
		return p
	}
	switch {
	case was == nil && old:
		return at(b.begin)
	case was == nil:
		return at(b.start)
	case was.Topic != "" && topic != "" && was.Topic != topic:
		return lost(b.start, recreated)
	case was.Next < b.start:
		return lost(b.start, expired)
	case b.epochEnd >= 0 && b.epochEnd < was.Next:
		return lost(max(b.start, b.epochEnd), truncated)
	case was.Next > b.end:
		return lost(b.end, truncated)
	}
	p := place{position: *was}
	p.Topic = topic
	return p
}

// fields describe the loss in the log.
func (l *loss) fields() logrus.Fields {
	f := logrus.Fields{"topic": l.topic, "partition": l.partition, "from": l.from, "to": l.to}
	if l.kind == expired {
		f["offsets"] = l.to - l.from
	}
	return f
}

// String says what was lost, in a sentence for people.
func (l *loss) String() string {
	switch l.kind {
	case expired:
		return fmt.Sprintf("Partition %d of topic %s no longer has the offsets %d to %d, up to %d records, which were not captured: it begins at %d now.",
			l.partition, l.topic, l.from, l.to-1, l.to-l.from, l.to)
	case truncated:
		return fmt.Sprintf("Partition %d of topic %s was cut at offset %d by the cluster, but had been captured up to %d: captured records are no longer there, and others may be in their place.",
			l.partition, l.topic, l.to, l.from)
	case recreated:
		return fmt.Sprintf("Topic %s was deleted and created again: of partition %d, what came after offset %d in the old topic is gone, and the new one begins at %d.",
			l.topic, l.partition, l.from, l.to)
	}
	return ""
}

// report carries the user's policy out: it writes losses to the log, or makes an error of them.
func report(log *logrus.Entry, policy string, losses []*loss) error {
	slices.SortFunc(losses, func(a, b *loss) int {
		if a.topic != b.topic {
			return slices.Compare([]string{a.topic}, []string{b.topic})
		}
		return int(a.partition - b.partition)
	})
	var errs []error
	for _, l := range losses {
		if policy == lossFail {
			errs = append(errs, usererr.New(nil, "%s Set onOffsetLoss to earliest to go on from there, or let the collection be captured anew.", l))
			continue
		}
		log.WithFields(l.fields()).Warn("records are gone that were not captured: " + l.String())
	}
	return usererr.Join("Records are gone that were not captured:", errs)
}

// offsets are bounds of the partitions of topics.
type offsets map[string]map[int32]*bounds

// askError is a question to the cluster that got no answer: asking again may help.
type askError struct{ cause error }

func (e *askError) Error() string { return "asking the cluster: " + e.cause.Error() }
func (e *askError) Unwrap() error { return e.cause }

// errNoLeader is why a partition has no bounds yet.
var errNoLeader = errors.New("nobody leads the partition")

// listBounds asks for the bounds of partitions, and where the epochs of positions end. Partitions that nobody leads now, or whose
// leader does not answer, are not among the answers.
func listBounds(ctx context.Context, admin *kadm.Client, begin start, topics map[string]map[int32]*position) (offsets, error) {
	var names []string
	var epochs kadm.OffsetForLeaderEpochRequest
	for name, partitions := range topics {
		names = append(names, name)
		for partition, was := range partitions {
			if was != nil && was.Epoch >= 0 {
				epochs.Add(name, partition, was.Epoch)
			}
		}
	}
	slices.Sort(names)
	first, err := admin.ListStartOffsets(ctx, names...)
	if err = allUnreachable(err); err != nil {
		return nil, &askError{err}
	}
	end, err := admin.ListEndOffsets(ctx, names...)
	if err = allUnreachable(err); err != nil {
		return nil, &askError{err}
	}
	from := first
	switch {
	case begin.latest:
		from = end
	case !begin.at.IsZero():
		if from, err = admin.ListOffsetsAfterMilli(ctx, begin.at.UnixMilli(), names...); allUnreachable(err) != nil {
			return nil, &askError{err}
		}
	}
	var ends kadm.OffsetsForLeaderEpochs
	silent := false
	if len(epochs) > 0 {
		// Brokers that do not know the request leave us with the bounds, which must do.
		ends, err = admin.OffsetForLeaderEpoch(ctx, epochs)
		silent = unanswered(err)
	}
	all := offsets{}
	for name, partitions := range topics {
		all[name] = map[int32]*bounds{}
		for partition := range partitions {
			e, answered := ends[name][partition]
			if _, asked := epochs[name][partition]; asked && !answered && silent {
				continue
			}
			b, err := boundsOf(name, partition, first, end, from)
			if err == nil {
				err = b.setEpochEnd(e)
			}
			if errors.Is(err, errNoLeader) {
				continue
			}
			if err != nil {
				return nil, err
			}
			all[name][partition] = b
		}
	}
	return all, nil
}

// unanswered tells errors after which asking again may bring an answer. Whether a log was cut must not be left open by a
// connection that broke.
func unanswered(err error) bool {
	_, isNet := errors.AsType[net.Error](err)
	return isNet || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled)
}

// setEpochEnd takes over where the epoch of the position ends. An answer that another broker, or the same one a moment later, would
// give is no answer: leaders change just when logs are cut. The zero value says nothing.
func (b *bounds) setEpochEnd(e kadm.OffsetForLeaderEpoch) error {
	switch {
	case e.Topic == "":
	case kerr.IsRetriable(e.Err):
		return errNoLeader
	case e.Err == nil && e.EndOffset >= 0:
		b.epochEnd = e.EndOffset
	}
	return nil
}

// allUnreachable is the error if nobody answered at all; what single brokers did not answer is missing among the offsets.
func allUnreachable(err error) error {
	if shards, ok := errors.AsType[*kadm.ShardErrors](err); ok && !shards.AllFailed {
		return nil
	}
	return err
}

func boundsOf(topic string, partition int32, lists ...kadm.ListedOffsets) (*bounds, error) {
	var found [3]int64
	for i, list := range lists {
		o, ok := list.Lookup(topic, partition)
		switch {
		case !ok, kerr.IsRetriable(o.Err), errors.Is(o.Err, kerr.UnknownTopicOrPartition):
			return nil, errNoLeader
		case o.Err != nil:
			return nil, usererr.New(o.Err, "The offsets of partition %d of topic %s cannot be read: %s", partition, topic, advice(o.Err))
		}
		found[i] = o.Offset
	}
	return &bounds{start: found[0], end: found[1], begin: found[2], epochEnd: -1}, nil
}

// advice says what an error of a broker means for people.
func advice(err error) string {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "the user may not. Allow it READ and DESCRIBE on the topic."
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "the login was refused. Check credentials."
	}
	if broker, ok := errors.AsType[*kerr.Error](err); ok {
		return fmt.Sprintf("the broker answers %s. %s", broker.Message, broker.Description)
	}
	return fmt.Sprintf("%v.", err)
}
