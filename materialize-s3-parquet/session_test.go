package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
	"github.com/sluicedata/sluice/sdk/tuple"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func (g ground) runtime(t *testing.T, task, resource string, change func(map[string]any)) *sinktest.Runtime {
	t.Helper()
	c := g.sinkCase()
	c.Config = g.config(change)
	return sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/" + task, Config: c.Config, Bindings: []sinktest.Binding{
		{Collection: partitioned(), Resource: json.RawMessage(resource)},
	}})
}

func changes(from, to int, region string) []sinktest.Change {
	var log []sinktest.Change
	for i := from; i < to; i++ {
		log = append(log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"region":%q,"size":%d}`, i, region, i)})
	}
	return log
}

// Two instances of one key range at once: what the runtime of the second one committed is visible; of the loser's transaction,
// staged and never committed, nothing ever is, and the winner's successor removes it. The loser cannot harm the winner either.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		r := g.runtime(t, "twice", `{"path":"t"}`, nil)
		r.MustApply()
		r.Log = changes(0, 2, "first")
		require.NoError(t, r.Run())

		loser := sinktest.Start(t, g.sinkCase(), frame.Proto)
		require.NoError(t, r.Open(loser))
		require.NotNil(t, loser.MustCall(&materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}).GetAcknowledged())
		require.NotNil(t, loser.MustCall(&materializepb.Request{Flush: &materializepb.Request_Flush{}}).GetFlushed())
		size := tuple.AppendInt(nil, 7)
		require.NoError(t, loser.Send(&materializepb.Request{Store: &materializepb.Request_Store{
			KeyPacked: tuple.AppendString(tuple.AppendInt(nil, 7), "loser"), ValuesPacked: size, DocJson: []byte(`{"id":7,"region":"loser","size":7}`),
		}}))
		commit := &materializepb.Request{StartCommit: &materializepb.Request_StartCommit{RuntimeCheckpoint: sinktest.CheckpointAt(9)}}
		require.NotNil(t, loser.MustCall(commit).GetStartedCommit(), "staged; its runtime is fenced off and commits nothing")
		require.Len(t, g.drafts(t), 1)

		r.Log = append(r.Log, changes(2, 4, "winner")...)
		require.NoError(t, r.Run())
		loser.Kill()
		require.Empty(t, g.drafts(t), "what the loser staged under a number that is committed")
		r.RequireTable(t, 0, "t", false)
		for _, row := range g.rows(t, "t") {
			require.NotContains(t, string(row), "loser")
		}
	})
}

// Two shards write to one table at once; their files never collide.
func TestShards(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		whole := g.runtime(t, "sharded", `{"path":"t"}`, nil)
		whole.MustApply()
		whole.Batch = 1
		whole.Log = changes(0, 2, "whole")
		require.NoError(t, whole.Run())
		for i, keys := range []*flowpb.RangeSpec{{KeyBegin: 0, KeyEnd: 0x7fffffff}, {KeyBegin: 0x80000000, KeyEnd: 0xffffffff}} {
			shard := *whole
			shard.Range, shard.Position, shard.Log = keys, 0, changes(10*i, 10*i+3, fmt.Sprint("shard", i))
			require.NoError(t, shard.Run())
		}
		require.Len(t, g.rows(t, "t"), 8)
		names := g.files(t)
		require.Len(t, names, 8)
		// Both go on counting behind the range that was split, so names sort by commit.
		slices.Sort(names)
		require.Contains(t, names[0], "000000000001-0001-00000000-ffffffff-")
		require.Contains(t, names[2], "000000000003-0001-00000000-7fffffff-")
		require.Contains(t, names[3], "000000000003-0001-80000000-ffffffff-")
	})
}

// Prefixes and partitions stand in the names, and the limits of sizes and of open files are kept.
func TestLayout(t *testing.T) {
	t.Parallel()
	g := newFolderGround(t)
	r := g.runtime(t, "layout", `{"path":"shop/orders","partitionBy":["region","day=%Y-%m-%d"]}`, func(c map[string]any) {
		c["prefix"] = "raw/%Y"
		c["fileSizeLimit"] = 65536
		c["advanced"] = map[string]any{"openPartitions": 2, "rowGroupBytes": 65536}
	})
	columns := &r.Task.Bindings[0].Collection.Columns
	*columns = append(*columns, sinktest.Column{Name: "noise", Types: []string{"string"}})
	r.MustApply()
	r.Batch = 12_000
	regions := []string{"n/o=rth", "", "süd"} // in turns: two files may be open, so one of them ends for the third
	for i := range 12_000 {
		noise := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"region":%q,"noise":"%x"}`, i, regions[i/1000%3], noise)})
	}
	before := time.Now().UTC()
	require.NoError(t, r.Run())
	folders := map[string]int{}
	for _, name := range g.files(t) {
		folders[name[:strings.LastIndexByte(name, '/')]]++
	}
	day, year := before.Format("2006-01-02"), before.Format("2006")
	for _, region := range []string{"n%2Fo%3Drth", "", "süd"} {
		folder := "raw/" + year + "/shop/orders/v0000/region=" + region + "/day=" + day
		require.Contains(t, folders, folder)
		require.Greater(t, folders[folder], 1, "files end at their limit")
	}
	require.Len(t, g.rows(t, "raw/"+year+"/shop/orders"), 12_000)
}

