package airbyte

import (
	"bytes"
	"encoding/json"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// State is a position, as far as all records before it. Change captures have a global one: a place that all streams share, and
// what is particular to each.
type State struct {
	Type   string          `json:"type"` // STREAM or GLOBAL; empty or LEGACY for old sources
	Stream *StreamState    `json:"stream,omitempty"`
	Global *GlobalState    `json:"global,omitempty"`
	Data   json.RawMessage `json:"data,omitempty"` // of old sources
	Stats  *Stats          `json:"sourceStats,omitempty"`
}

// The types of states.
const (
	StreamType = "STREAM"
	GlobalType = "GLOBAL"
	LegacyType = "LEGACY"
)

// Stats are how many records a source has written since the state before.
type Stats struct {
	RecordCount float64 `json:"recordCount"`
}

// StreamState is the state of one stream.
type StreamState struct {
	Descriptor Descriptor      `json:"stream_descriptor"`
	State      json.RawMessage `json:"stream_state,omitempty"`
}

// GlobalState is the state of all streams.
type GlobalState struct {
	Shared  json.RawMessage `json:"shared_state,omitempty"`
	Streams []StreamState   `json:"stream_states"`
}

// Shared is what our sources keep in the shared state.
type Shared struct {
	// Capture is the name of the capture, from which the names of what it makes at the source derive.
	Capture string `json:"capture"`
	// Cursor is the last number that a record got.
	Cursor int64 `json:"cursor"`
	// State is what all streams share.
	State json.RawMessage `json:"state,omitempty"`
}

// Alone is what our sources keep in the state of a stream where there is no global one: all that it needs to go on.
type Alone struct {
	Shared
	Stream json.RawMessage `json:"stream"`
}

// Parse reads what a platform hands a source: a list of states. It takes the last global one, or makes one of our streams'
// own, of which those count that were written together last. Older ones are left out, so that these streams begin anew: a table's
// state is only true together with its place in the log, and at an older place the log may be released, since a state that a sync
// was given is (of streams that are not synced any more, platforms keep the last). It is nil where there is none: the first sync.
func Parse(text json.RawMessage) (*GlobalState, error) {
	var states []json.RawMessage
	switch text = bytes.TrimSpace(text); {
	case len(text) == 0 || string(text) == "null":
		return nil, nil //nolint:nilnil // no state is no error
	case text[0] == '[':
		if err := json.Unmarshal(text, &states); err != nil {
			return nil, errState(err)
		}
	default:
		states = []json.RawMessage{text}
	}
	var found *GlobalState
	var alone []StreamState
	for _, one := range states {
		var s struct {
			State
			Inner *State `json:"state"` // where whole messages are kept
		}
		if err := json.Unmarshal(one, &s); err != nil {
			return nil, errState(err)
		}
		state := &s.State
		if s.Inner != nil {
			state = s.Inner
		}
		switch {
		case state.Global != nil:
			found = state.Global
		case state.Stream != nil && len(state.Stream.State) > 0 && string(state.Stream.State) != "null":
			alone = append(alone, *state.Stream)
		case len(state.Data) > 0 && string(state.Data) != "{}":
			return nil, errState(nil)
		}
	}
	if found != nil || len(alone) == 0 {
		return found, nil
	}
	return together(alone)
}

// together makes a global state of streams' own.
func together(states []StreamState) (*GlobalState, error) {
	parsed := make([]Alone, len(states))
	newest := 0
	for i, s := range states {
		if err := json.Unmarshal(s.State, &parsed[i]); err != nil || parsed[i].Capture == "" {
			return nil, errState(err)
		}
		if parsed[i].Cursor > parsed[newest].Cursor {
			newest = i
		}
	}
	shared, err := json.Marshal(parsed[newest].Shared)
	if err != nil {
		return nil, err
	}
	g := &GlobalState{Shared: shared}
	for i, s := range states {
		if parsed[i].Cursor == parsed[newest].Cursor {
			g.Streams = append(g.Streams, StreamState{Descriptor: s.Descriptor, State: parsed[i].Stream})
		}
	}
	return g, nil
}

func errState(cause error) error {
	return usererr.New(cause, "The state was not written by this source, so nothing can go on from it. Clear the connection's data to begin anew.")
}
