package host

import (
	"context"
	"encoding/json"
	"path"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// NewCollection describes a collection as requests want it: its key (JSON pointers), the JSON schema of its documents, and the fields that
// come of it. Everything that connectors made for Flow insist on is in it.
func NewCollection(name string, key []string, documents json.RawMessage) (*flowpb.CollectionSpec, error) {
	shape, err := schema.Parse(documents)
	if err != nil {
		return nil, usererr.New(err, "the schema of %s cannot be read: %v", name, err)
	}
	return specs.Collection(&pipeline.Collection{Name: name, Key: key, Schema: documents}, shape)
}

// Bindings makes bindings of what was discovered, each into a collection of its own that is named below the prefix. What the connector
// proposes to leave out is left out, and what has no key.
func Bindings(prefix string, found *capturepb.Response_Discovered) ([]*capturepb.Request_Validate_Binding, error) {
	var bindings []*capturepb.Request_Validate_Binding
	for _, b := range found.GetBindings() {
		if b.Disable || len(b.Key) == 0 {
			continue
		}
		c, err := NewCollection(path.Join(prefix, b.RecommendedName), b.Key, b.DocumentSchemaJson)
		if err != nil {
			return nil, err
		}
		bindings = append(bindings, &capturepb.Request_Validate_Binding{ResourceConfigJson: b.ResourceConfigJson, Collection: c})
	}
	return bindings, nil
}

// SpecifyAll discovers, and specifies a capture of all that was found; see Bindings.
func (c *Capture) SpecifyAll(ctx context.Context, prefix string) (*flowpb.CaptureSpec, error) {
	found, err := c.Discover(ctx)
	if err != nil {
		return nil, err
	}
	bindings, err := Bindings(prefix, found)
	if err != nil {
		return nil, err
	}
	return c.Specify(ctx, &capturepb.Request_Validate{Bindings: bindings})
}