// A table begins only where nothing is yet, and says so before it writes anything.
func TestFolderIsTaken(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		r := g.runtime(t, "first", `{"path":"t"}`, nil)
		r.MustApply()
		r.Log = changes(0, 1, "x")
		require.NoError(t, r.Run())
		other := g.runtime(t, "second", `{"path":"t"}`, nil)
		_, err := other.Apply()
		require.ErrorContains(t, err, `Table "t" is to begin in the folder t/v0000 of `+g.place(t).url()+`, but there are files already, such as t/v0000/000000000001-0001-00000000-ffffffff-`)
		other.Task.Bindings[0].Backfill = 1
		require.Equal(t, "t begins in t/v0001.", other.MustApply())
	})
}

// A runtime that forgot what it had committed, restored from a backup for instance, is told so before anything is overwritten.
func TestRuntimeForgot(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		r := g.runtime(t, "forgetful", `{"path":"t"}`, nil)
		r.MustApply()
		r.Log = changes(0, 1, "x")
		require.NoError(t, r.Run())
		r.State, r.Position = json.RawMessage(`{}`), 0
		require.ErrorContains(t, r.Run(), "Was the runtime's data removed or restored from a backup?")
		require.Len(t, g.rows(t, "t"), 1)
	})
}

// A backfill counter begins a new folder; the old files stay as they are.
func TestBackfillCounter(t *testing.T) {
	t.Parallel()
	g := newFolderGround(t)
	r := g.runtime(t, "again", `{"path":"t"}`, nil)
	r.MustApply()
	r.Log = changes(0, 2, "x")
	require.NoError(t, r.Run())
	r.Task.Bindings[0].Backfill = 1
	r.MustApply()
	r.Position = 0
	require.NoError(t, r.Run())
	names := g.files(t)
	require.Len(t, names, 2)
	require.True(t, strings.HasPrefix(names[0], "t/v0000/") && strings.HasPrefix(names[1], "t/v0001/"), names)
}

func TestConfigProblems(t *testing.T) {
	t.Parallel()
	bad := config{
		Bucket: "s3://b", Prefix: "a//b%x", FileSizeLimit: 1, Endpoint: "ftp://user:secret@host",
		Credentials: credentials{AccessKeyID: "id"}, Advanced: advanced{KMSKeyID: "key"},
	}
	err := bad.Validate()
	message := usererr.Message(err)
	for _, want := range []string{
		`bucket "s3://b" is the name of a bucket or file:///folder`, `prefix "a//b%x" has an empty part`, `endpoint "ftp://…@host" is no URL`,
		"credentials.accessKeyId and credentials.secretAccessKey belong together", "fileSizeLimit 1 is not between 65536",
		"advanced.kmsKeyId is set, but advanced.serverSideEncryption is not aws:kms", "advanced.openPartitions 0",
	} {
		require.Contains(t, message, want)
	}
	require.NotContains(t, err.Error(), "secret@")
	large := config{Bucket: "b", FileSizeLimit: maxStaged + 1, Advanced: advanced{Staging: stagedObjects}}
	require.Contains(t, usererr.Message(large.Validate()), "fileSizeLimit 4294967297 is more than 4294967296 (4 GiB): stores copy no larger files. Lower it, or set advanced.staging to uploads.")
	for path, want := range map[string]string{
		"": "path is required.", "a/../b": `path "a/../b" has a part that is "..", which file systems take for a folder.`,
		"/a": `path "/a" has an empty part: take out the slash at an end, or one of two in a row.`, "_x": `path "_x" has a part that begins with a dot or an underscore; readers of Parquet folders leave such names out.`,
	} {
		require.Equal(t, want, usererr.Message(resource{Path: path}.Validate()))
	}
	require.Equal(t, `partitionBy "%q" has %q; there are %Y, %m, %d, %H, %M, %S, and %% for a percent sign.`,
		usererr.Message(resource{Path: "a", PartitionBy: []string{"day=%q"}}.Validate()))
	require.Equal(t, `partitionBy names "day" twice.`, usererr.Message(resource{Path: "a", PartitionBy: []string{"day", "day=%d"}}.Validate()))
}

func TestNames(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	require.Equal(t, "x%/2026-03-04/04/06/07", expandPattern("x%%/%Y-%m-%d/%H/%M/%S", at))
	require.Equal(t, "x%/", literalPart("x%%/%Y/z"))
	n := newNamer(config{Prefix: "/raw/%Y/"}, "acme/t", materialize.FullRange())
	require.Equal(t, "raw/2026/a/b/v0012", n.tableFolder("a/b", 12, at))
	name, err := n.file("f", 17, 1)
	require.NoError(t, err)
	keys, number, ok := n.parse(name)
	require.True(t, ok)
	require.Equal(t, materialize.FullRange(), keys)
	require.EqualValues(t, 17, number)
	_, _, ok = newNamer(config{}, "acme/other", materialize.FullRange()).parse(name)
	require.False(t, ok)
	_, err = n.file(strings.Repeat("x", 1000), 1, 1)
	require.ErrorContains(t, err, "object stores allow 1024")
	for value, want := range map[string]tuple.Element{
		"f=__HIVE_DEFAULT_PARTITION__/": {}, "f=/": {Kind: tuple.String}, "f=a%2Fb%3D%25%20ü/": {Kind: tuple.String, Bytes: []byte("a/b=% ü")},
		"f=-5/": {Kind: tuple.Int, Int: -5}, "f=true/": {Kind: tuple.Bool, Bool: true}, "f=1.5/": {Kind: tuple.Float, Float: 1.5},
	} {
		require.Equal(t, value, string(appendPartition(nil, "f", want)))
	}
}
