package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/source-kafka/internal/codec"
)

// fallbackKey identifies a record where nothing in it does.
func fallbackKey() []string {
	return []string{"/" + metaMember + "/partition", "/" + metaMember + "/offset"}
}

// Discover lists the topics, with the key that their records have.
func (source) Discover(ctx context.Context, env capture.Env, cfg config) ([]capture.Collection[resource], error) {
	p := &pulse{}
	client, err := newClient(cfg, env.Log, kgo.WithHooks(p))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := selectedTopics(ctx, admin, cfg)
	if err != nil {
		return nil, unreachable(err, cfg, p)
	}
	schemas, closeRegistry, err := cfg.catalog(ctx)
	if err != nil {
		return nil, err
	}
	defer closeRegistry()
	compacted := compaction(ctx, env.Log, admin, topics)
	size := sizes(ctx, admin, topics)
	newest := samples(ctx, env.Log, cfg, admin, topics)
	var found []capture.Collection[resource]
	for _, detail := range topics {
		name := detail.Topic
		r := resource{Topic: name}
		key, value, problems, err := schemas.Discover(ctx, codec.DiscoverOptions{Topic: name, Samples: newest[name]})
		if err != nil {
			return nil, fmt.Errorf("describing topic %q: %w", name, err)
		}
		for _, problem := range problems {
			env.Log.WithError(problem).Warn("a schema of the topic cannot be used")
		}
		c, err := collectionOf(r, key, value, compacted[name])
		if err != nil {
			return nil, fmt.Errorf("describing topic %q: %w", name, err)
		}
		found = append(found, c)
		fields := logrus.Fields{"topic": name, "partitions": len(detail.Partitions), "compacted": compacted[name], "key": strings.Join(c.Key, " ")}
		if n, ok := size[name]; ok {
			fields["bytes"] = n
		}
		env.Log.WithFields(fields).Info("found a topic")
	}
	return found, nil
}

// selectedTopics are the topics that the user wants to see, sorted by name.
func selectedTopics(ctx context.Context, admin *kadm.Client, cfg config) ([]kadm.TopicDetail, error) {
	all, err := admin.ListTopicsWithInternal(ctx)
	if err != nil {
		return nil, &askError{err}
	}
	var topics []kadm.TopicDetail
	for _, detail := range all.Sorted() {
		if cfg.Topics.selects(detail.Topic, detail.IsInternal) {
			topics = append(topics, detail)
		}
	}
	return topics, nil
}

// selects tells whether a topic is one of those that the user wants. The cluster's own must be named.
func (s selection) selects(topic string, internal bool) bool {
	matches := func(globs []string) bool {
		return slices.ContainsFunc(globs, func(glob string) bool {
			ok, err := path.Match(glob, topic)
			return err == nil && ok
		})
	}
	if slices.Contains(s.Include, topic) {
		return !matches(s.Exclude)
	}
	return !internal && !ownTopic(topic) && (len(s.Include) == 0 || matches(s.Include)) && !matches(s.Exclude)
}

// ownTopic tells the topics by which Kafka and its usual companions keep their own state.
func ownTopic(topic string) bool {
	return strings.HasPrefix(topic, "__") || strings.HasPrefix(topic, "_confluent") || topic == "_schemas"
}

// compaction tells which topics keep the last record of each key. Where the user may not ask, none.
func compaction(ctx context.Context, log *logrus.Entry, admin *kadm.Client, topics []kadm.TopicDetail) map[string]bool {
	found := map[string]bool{}
	if len(topics) == 0 {
		return found
	}
	var names []string
	for _, detail := range topics {
		names = append(names, detail.Topic)
	}
	configs, err := admin.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		log.WithError(err).Warn("the settings of topics cannot be read, so none is taken for compacted")
	}
	for _, c := range configs {
		for _, setting := range c.Configs {
			if setting.Key == "cleanup.policy" && setting.Value != nil {
				found[c.Name] = slices.Contains(strings.Split(*setting.Value, ","), "compact")
			}
		}
	}
	return found
}

// sizes are how many bytes topics have on their brokers' disks, replicas left out; of those where that can be asked.
func sizes(ctx context.Context, admin *kadm.Client, topics []kadm.TopicDetail) map[string]int64 {
	set := kadm.TopicsSet{}
	leaders := map[string]map[int32]int32{}
	for _, detail := range topics {
		leaders[detail.Topic] = map[int32]int32{}
		for number, p := range detail.Partitions {
			set.Add(detail.Topic, number)
			leaders[detail.Topic][number] = p.Leader
		}
	}
	found := map[string]int64{}
	dirs, err := admin.DescribeAllLogDirs(ctx, set)
	if err != nil && allUnreachable(err) != nil {
		return found // a size is only told, never needed
	}
	dirs.Each(func(dir kadm.DescribedLogDir) {
		dir.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if leaders[p.Topic][p.Partition] == p.Broker && !p.IsFuture {
				found[p.Topic] += p.Size
			}
		})
	})
	return found
}

// collectionOf proposes a collection: keyed by the record's key if every record has one that identifies it.
func collectionOf(r resource, key, value *codec.Schema, compacted bool) (c capture.Collection[resource], err error) {
	c = capture.Collection[resource]{Name: r.Topic, Resource: r, Key: fallbackKey(), FallbackKey: true}
	// Of a topic that is not compacted, a key that is a mere text or number often only says which records belong together, and
	// may be missing; one that is a record names what its members identify.
	if key != nil && len(key.Keys) > 0 && (compacted || key.Object) {
		c.Key, c.FallbackKey = nil, false
		for _, ptr := range key.Keys {
			c.Key = append(c.Key, "/"+keyMember+ptr)
		}
	}
	c.Schema, err = documentSchema(key, value, !c.FallbackKey)
	return c, err
}

// catalog are the schemas that the registry has, if there is one.
func (c config) catalog(ctx context.Context) (*codec.Catalog, func(), error) {
	reg, err := c.SchemaRegistry.client()
	if err != nil {
		return nil, nil, err
	}
	release := func() {}
	if reg != nil {
		release = reg.Close
	}
	found, err := codec.NewCatalog(ctx, reg)
	if err != nil {
		release()
		return nil, nil, fmt.Errorf("listing the schemas of the registry: %w", err)
	}
	return found, release, nil
}
