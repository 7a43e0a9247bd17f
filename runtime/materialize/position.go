package materialize

import (
	"bytes"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/shard"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// positions are how far each binding has read each journal. They travel as a Checkpoint of the protocol, which
// destinations keep without looking into it:
//
//	sources["<collection>;<capture>;<state key>"] = {read_through: offset, producers: [{id: the log's identity}]}
//
// Sources of bindings that are not active now are carried along, so that a binding which comes back goes on where it was.
type positions struct {
	identity wal.Identity
	sources  map[string]int64
}

func sourceName(j wal.Journal, stateKey string) string { return j.String() + ";" + stateKey }

// newPositions reads a checkpoint; nil is the beginning. It refuses one of another log: offsets of one log mean nothing
// in another, and reading on from them would lose or repeat documents.
func newPositions(log wal.Log, cp *flowpb.Checkpoint) (*positions, error) {
	p := &positions{identity: log.Identity(), sources: map[string]int64{}}
	for name, source := range cp.GetSources() {
		if len(source.Producers) != 1 || !bytes.Equal(source.Producers[0].Id, p.identity[:]) {
			return nil, usererr.New(nil, "the destination has committed positions (%s) of another log than the one in %s: "+
				"run with the log that it was filled from, or raise the backfill counters of its bindings and remove its checkpoint to fill it anew", name, log.Words().Place)
		}
		p.sources[name] = source.ReadThrough
	}
	return p, p.check(log)
}

// check refuses positions that the log has not reached.
func (p *positions) check(log wal.Log) error {
	for name, offset := range p.sources {
		parts := strings.SplitN(name, ";", 3)
		if len(parts) != 3 {
			return fmt.Errorf("reading the checkpoint's source %q: it has not three parts", name)
		}
		head := int64(0)
		for _, h := range log.Heads(parts[0]) {
			if h.Journal.Part == parts[1] {
				head = h.Offset
			}
		}
		if offset > head {
			words := log.Words()
			return usererr.New(nil, "the destination has committed more of the collection %s (%d %s) than %s holds (%d %s): %s",
				parts[0], offset, words.Unit, words.Place, head, words.Unit, words.Short)
		}
	}
	return nil
}

func (p *positions) get(j wal.Journal, stateKey string) int64 {
	return p.sources[sourceName(j, stateKey)]
}

func (p *positions) checkpoint() *flowpb.Checkpoint {
	cp := &flowpb.Checkpoint{Sources: make(map[string]*flowpb.Checkpoint_Source, len(p.sources))}
	for name, offset := range p.sources {
		cp.Sources[name] = &flowpb.Checkpoint_Source{
			ReadThrough: offset,
			Producers:   []*flowpb.Checkpoint_Source_ProducerEntry{{Id: p.identity[:], State: &flowpb.Checkpoint_ProducerState{Begin: -1}}},
		}
	}
	return cp
}

// storedPositions are those of our own last commit.
func (t *Task) storedPositions() (*positions, error) {
	cp, err := t.storedCheckpoint(t.Shard)
	if err != nil {
		return nil, err
	}
	return newPositions(t.Log, cp)
}

func (t *Task) storedCheckpoint(s shard.Shard) (*flowpb.Checkpoint, error) {
	stored, err := t.Store.Get(t.record("checkpoint" + s.Suffix()))
	if err != nil {
		return nil, err
	}
	cp := &flowpb.Checkpoint{}
	if err := proto.Unmarshal(stored, cp); err != nil {
		return nil, fmt.Errorf("reading the stored checkpoint of %s: %w", t.Def.Name, err)
	}
	return cp, nil
}
