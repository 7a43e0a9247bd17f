package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
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
	s3      *server.S3Server // nil for a folder
	bucket  string
	staging string // of a bucket, empty if not set
	root    string // of a folder
}

func newFolderGround(t testing.TB) ground {
	t.Helper()
	return ground{root: t.TempDir()}
}

func newBucketGround(t testing.TB) ground {
	t.Helper()
	s3 := server.S3(t)
	return ground{s3: s3, bucket: s3.NewBucket(t)}
}

// newObjectsGround is a bucket in which files wait as objects.
func newObjectsGround(t testing.TB) ground {
	t.Helper()
	g := newBucketGround(t)
	g.staging = stagedObjects
	return g
}

// config is an endpoint configuration; change may alter it.
func (g ground) config(change func(map[string]any)) json.RawMessage {
	c := map[string]any{"bucket": "file://" + g.root, "uploadInterval": "0s"}
	if g.s3 != nil {
		c = map[string]any{
			"bucket": g.bucket, "endpoint": g.s3.Endpoint(), "uploadInterval": "0s",
			"credentials": map[string]any{"accessKeyId": server.S3AccessKey, "secretAccessKey": server.S3SecretKey},
		}
		if g.staging != "" {
			c["advanced"] = map[string]any{"staging": g.staging}
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

// client is one for looking at a bucket as anybody else does.
func (g ground) client(t testing.TB) *s3.Client {
	t.Helper()
	client, err := newClient(t.Context(), g.parsed(t, nil))
	require.NoError(t, err)
	return client
}

// objects are the names of all objects of a bucket, of finished files and of those that wait.
func (g ground) objects(t testing.TB) (finished, waiting []string) {
	t.Helper()
	pages := s3.NewListObjectsV2Paginator(g.client(t), &s3.ListObjectsV2Input{Bucket: &g.bucket})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, o := range page.Contents {
			if strings.Contains(*o.Key, stagingFolder) {
				require.False(t, strings.HasSuffix(*o.Key, ".parquet"), "readers that look everywhere")
				waiting = append(waiting, *o.Key)
			} else {
				finished = append(finished, *o.Key)
			}
		}
	}
	return finished, waiting
}

// files are the names of all finished files; hidden ones are no files.
func (g ground) files(t testing.TB) []string {
	t.Helper()
	if g.s3 != nil {
		names, _ := g.objects(t)
		return names
	}
	var names []string
	require.NoError(t, filepath.WalkDir(g.root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		name, err := filepath.Rel(g.root, path)
		names = append(names, filepath.ToSlash(name))
		return err
	}))
	return names
}

// read is what a file has in it.
func (g ground) read(t testing.TB, name string) []byte {
	t.Helper()
	if g.s3 == nil {
		content, err := os.ReadFile(filepath.Join(g.root, filepath.FromSlash(name)))
		require.NoError(t, err)
		return content
	}
	object, err := g.client(t).GetObject(t.Context(), &s3.GetObjectInput{Bucket: &g.bucket, Key: &name})
	require.NoError(t, err, name)
	defer object.Body.Close()
	content, err := io.ReadAll(object.Body)
	require.NoError(t, err)
	return content
}

// put is what somebody else does who writes a file.
func (g ground) put(t testing.TB, name, content string) {
	t.Helper()
	if g.s3 == nil {
		require.NoError(t, os.WriteFile(filepath.Join(g.root, filepath.FromSlash(name)), []byte(content), 0o600))
		return
	}
	_, err := g.client(t).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &g.bucket, Key: &name, Body: strings.NewReader(content)})
	require.NoError(t, err)
}

// drafts are what is there of unfinished files.
func (g ground) drafts(t testing.TB) []string {
	t.Helper()
	if g.s3 != nil {
		uploads, err := g.s3.Uploads()
		require.NoError(t, err)
		_, waiting := g.objects(t)
		return append(uploads, waiting...)
	}
	var names []string
	require.NoError(t, filepath.WalkDir(g.root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasPrefix(entry.Name(), ".") {
			names = append(names, path)
		}
		return err
	}))
	return names
}

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
		for _, row := range readFile(t, name, g.read(t, name)) {
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
func readFile(t testing.TB, name string, content []byte) []map[string]any {
	t.Helper()
	rows, err := parquet.Read[any](bytes.NewReader(content), int64(len(content)))
	require.NoError(t, err, name)
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
