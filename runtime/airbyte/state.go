package airbyte

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/airbyte"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// stored is the capture's state.
//
//	{"bindingStateV1": {"<state key>": {"state": "<of the stream>"}},
//	 "shared": {"global": "<what all streams share>", "whole": "<counters>", "legacy": {…}, "source": {…}}}
type stored struct {
	Bindings map[string]bindingState `json:"bindingStateV1"`
	Shared   struct {
		Global *string    `json:"global"`
		Whole  *string    `json:"whole"` // backfill counters of the streams that have no state but the global one, as an object
		Legacy *legacy    `json:"legacy"`
		Source *knowledge `json:"source"`
	} `json:"shared"`

	hadSource bool
}

type bindingState struct {
	State string `json:"state"`
}

// legacy is the state of an old source, which nobody can divide, and the backfill counters of its streams, as an object.
type legacy struct {
	State     string `json:"state"`
	Backfills string `json:"backfills"`
}

// knowledge is what a sync that ended well knew of the source.
type knowledge struct {
	Salt        string    `json:"salt"`
	Fingerprint string    `json:"fingerprint"` // of the source and its configuration, without secrets
	Learned     time.Time `json:"learned"`
	Secrets     []string  `json:"secrets"` // names of fields
	Streams     []string  `json:"streams"` // as in the catalog, by binding
}

func parseStored(text json.RawMessage) (stored, error) {
	var s stored
	if len(bytes.TrimSpace(text)) == 0 {
		return s, nil
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, usererr.New(err, "The stored state of this capture was not written by the adapter for sources of Airbyte. Backfill its bindings to begin anew.")
	}
	s.hadSource = s.Shared.Source != nil
	return s, nil
}

// input is the state as read takes it; nil if there is none.
func (s *stored) input(streams []*stream, log *logrus.Entry) []byte {
	if l := s.Shared.Legacy; l != nil {
		if !backfilled(l.Backfills, streams) {
			return []byte(l.State)
		}
		log.Warn(readAnew)
		return nil
	}
	if w := s.Shared.Whole; w != nil && backfilled(*w, streams) {
		log.Warn(readAnew)
		return nil
	}
	states := []airbyte.StreamState{}
	for _, st := range streams {
		kept, ok := s.Bindings[st.key]
		if ok && (!st.full || st.IsResumable) {
			states = append(states, airbyte.StreamState{Descriptor: st.Descriptor(), State: json.RawMessage(kept.State)})
		}
	}
	if len(states) == 0 && (s.Shared.Global == nil || s.Shared.Whole == nil) {
		return nil
	}
	list := []airbyte.State{}
	if s.Shared.Global != nil {
		list = append(list, airbyte.State{Type: airbyte.GlobalType, Global: &airbyte.GlobalState{Shared: json.RawMessage(*s.Shared.Global), Streams: states}})
	} else {
		for i := range states {
			list = append(list, airbyte.State{Type: airbyte.StreamType, Stream: &states[i]})
		}
	}
	text, err := json.Marshal(list)
	if err != nil {
		log.WithField("err", err.Error()).Warn("the stored state cannot be written for the source, and all streams are read anew")
		return nil
	}
	return text
}

const readAnew = "a stream is to be backfilled, and the source has one state for all: all streams are read anew"

// backfilled tells whether one of the streams has another backfill counter than before. Those that had none are new.
func backfilled(counters string, streams []*stream) bool {
	var before map[string]uint32
	if json.Unmarshal([]byte(counters), &before) != nil {
		return true
	}
	for _, st := range streams {
		if n, ok := before[st.Descriptor().String()]; ok && n != st.backfill {
			return true
		}
	}
	return false
}

func present(text json.RawMessage) bool { return len(text) > 0 && string(text) != "null" }

func orNull(text json.RawMessage) json.RawMessage {
	if len(text) == 0 {
		return json.RawMessage("null")
	}
	return text
}
