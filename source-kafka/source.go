package main

import (
	"context"

	"github.com/sluicedata/sluice/sdk/capture"
)

// source captures topics.
type source struct{}

// binding is a topic that is captured.
type binding = capture.Binding[resource, state]

// Spec describes the connector.
func (source) Spec() capture.Spec {
	return capture.Spec{
		Title:        "Kafka",
		DocsURL:      "https://github.com/sluicedata/sluice/blob/main/docs/connectors/source-kafka.md",
		ResourcePath: []string{"/topic"},
	}
}

// Open finds out where every partition goes on, and starts to fetch there.
func (source) Open(ctx context.Context, env capture.Env, cfg config, bindings []*binding) (capture.Reader, error) {
	return openReader(ctx, env, cfg, bindings)
}
