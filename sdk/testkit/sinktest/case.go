// Package sinktest is the conformance suite of materializations: what every destination must get right, run against the
// real thing through the protocol, in both codecs.
package sinktest

import (
	"encoding/json"
	"testing"

	"github.com/sluicedata/sluice/protocol/frame"
)

// Case is a connector under test.
type Case struct {
	// Start starts a connector that speaks the codec.
	Start func(t testing.TB, codec frame.Codec) Process
	// Config is an endpoint configuration under which deletions are soft, if the destination can do that.
	Config json.RawMessage
	// HardDelete is one under which they are hard; empty if there is none.
	HardDelete json.RawMessage
	// AppendOnly says that the destination takes delta updates only.
	AppendOnly bool
	// Resource is the configuration of a binding that goes to a table of this name.
	Resource func(table string, delta bool) json.RawMessage
	// Rows returns what a table holds: one JSON object a row, by column. Values of type object or array are JSON, too.
	Rows func(t testing.TB, table string) []json.RawMessage
}
