package cdctest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// follower reduces by key what a connector captures.
type follower struct {
	runner
	journal
	db     Database
	keys   [][]string // of each binding; nil for keyless
	tables []table
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

// follow starts a capture of every table that there is.
func follow(t testing.TB, db Database) *follower {
	t.Helper()
	f := &follower{db: db}
	f.runner = runner{t: t, spec: discover(t, db), out: f, run: func() *session.Session {
		return session.Start(t, db.Connector(), frame.Proto)
	}}
	for _, b := range f.spec.Bindings {
		path := b.ResourcePath
		f.tables = append(f.tables, table{name: path[len(path)-1], docs: map[string]doc{}, count: map[string]int{}})
		f.keys = append(f.keys, keyColumns(b))
	}
	f.start()
	return f
}

// discover specifies a capture of every table that there is.
func discover(t testing.TB, db Database) *flowpb.CaptureSpec {
	t.Helper()
	s := session.Start(t, db.Connector(), frame.Proto)
	spec := s.Task(db.Config())
	require.NoError(t, s.Stop())
	return spec
}

// keyColumns are the columns of a binding's key; nil if its documents are keyed by their place in the log.
func keyColumns(b *flowpb.CaptureSpec_Binding) (key []string) {
	for _, ptr := range b.Collection.Key {
		if strings.HasPrefix(ptr, "/_meta/") {
			return nil
		}
		key = append(key, strings.TrimPrefix(ptr, "/"))
	}
	return key
}

// stop ends the connector for good.
func (f *follower) stop() {
	f.t.Helper()
	require.NoError(f.t, f.runner.stop())
}

// take implements output.
func (f *follower) take(tx *session.Transaction) error {
	for _, d := range tx.Documents {
		if err := f.reduce(d); err != nil {
			return fmt.Errorf("%w: %s", err, d.Doc)
		}
	}
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
	f.add(func() {
		if known {
			t.docs[key] = before
		} else {
			delete(t.docs, key)
		}
		if meta.Op == "c" {
			t.count[key]--
		}
	})
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
	Op     string                     `json:"op"`
	Before map[string]json.RawMessage `json:"before"`
	Source struct {
		Snapshot bool `json:"snapshot"`
	} `json:"source"`
}

// parse reads a document.
func parse(text json.RawMessage) (doc, meta, error) {
	var members map[string]json.RawMessage
	var m meta
	var d doc
	if err := json.Unmarshal(text, &members); err != nil {
		return d, m, err
	}
	if err := json.Unmarshal(members["_meta"], &m); err != nil {
		return d, m, err
	}
	delete(members, "_meta")
	var err error
	d.columns, err = values(members)
	return d, m, err
}

// values reads columns: numbers, strings and null.
func values(members map[string]json.RawMessage) (map[string]*string, error) {
	columns := make(map[string]*string, len(members))
	for name, value := range members {
		s := string(value)
		switch {
		case s == "null":
			columns[name] = nil
			continue
		case value[0] == '"':
			if err := json.Unmarshal(value, &s); err != nil {
				return nil, err
			}
		}
		columns[name] = &s
	}
	return columns, nil
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
