// Package specs makes the specifications that requests carry, in the form that connectors written for Flow insist on:
// with journal templates, state keys and shards that mean nothing here and have to be valid all the same.
package specs

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	flowpb "github.com/sluicedata/sluice/protocol/flow"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/schema"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// Protocol is the number that both sides of the protocol know it by.
const Protocol = 3032023

// uuidPointer is where Flow's runtime puts its own identifier of a document.
const uuidPointer = "/_meta/uuid"

// Collection describes a collection whose documents have the given shape.
func Collection(c *pipeline.Collection, shape *schema.Shape) (*flowpb.CollectionSpec, error) {
	projections, err := shape.Projections(c.Key, c.Projections)
	if err != nil {
		return nil, fmt.Errorf("inferring the fields of the collection %s: %w", c.Name, err)
	}
	return &flowpb.CollectionSpec{
		Name: c.Name, Key: c.Key, UuidPtr: uuidPointer, Projections: projections,
		WriteSchemaJson: c.Schema, ReadSchemaJson: shape.JSON(), PartitionTemplate: journal(c.Name),
		AckTemplateJson: []byte(`{"_meta":{"ack":true,"uuid":"DocUUIDPlaceholder-329Bb50aa48EAa9ef"}}`),
	}, nil
}

// journal is a valid template for journals that nobody will ever make.
func journal(name string) *flowpb.JournalSpec {
	return &flowpb.JournalSpec{
		Name: name + "/0000000000000000", Replication: 1,
		Fragment: &flowpb.JournalSpec_Fragment{
			Length: 1 << 24, CompressionCodec: flowpb.CompressionCodec_GZIP, RefreshInterval: durationpb.New(300 * time.Second),
		},
		Labels: &flowpb.LabelSet{},
	}
}

// Shard is a valid template for a shard that nobody will ever run.
func Shard(kind, task string) *flowpb.ShardSpec {
	return &flowpb.ShardSpec{
		Id: kind + "/" + task + "/0000000000000000", MaxTxnDuration: durationpb.New(20 * time.Minute), MinTxnDuration: durationpb.New(0),
		RecoveryLogPrefix: "recovery", HintPrefix: "/sluice/hints", HintBackups: 1, Labels: &flowpb.LabelSet{},
	}
}

// RecoveryLog is a valid template for a recovery log that nobody will ever write.
func RecoveryLog(kind, task string) *flowpb.JournalSpec {
	return journal("recovery/" + kind + "/" + task)
}

// StateKey names the part of a task's state that belongs to one resource: its path and its backfill counter.
func StateKey(path []string, backfill uint32) string {
	var b strings.Builder
	for _, r := range strings.Join(path, "/") {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_+.=", r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if backfill > 0 {
		fmt.Fprintf(&b, ".v%d", backfill)
	}
	return b.String()
}

// Sealed is a configuration as it stands in a task's last specification: wrapped in its endpoint.
func Sealed(e *pipeline.Endpoint) ([]byte, error) {
	wrapped := struct {
		Image   string          `json:"image,omitempty"`
		Command []string        `json:"command,omitempty"`
		Config  json.RawMessage `json:"config"`
	}{e.Image, e.Command, e.Config}
	out, err := json.Marshal(wrapped)
	if err != nil {
		return nil, fmt.Errorf("wrapping the endpoint configuration: %w", err)
	}
	return out, nil
}

// Projection finds a field of a collection, whose projections are sorted by field; nil if there is none.
func Projection(c *flowpb.CollectionSpec, field string) *flowpb.Projection {
	i, ok := slices.BinarySearchFunc(c.GetProjections(), field, func(p *flowpb.Projection, f string) int { return strings.Compare(p.Field, f) })
	if !ok {
		return nil
	}
	return c.Projections[i]
}

// Version identifies the content of a specification.
func Version(spec proto.Message) (string, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("encoding a specification: %w", err)
	}
	return Fingerprint(text), nil
}

// ResourcePath is the path that pointers name in a resource configuration. A pointer that leads nowhere is left out, as
// optional parts such as a namespace may be.
func ResourcePath(resource json.RawMessage, pointers []string) []string {
	compiled := jsonscan.NewPointers(pointers)
	values := make([][]byte, compiled.Len())
	compiled.Find(resource, values)
	var path []string
	for _, value := range values {
		if text, ok := jsonscan.Text(value); ok && text != "" {
			path = append(path, text)
		}
	}
	return path
}

// Fingerprint tells texts apart without telling what they are.
func Fingerprint(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
