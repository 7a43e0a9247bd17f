package inspect

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/process"
)

var epoch = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

// written is a log of two captures that write into one collection, a commit of two documents a minute, by turns, and of a
// materialization that has read the first capture's first two commits.
func written(t *testing.T, dir string) *wal.Embedded {
	t.Helper()
	now := epoch
	log, err := wal.Open(wal.Options{Dir: dir, Log: logrus.NewEntry(process.Discard()), MinFreeBytes: 1, Now: func() time.Time { return now }})
	require.NoError(t, err)
	var read int64
	writers := map[string]wal.Writer{}
	for i := range 8 {
		capture := fmt.Sprintf("acme/source%d", i%2)
		if writers[capture] == nil {
			writers[capture], err = log.Writer(capture)
			require.NoError(t, err)
		}
		b := &wal.Block{}
		b.Add(fmt.Appendf(nil, `{"n":%d}`, 2*i))
		b.Add(fmt.Appendf(nil, `{"n":%d}`, 2*i+1))
		require.NoError(t, writers[capture].Append("acme/things", b))
		require.NoError(t, writers[capture].Commit(t.Context(), nil))
		if i == 2 {
			read = log.Heads("acme/things")[0].Offset
		}
		now = now.Add(time.Minute)
	}
	spec, err := proto.Marshal(&flowpb.MaterializationSpec{Bindings: []*flowpb.MaterializationSpec_Binding{
		{Collection: &flowpb.CollectionSpec{Name: "acme/things"}, StateKey: "things"},
	}})
	require.NoError(t, err)
	cp, err := proto.Marshal(&flowpb.Checkpoint{Sources: map[string]*flowpb.Checkpoint_Source{"acme/things;acme/source0;things": {ReadThrough: read}}})
	require.NoError(t, err)
	require.NoError(t, log.Put(t.Context(), wal.Records{"materialization/acme/sink/spec": spec, "materialization/acme/sink/checkpoint": cp}))
	return log
}

// TestBothWays: the log says the same from its folder as through the process that has it open, however deep the folder is.
func TestBothWays(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 20))
	log := written(t, dir)
	server, err := Serve(t.Context(), dir, log, process.Discard())
	require.NoError(t, err)
	info, err := os.Stat(filepath.Join(dir, socketName))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	running, err := Open(dir, process.Discard())
	require.NoError(t, err)
	require.IsType(t, &client{}, running)
	same := look(t, running)
	require.NoError(t, server.Close())
	_, err = Open(dir, process.Discard())
	require.ErrorContains(t, err, "another process has the log in "+dir+" open and does not answer")
	_, err = running.Report(t.Context())
	require.ErrorContains(t, err, "the sluice that runs in "+dir+" stopped while it was asked for the log: ask again")
	require.NoError(t, log.Close())

	stopped, err := Open(dir, process.Discard())
	require.NoError(t, err)
	require.IsType(t, &folder{}, stopped)
	require.Equal(t, same, look(t, stopped))
	require.NoError(t, stopped.Close())
}

// look asks for everything.
func look(t *testing.T, log Log) string {
	t.Helper()
	report, err := log.Report(t.Context())
	require.NoError(t, err)
	require.Len(t, report.Collections, 1)
	c := report.Collections[0]
	require.Equal(t, "acme/things", c.Name)
	require.Len(t, c.Journals, 2)
	j := c.Journals[1]
	require.Equal(t, []any{"acme/source1", int64(0), int64(8), int64(4)}, []any{j.Capture, j.Start, j.Documents, j.Commits})
	require.True(t, j.First.Equal(epoch.Add(time.Minute)), j.First)
	require.True(t, j.Last.Equal(epoch.Add(7*time.Minute)), j.Last)
	require.Len(t, c.Readers, 2)
	require.Equal(t, []any{"acme/source0", int64(4), true}, []any{c.Readers[0].Capture, c.Readers[0].Documents, c.Readers[0].Through.Equal(epoch.Add(2 * time.Minute))})
	require.Equal(t, []any{"acme/source1", int64(8), true}, []any{c.Readers[1].Capture, c.Readers[1].Documents, c.Readers[1].Through.IsZero()})

	cat := func(q Query) string {
		var out bytes.Buffer
		q.Collection = "acme/things"
		require.NoError(t, log.Documents(t.Context(), q, &out))
		return strings.NewReplacer(`{"n":`, "", "}\n", " ").Replace(out.String())
	}
	var all strings.Builder
	for i := range 16 {
		fmt.Fprintf(&all, "%d ", i)
	}
	require.Equal(t, all.String(), cat(Query{}))
	require.Equal(t, "0 1 2 ", cat(Query{Limit: 3}))
	require.Equal(t, "4 5 6 7 ", cat(Query{From: epoch.Add(2 * time.Minute), To: epoch.Add(4 * time.Minute)}))
	require.Equal(t, "14 15 ", cat(Query{From: epoch.Add(6*time.Minute + 1)}))
	require.Empty(t, cat(Query{From: epoch.Add(time.Hour)}))
	require.Empty(t, cat(Query{From: epoch.Add(time.Minute), To: epoch}))

	err = log.Documents(t.Context(), Query{Collection: "acme/thongs"}, &bytes.Buffer{})
	require.ErrorContains(t, err, `the log has no collection "acme/thongs"; it has acme/things`)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, log.Documents(canceled, Query{Collection: "acme/things"}, &bytes.Buffer{}), context.Canceled)
	return fmt.Sprintf("%+v %v", report, err)
}

// TestDamageOnTheWay: an error behind the first documents is told as such, not as their end.
func TestDamageOnTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := written(t, dir)
	server, err := Serve(t.Context(), dir, log, process.Discard())
	require.NoError(t, err)
	server.log = &failing{server.log}
	asked, err := Open(dir, process.Discard())
	require.NoError(t, err)
	var out bytes.Buffer
	err = asked.Documents(t.Context(), Query{Collection: "acme/things"}, &out)
	require.ErrorContains(t, err, "its bytes are damaged")
	require.NotEmpty(t, out.String())
	require.NoError(t, server.Close())
	require.NoError(t, log.Close())
}

type failing struct{ Log }

func (f *failing) Documents(ctx context.Context, q Query, out io.Writer) error {
	if err := f.Log.Documents(ctx, q, out); err != nil {
		return err
	}
	return fmt.Errorf("its bytes are damaged")
}
