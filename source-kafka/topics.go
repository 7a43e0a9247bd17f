package main

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// topic is one that is captured.
type topic struct {
	*binding
	name       string
	id         string               // empty where brokers give no ids, and before the topic was found
	partitions map[int32]*partition // those that this process reads
	waiting    map[int32]bool       // partitions of ours that nobody led when we asked
	documents  *documents
	found      bool // the cluster has told of it
	gone       bool // was not there when we last asked
	bad        int  // records that could not be decoded
}

// partition is one that this process reads. Its position is that of the state.
type partition struct {
	*position
	topic   *topic
	number  int32
	records int64 // captured
}

// cluster is what the reader asks of brokers beside records.
type cluster struct {
	env    capture.Env
	cfg    config
	begin  start
	client *kgo.Client
	admin  *kadm.Client
}

// lookUp asks which topics and partitions there are, and has new partitions read: those of topics that were created again from
// their beginning. It returns topics whose state changed.
func (c *cluster) lookUp(ctx context.Context, topics map[string]*topic) (changed []*topic, err error) {
	details, err := c.admin.ListTopics(ctx, slices.Sorted(maps.Keys(topics))...)
	if err != nil {
		return nil, &askError{err}
	}
	wanted := map[string]map[int32]*position{}
	for name, t := range topics {
		detail := details[name]
		if there, err := c.there(t, detail); !there || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		if id := idOf(detail); t.id != id && t.id != "" {
			c.forget(t)
		}
		t.id = idOf(detail)
		c.beginning(t, int32(len(detail.Partitions))) //nolint:gosec // brokers number them with 32 bits
		for number, d := range detail.Partitions {
			if t.partitions[number] != nil || !c.env.Range.Contains(hashOf(name, number)) {
				continue
			}
			if d.Leader < 0 {
				c.await(t, number)
				continue
			}
			if wanted[name] == nil {
				wanted[name] = map[int32]*position{}
			}
			wanted[name][number] = t.State.position(number)
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	return c.place(ctx, topics, wanted)
}

// there tells whether a topic exists now.
func (c *cluster) there(t *topic, detail kadm.TopicDetail) (bool, error) {
	log := c.env.Log.WithField("topic", t.name)
	switch {
	case detail.Topic == "" || errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		if !t.gone {
			log.Warn("the topic is not there; it is captured from its beginning if it is created again")
		}
		t.gone = true
		return false, nil
	case kerr.IsRetriable(detail.Err):
		return false, nil
	case detail.Err != nil:
		return false, usererr.New(detail.Err, "Topic %s cannot be read: %s", t.name, advice(detail.Err))
	}
	if t.gone {
		log.Info("the topic is there again")
	}
	t.found, t.gone = true, false
	return true, nil
}

func idOf(detail kadm.TopicDetail) string {
	if detail.ID == (kadm.TopicID{}) {
		return ""
	}
	return detail.ID.String()
}

// beginning notes which partitions a topic has when its capture begins.
func (c *cluster) beginning(t *topic, partitions int32) {
	if t.State.Began == nil {
		t.State.Began = &beginning{Topic: t.id, Partitions: partitions}
	}
}

// forget ends the reading of a topic that was deleted.
func (c *cluster) forget(t *topic) {
	c.env.Log.WithField("topic", t.name).Warn("the topic was deleted and created again")
	c.client.PurgeTopicsFromConsuming(t.name)
	clear(t.partitions)
	clear(t.waiting)
}

func (c *cluster) await(t *topic, number int32) {
	if !t.waiting[number] {
		t.waiting[number] = true
		c.env.Log.WithFields(logrus.Fields{"topic": t.name, "partition": number}).Warn("no broker leads the partition; it is read as soon as one does")
	}
}

// place finds out where partitions go on, tells of what was lost, and has them fetched.
func (c *cluster) place(ctx context.Context, topics map[string]*topic, wanted map[string]map[int32]*position) ([]*topic, error) {
	found, err := listBounds(ctx, c.admin, c.begin, wanted)
	if err != nil {
		return nil, err
	}
	var losses []*loss
	var changed []*topic
	fetch := map[string]map[int32]kgo.Offset{}
	for name, partitions := range wanted {
		t := topics[name]
		for number, was := range partitions {
			b := found[name][number]
			if b == nil {
				c.await(t, number)
				continue
			}
			began := t.State.Began
			old := number < began.Partitions && (began.Topic == t.id || began.Topic == "" || t.id == "")
			p := placeOf(name, number, t.id, was, old, *b)
			if p.loss != nil {
				losses = append(losses, p.loss)
			}
			now := p.position
			t.State.setPosition(number, &now)
			t.partitions[number] = &partition{position: &now, topic: t, number: number}
			delete(t.waiting, number)
			if fetch[name] == nil {
				fetch[name] = map[int32]kgo.Offset{}
				changed = append(changed, t)
			}
			// Without the epoch: whether the log was cut has been found out, and the client would just go on elsewhere.
			fetch[name][number] = kgo.NewOffset().At(now.Next)
			c.env.Log.WithFields(logrus.Fields{"topic": name, "partition": number, "offset": now.Next, "end": b.end}).Debug("reading a partition")
		}
	}
	if err := report(c.env.Log, c.cfg.OnOffsetLoss, losses); err != nil {
		return nil, err
	}
	c.client.AddConsumePartitions(fetch)
	return changed, nil
}

// again finds out anew where a partition goes on whose offset the brokers refuse, or whose log was cut. What was fetched of it and
// is not captured yet is dropped.
func (c *cluster) again(ctx context.Context, topics map[string]*topic, p *partition) ([]*topic, error) {
	c.client.RemoveConsumePartitions(map[string][]int32{p.topic.name: {p.number}})
	delete(p.topic.partitions, p.number)
	return c.place(ctx, topics, map[string]map[int32]*position{p.topic.name: {p.number: p.position}})
}

// missing is the error of topics that are not there when a capture is opened, nil if one of them may still come back.
func missing(topics map[string]*topic) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		if t := topics[name]; t.gone && t.New {
			errs = append(errs, noTopic(name))
		}
	}
	return usererr.Join("These topics cannot be captured:", errs)
}
