package main

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-kafka/internal/codec"
)

// Check looks for everything that keeps topics from being captured: the login, the topics, the right to read them, and that the
// brokers that lead them can be reached from here by the addresses that they advertise.
func (source) Check(ctx context.Context, env capture.Env, cfg config, resources []resource) error {
	p := &pulse{}
	client, err := newClient(cfg, env.Log, kgo.WithHooks(p))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	var names []string
	for _, r := range resources {
		names = append(names, r.Topic)
	}
	slices.Sort(names)
	topics, err := admin.ListTopics(ctx, names...)
	if err != nil {
		return unreachable(&askError{err}, cfg, p)
	}
	var errs []error
	wanted := map[string]map[int32]*position{}
	for _, r := range resources {
		detail := topics[r.Topic]
		switch {
		case detail.Topic == "" || errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
			errs = append(errs, noTopic(r.Topic))
		case detail.Err != nil:
			errs = append(errs, usererr.New(detail.Err, "Topic %s cannot be read: %s", r.Topic, advice(detail.Err)))
		default:
			wanted[r.Topic] = map[int32]*position{}
			for number := range detail.Partitions {
				wanted[r.Topic][number] = nil
			}
		}
		errs = append(errs, r.needsRegistry(cfg)...)
	}
	if len(wanted) > 0 {
		found, err := listBounds(ctx, admin, start{}, wanted)
		errs = append(errs, unreachable(err, cfg, p))
		if err == nil {
			errs = append(errs, leaderless(wanted, found, cfg, p)...)
		}
	}
	return usererr.Join("The capture cannot run yet:", errs)
}

func noTopic(name string) error {
	return usererr.New(nil, "Topic %s does not exist, or the user may not see it. Create it, or allow the user DESCRIBE and READ on it.", name)
}

// leaderless says which topics have partitions whose leader does not answer.
func leaderless(wanted map[string]map[int32]*position, found offsets, cfg config, p *pulse) []error {
	var errs []error
	for name, partitions := range wanted {
		var silent []int32
		for number := range partitions {
			if found[name][number] == nil {
				silent = append(silent, number)
			}
		}
		if len(silent) > 0 {
			slices.Sort(silent)
			errs = append(errs, usererr.New(p.last(), "The leaders of partitions %v of topic %s do not answer. Are all brokers of the cluster at %s up, and can they be reached from here by the addresses that they advertise?",
				silent, name, cfg.BootstrapServers))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return slices.Compare([]string{a.Error()}, []string{b.Error()}) })
	return errs
}

// needsRegistry is what is wrong with formats that need a registry where there is none.
func (r resource) needsRegistry(cfg config) []error {
	if cfg.SchemaRegistry.Endpoint != "" {
		return nil
	}
	var errs []error
	for _, f := range []string{r.KeyFormat, r.ValueFormat} {
		switch codec.Format(f) {
		case codec.Avro, codec.Protobuf, codec.JSONSchema:
			errs = append(errs, usererr.New(nil, "The format %s of topic %s needs a schema registry. Enter its address in schemaRegistry.endpoint.", f, r.Topic))
		default:
		}
	}
	return errs
}
