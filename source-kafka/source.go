package main

import (
	"context"
	"encoding/json"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// source captures topics.
type source struct{}

// Spec describes the connector.
func (source) Spec() capture.Spec {
	return capture.Spec{
		Title:        "Kafka",
		DocsURL:      "https://github.com/sluicedata/sluice/blob/main/docs/connectors/source-kafka.md",
		ResourcePath: []string{"/topic"},
	}
}

// Discover lists the topics.
func (source) Discover(ctx context.Context, env capture.Env, cfg config) ([]capture.Collection[resource], error) {
	client, err := newClient(cfg, env.Log)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx)
	if err != nil {
		return nil, usererr.New(err, "The cluster at %s does not say which topics it has.", cfg.BootstrapServers)
	}
	var found []capture.Collection[resource]
	for _, topic := range topics.Sorted() {
		found = append(found, capture.Collection[resource]{
			Name: topic.Topic, Resource: resource{Topic: topic.Topic},
			Key: []string{"/_meta/partition", "/_meta/offset"}, FallbackKey: true,
			Schema: json.RawMessage(`{"type":"object"}`),
		})
	}
	return found, nil
}

// Open says that records are not read yet.
func (source) Open(context.Context, capture.Env, config, []*capture.Binding[resource, struct{}]) (capture.Reader, error) {
	return nil, usererr.New(nil, "This version of the connector discovers topics; it does not read them yet.")
}
