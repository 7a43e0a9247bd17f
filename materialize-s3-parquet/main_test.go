package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/child"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

func TestMain(m *testing.M) {
	os.Exit(child.Main(m, 0, map[string]func(){child.Connector: main}))
}

// startProcess starts the connector as a process of its own.
func startProcess(t testing.TB, codec frame.Codec) sinktest.Process {
	t.Helper()
	cmd := child.Self(t, child.Connector)
	cmd.Env = append(cmd.Env, "AWS_EC2_METADATA_DISABLED=true")
	return sinktest.StartProcess(t, cmd, codec)
}

// ground is a place for files in a test: a bucket of a real object store, or a folder.
type ground struct {
	s3     *server.S3Server // nil for a folder
	bucket string
	root   string // where the files are, in either case
}

func newFolderGround(t testing.TB) ground {
	t.Helper()
	return ground{root: t.TempDir()}
}

func newBucketGround(t testing.TB) ground {
	t.Helper()
	s3 := server.S3(t)
	bucket := s3.NewBucket(t)
	return ground{s3: s3, bucket: bucket, root: s3.Folder(bucket)}
}

// config is an endpoint configuration; change may alter it.
func (g ground) config(change func(map[string]any)) json.RawMessage {
	c := map[string]any{"bucket": "file://" + g.root, "uploadInterval": "0s"}
	if g.s3 != nil {
		c = map[string]any{
			"bucket": g.bucket, "endpoint": g.s3.Endpoint(), "uploadInterval": "0s",
			"credentials": map[string]any{"accessKeyId": server.S3AccessKey, "secretAccessKey": server.S3SecretKey},
		}
	}
	if change != nil {
		change(c)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return raw
}

// files are the names of all finished files; hidden ones are no files.
func (g ground) files(t testing.TB) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(g.root, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != g.root:
			return filepath.SkipDir // what the object store has of its own
		case entry.IsDir() || strings.HasPrefix(entry.Name(), "."):
			return nil
		}
		name, err := filepath.Rel(g.root, path)
		names = append(names, filepath.ToSlash(name))
		return err
	}))
	return names
}

// drafts are what is there of unfinished files.
func (g ground) drafts(t testing.TB) []string {
	t.Helper()
	var names []string
	require.NoError(t, filepath.WalkDir(g.root, func(path string, entry os.DirEntry, err error) error {
		name, _ := filepath.Rel(g.root, path)
		switch {
		case err != nil:
			return err
		case g.s3 == nil && !entry.IsDir() && strings.HasPrefix(entry.Name(), "."):
			names = append(names, name)
		case g.s3 != nil && entry.IsDir() && uploadFolder.MatchString(name):
			names = append(names, name)
		}
		return nil
	}))
	return names
}

// uploadFolder is how versitygw keeps a multipart upload: .sgwtmp/multipart/<hash of the name>/<upload>.
var uploadFolder = regexp.MustCompile(`^\.sgwtmp/multipart/[^/]+/[^/]+$`)

// versions is the part of a name that counts backfills.
var versions = regexp.MustCompile(`^(.*)/v(\d{4})/`)

// rows are the rows of a table's newest version, with the columns of all its files.
func (g ground) rows(t testing.TB, table string) []json.RawMessage {
	t.Helper()
	newest := ""
	byVersion := map[string][]string{}
	for _, name := range g.files(t) {
		if m := versions.FindStringSubmatch(name); m != nil && m[1] == table {
			byVersion[m[2]] = append(byVersion[m[2]], name)
			newest = max(newest, m[2])
		}
	}
	var all []map[string]any
	columns := map[string]bool{}
	slices.Sort(byVersion[newest])
	for _, name := range byVersion[newest] {
		for _, row := range readFile(t, filepath.Join(g.root, filepath.FromSlash(name))) {
			for c := range row {
				columns[c] = true
			}
			all = append(all, row)
		}
	}
	var out []json.RawMessage
	for _, row := range all {
		for c := range columns {
			if _, ok := row[c]; !ok {
				row[c] = nil
			}
		}
		raw, err := json.Marshal(row)
		require.NoError(t, err)
		out = append(out, raw)
	}
	return out
}

// readFile reads a Parquet file with a library's own reader, which decodes columns of JSON.
func readFile(t testing.TB, path string) []map[string]any {
	t.Helper()
	rows, err := parquet.ReadFile[any](path)
	require.NoError(t, err, path)
	var out []map[string]any
	for _, r := range rows {
		row := r.(map[string]any)
		for name, value := range row {
			if text, ok := value.([]byte); ok {
				row[name] = string(text)
			}
		}
		out = append(out, row)
	}
	return out
}

func (g ground) sinkCase() sinktest.Case {
	return sinktest.Case{
		Start:      startProcess,
		Config:     g.config(nil),
		AppendOnly: true,
		Resource: func(table string, _ bool) json.RawMessage {
			raw, _ := json.Marshal(map[string]any{"path": table})
			return raw
		},
		Rows: g.rows,
	}
}
