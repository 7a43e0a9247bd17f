package cdctest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// follower is a runtime that runs the connector, reduces what it captures, and can be set back to any checkpoint.
type follower struct {
	t    testing.TB
	db   Database
	spec *flowpb.CaptureSpec
	keys [][]string // of each binding; nil for keyless

	session *session.Session
	ended   chan struct{}

	mu      sync.Mutex
	err     error
	tables  []table
	journal []undo  // how to take every document back
	points  []point // checkpoints that may be resumed from; the first one is acknowledged
}

// table is the reduced output of one binding.
type table struct {
	name  string
	docs  map[string]doc // by key; keyless rows by their column id
	count map[string]int // documents of op c, by key
}

// doc is what a key's documents reduce to; columns with null have nil.
type doc struct {
	columns map[string]*string
	deleted bool
}

// undo tells how to take a document back.
type undo struct {
	table  *table
	key    string
	before doc
	known  bool
	create bool
}

// point is a checkpoint and how much was captured until then.
type point struct {
	state   json.RawMessage
	journal int
}

// follow starts a capture of every table that there is.
func follow(t testing.TB, db Database) *follower {
	t.Helper()
	s := session.Start(t, db.Connector(), frame.Proto)
	f := &follower{t: t, db: db, spec: s.Task(db.Config())}
	require.NoError(t, s.Stop())
	for _, b := range f.spec.Bindings {
		path := b.ResourcePath
		f.tables = append(f.tables, table{name: path[len(path)-1], docs: map[string]doc{}, count: map[string]int{}})
		var key []string
		for _, ptr := range b.Collection.Key {
			if strings.HasPrefix(ptr, "/_meta/") {
				key = nil
				break
			}
			key = append(key, strings.TrimPrefix(ptr, "/"))
		}
		f.keys = append(f.keys, key)
	}
	f.points = []point{{state: json.RawMessage("{}")}}
	f.start()
	return f
}

// start runs the connector from the last checkpoint.
func (f *follower) start() {
	f.session = session.Start(f.t, f.db.Connector(), frame.Proto)
	f.session.Open(f.spec, f.points[len(f.points)-1].state)
	f.ended = make(chan struct{})
	go func(s *session.Session, ended chan struct{}) {
		defer close(ended)
		for {
			tx, err := s.Transaction()
			if err == nil {
				err = f.take(tx)
			}
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the connector ended: %w", errors.Join(s.Wait(), err))
			}
			if err != nil {
				f.mu.Lock()
				f.err = err
				f.mu.Unlock()
				return
			}
		}
	}(f.session, f.ended)
}

// kill ends the connector as a runtime does that dies, and sets back to one of the checkpoints.
func (f *follower) kill(rnd *rand.Rand) {
	f.session.CloseResponses()
	f.session.Cancel()
	<-f.ended
	_ = f.session.Wait() // that its output is closed is what it complains about
	f.mu.Lock()
	defer f.mu.Unlock()
	n := rnd.IntN(len(f.points))
	f.points = f.points[n : n+1]
	f.err = nil
	for _, u := range slices.Backward(f.journal[f.points[0].journal:]) {
		if u.known {
			u.table.docs[u.key] = u.before
		} else {
			delete(u.table.docs, u.key)
		}
		if u.create {
			u.table.count[u.key]--
		}
	}
	f.journal = f.journal[:f.points[0].journal]
}

// stop ends the connector for good.
func (f *follower) stop() {
	f.session.Cancel()
	<-f.ended
	require.NoError(f.t, f.session.Wait())
}

// acknowledge makes some checkpoints durable.
func (f *follower) acknowledge(rnd *rand.Rand) {
	f.mu.Lock()
	n := rnd.IntN(len(f.points))
	f.points = f.points[n:]
	f.mu.Unlock()
	if n > 0 {
		f.session.Ack(n)
	}
}

// take reduces what one transaction has captured.
func (f *follower) take(tx *session.Transaction) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range tx.Documents {
		if err := f.reduce(d); err != nil {
			return fmt.Errorf("%w: %s", err, d.Doc)
		}
	}
	state, err := flowpb.MergePatch(f.points[len(f.points)-1].state, tx.Patch)
	if err != nil {
		return err
	}
	f.points = append(f.points, point{state: state, journal: len(f.journal)})
	return nil
}

// reduce merges one document into its key.
func (f *follower) reduce(d session.Document) error {
	t := &f.tables[d.Binding]
	now, meta, err := parse(d.Doc)
	if err != nil {
		return err
	}
	keys := f.keys[d.Binding]
	if keys == nil {
		keys = []string{"id"}
	}
	key, err := keyOf(now.columns, keys)
	if err != nil {
		return err
	}
	if meta.Op == "c" {
		t.count[key]++
	}
	before, known := t.docs[key]
	f.journal = append(f.journal, undo{t, key, before, known, meta.Op == "c"})
	now.deleted = meta.Op == "d"
	if known {
		if err := later(before, now); err != nil {
			return err
		}
		if !before.deleted && !now.deleted {
			merged := maps.Clone(before.columns)
			maps.Copy(merged, now.columns)
			now.columns = merged
		} else if v := before.columns["v"]; now.columns["v"] == nil {
			now.columns["v"] = v // what came last still counts for later
		}
	}
	t.docs[key] = now
	return nil
}

type meta struct {
	Op     string `json:"op"`
	Source struct {
		Snapshot bool `json:"snapshot"`
	} `json:"source"`
}

// parse reads a document: numbers, strings and null are what the suite's tables hold.
func parse(text json.RawMessage) (doc, meta, error) {
	var members map[string]json.RawMessage
	var m meta
	d := doc{columns: map[string]*string{}}
	if err := json.Unmarshal(text, &members); err != nil {
		return d, m, err
	}
	if err := json.Unmarshal(members["_meta"], &m); err != nil {
		return d, m, err
	}
	delete(members, "_meta")
	for name, value := range members {
		switch {
		case bytes.Equal(value, []byte("null")):
			d.columns[name] = nil
		case value[0] == '"':
			var s string
			if err := json.Unmarshal(value, &s); err != nil {
				return d, m, err
			}
			d.columns[name] = &s
		default:
			s := string(value)
			d.columns[name] = &s
		}
	}
	return d, m, nil
}

func keyOf(columns map[string]*string, key []string) (string, error) {
	parts := make([]string, len(key))
	for i, name := range key {
		if columns[name] == nil {
			return "", fmt.Errorf("the document lacks key column %s", name)
		}
		parts[i] = *columns[name]
	}
	return strings.Join(parts, "|"), nil
}

// later fails if a document is older than what was captured of its key before. Column v grows with every change of a row.
func later(before, now doc) error {
	was, is := before.columns["v"], now.columns["v"]
	if was == nil || is == nil || len(*was) < len(*is) || len(*was) == len(*is) && *was <= *is {
		return nil
	}
	return errors.New("key goes back in time from version " + *was)
}

// failed returns why the connector ended by itself, if it did.
func (f *follower) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
