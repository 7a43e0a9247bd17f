package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// benchShape is a kind of rows.
type benchShape struct {
	collection  sinktest.Collection
	columns     string // of the table that a bare COPY fills
	transaction int    // rows: what our runtime takes at once, 32 MiB of documents
	// row is one row in both forms: its packed values, and the text of COPY. The generation tells versions of a key apart.
	row func(key, generation int) (values []byte, text string)
}

func narrowRows() *benchShape {
	return &benchShape{
		collection: sinktest.Collection{Name: "bench/rows", Columns: []sinktest.Column{
			{Name: "id", Types: []string{"integer"}, Key: true},
			{Name: "amount", Types: []string{"string", "null"}, Format: "number"},
			{Name: "at", Types: []string{"string", "null"}, Format: "date-time"},
			{Name: "data", Types: []string{"object", "null"}},
			{Name: "label", Types: []string{"string", "null"}},
			{Name: "ref", Types: []string{"string", "null"}, Format: "uuid"},
			{Name: "small", Types: []string{"integer", "null"}},
		}},
		columns:     "id bigint NOT NULL PRIMARY KEY, amount numeric, at timestamptz, data jsonb, label text, ref uuid, small bigint",
		transaction: 100_000,
		row: func(i, generation int) (values []byte, text string) {
			at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i*1000+generation) * time.Millisecond)
			amount := fmt.Sprintf("%d.%02d", i%100000, (i+generation)%100)
			data := fmt.Sprintf(`{"n":%d,"tags":["a","b"]}`, i+generation)
			label := fmt.Sprintf("row number %d of generation %d", i, generation)
			ref := fmt.Sprintf("00000000-0000-4000-8000-%012x", i*7+generation)
			values = tuple.AppendString(nil, amount)
			values = tuple.AppendString(values, at.Format("2006-01-02T15:04:05.999999Z"))
			values = tuple.AppendBytes(values, []byte(data))
			values = tuple.AppendString(values, label)
			values = tuple.AppendString(values, ref)
			values = tuple.AppendInt(values, int64(i%1000))
			text = fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%d\n", i, amount, at.Format("2006-01-02 15:04:05.999999Z07:00"), data, label, ref, i%1000)
			return values, text
		},
	}
}

// kilobyteDocuments are documents of a kilobyte: a few columns, and one that holds an object.
func kilobyteDocuments() *benchShape {
	return &benchShape{
		collection: sinktest.Collection{Name: "bench/documents", Columns: []sinktest.Column{
			{Name: "id", Types: []string{"integer"}, Key: true},
			{Name: "at", Types: []string{"string", "null"}, Format: "date-time"},
			{Name: "body", Types: []string{"object", "null"}},
			{Name: "state", Types: []string{"string", "null"}},
		}},
		columns:     "id bigint NOT NULL PRIMARY KEY, at timestamptz, body jsonb, state text",
		transaction: 32_000,
		row: func(i, generation int) (values []byte, text string) {
			at := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i*1000+generation) * time.Millisecond)
			var body strings.Builder
			fmt.Fprintf(&body, `{"customer":{"name":"customer %d","email":"c%d@example.com"},"lines":[`, i, i)
			for line := range 9 {
				fmt.Fprintf(&body, `{"sku":"sku-%06d-%d","quantity":%d,"price":"%d.%02d","note":"as agreed on the phone"},`, (i*31+line)%1_000_000, line, line+1, i%1000, line)
			}
			fmt.Fprintf(&body, `{}],"version":%d}`, generation)
			state := fmt.Sprintf("state %d", (i+generation)%7)
			values = tuple.AppendString(nil, at.Format("2006-01-02T15:04:05.999999Z"))
			values = tuple.AppendBytes(values, []byte(body.String()))
			values = tuple.AppendString(values, state)
			return values, fmt.Sprintf("%d\t%s\t%s\t%s\n", i, at.Format("2006-01-02 15:04:05.999999Z07:00"), body.String(), state)
		},
	}
}

// text writes rows with the keys from 0 on as COPY takes them, and returns the file's path.
func (s *benchShape) text(b *testing.B, rows int) string {
	b.Helper()
	f, err := os.Create(b.TempDir() + "/copy.txt")
	require.NoError(b, err)
	w := bufio.NewWriterSize(f, 1<<20)
	for i := range rows {
		_, line := s.row(i, 0)
		_, _ = w.WriteString(line)
	}
	require.NoError(b, w.Flush())
	require.NoError(b, f.Close())
	return f.Name()
}

// recorded is one transaction: files of protocol messages, so that making them costs nothing when they are played.
type recorded struct{ loads, stores string }

// recording is what a mode plays.
type recording struct {
	first  []recorded // stored before, unmeasured
	stores []recorded
	keys   int // in the table at the end
}

// benchStore is a row to be stored.
type benchStore struct {
	key    int
	exists bool
}

// record makes the transactions of a mode. Rows of a transaction come by key, as our runtime sends them.
func (m benchMode) record(b *testing.B, rows int) recording {
	b.Helper()
	var r recording
	size := m.shape.transaction
	if m.updates == 1 {
		for at := 0; at < rows; at += size {
			r.first = append(r.first, m.shape.write(b, sequence(at, min(rows, at+size), false), 0, m.history))
			r.stores = append(r.stores, m.shape.write(b, sequence(at, min(rows, at+size), !m.history), 1, m.history))
		}
		r.keys = rows
		return r
	}
	for at := 0; at < rows; at += size {
		n := min(size, rows-at)
		known := min(int(float64(n)*m.updates), r.keys)
		stores := sequence(r.keys, r.keys+n-known, false)
		for i := range known { // spread over all that are there, each once
			stores = append(stores, benchStore{(i*r.keys + at%r.keys) / known % r.keys, true})
		}
		slices.SortFunc(stores, func(x, y benchStore) int { return cmp.Compare(x.key, y.key) })
		r.keys += n - known
		r.stores = append(r.stores, m.shape.write(b, stores, at, m.history))
	}
	return r
}

func sequence(from, to int, exists bool) []benchStore {
	var out []benchStore
	for key := from; key < to; key++ {
		out = append(out, benchStore{key, exists})
	}
	return out
}

// document is a row as the document that a history needs besides, to tell what a change left out.
func (s *benchShape) document(b *testing.B, key int, values []byte) []byte {
	b.Helper()
	elements, err := tuple.Unpack(values)
	require.NoError(b, err)
	doc := map[string]any{"id": key}
	for i, element := range elements {
		if text, ok := element.([]byte); ok {
			element = json.RawMessage(text)
		}
		doc[s.collection.Columns[i+1].Name] = element
	}
	text, err := json.Marshal(doc)
	require.NoError(b, err)
	return text
}

// write writes one transaction.
func (s *benchShape) write(b *testing.B, rows []benchStore, generation int, documents bool) recorded {
	b.Helper()
	var loads, stores []byte
	for _, r := range rows {
		key := tuple.AppendInt(nil, int64(r.key))
		values, _ := s.row(r.key, generation)
		loads = materializepb.AppendLoad(loads, frame.Proto, &materializepb.Request_Load{KeyPacked: key})
		store := &materializepb.Request_Store{KeyPacked: key, ValuesPacked: values, Exists: r.exists}
		if documents {
			store.DocJson = s.document(b, r.key, values)
		}
		stores = materializepb.AppendStore(stores, frame.Proto, store)
	}
	dir := b.TempDir()
	out := recorded{dir + "/loads", dir + "/stores"}
	require.NoError(b, os.WriteFile(out.loads, loads, 0o600))
	require.NoError(b, os.WriteFile(out.stores, stores, 0o600))
	return out
}
