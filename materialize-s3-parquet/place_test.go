package main

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/fault"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// parsed is a ground's configuration as the connector sees it.
func (g ground) parsed(t testing.TB, change func(map[string]any)) config {
	t.Helper()
	cfg, err := schema.Parse[config](g.config(change), "the configuration")
	require.NoError(t, err)
	require.NoError(t, cfg.Validate())
	return cfg
}

func (g ground) place(t testing.TB) place {
	t.Helper()
	p, err := openPlace(t.Context(), g.parsed(t, nil))
	require.NoError(t, err)
	return p
}

// everywhere runs a test against a folder, and against a bucket with files that wait as uploads and as objects.
func everywhere(t *testing.T, test func(t *testing.T, g ground)) {
	t.Helper()
	t.Run("folder", func(t *testing.T) { t.Parallel(); test(t, newFolderGround(t)) })
	t.Run("bucket", func(t *testing.T) { t.Parallel(); test(t, newBucketGround(t)) })
	t.Run("objects", func(t *testing.T) { t.Parallel(); test(t, newObjectsGround(t)) })
}

func sealed(t testing.TB, p place, name string, content []byte) file {
	t.Helper()
	d, err := p.create(t.Context(), name)
	require.NoError(t, err)
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 3<<20)
		require.NoError(t, d.write(t.Context(), rest[:n]))
		rest = rest[n:]
	}
	f, err := d.seal(t.Context())
	require.NoError(t, err)
	f.Path, f.Rows = "t", 3
	return f
}

// Files of every size around those of parts: smaller than stores allow for a part, exactly one or two parts, and beyond.
func TestSizesOfFiles(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		p := g.place(t)
		for i, size := range []int{1, 5 << 20, partSize - 1, partSize, partSize + 1, 2 * partSize, 2*partSize + 7} {
			content := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
			name := fmt.Sprintf("a/b/%d.parquet", i)
			f := sealed(t, p, name, content)
			require.EqualValues(t, size, f.Bytes)
			require.NotContains(t, g.files(t), name, "invisible before it is finished")
			// The state is all that the next session has.
			raw, err := json.Marshal(f)
			require.NoError(t, err)
			var restored file
			require.NoError(t, json.Unmarshal(raw, &restored))
			require.NoError(t, g.place(t).finish(t.Context(), restored))
			require.True(t, bytes.Equal(content, g.read(t, name)), "size %d", size)
		}
		require.Empty(t, g.drafts(t))
	})
}

// Completing twice does nothing (hard case 59), also when the first answer was lost.
func TestFinishTwice(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		f := sealed(t, g.place(t), "x/1.parquet", []byte("content"))
		for range 3 {
			require.NoError(t, g.place(t).finish(t.Context(), f))
		}
		// Stores differ in what they say of an upload that is completed; some do not know it any more.
		f.Draft = "forgotten"
		require.NoError(t, g.place(t).finish(t.Context(), f))
		require.Equal(t, []string{"x/1.parquet"}, g.files(t))
		f.Token, f.Sum = "another", f.Sum+1
		require.ErrorContains(t, g.place(t).finish(t.Context(), f), "which this materialization has not written")
	})
}

// What was committed and removed before it was completed is an error that names the file and says what to do; only for a table
// that is about to be replaced it is left out.
func TestVanishedDraft(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		p := g.place(t)
		f := sealed(t, p, "x/1.parquet", []byte("content"))
		n, err := p.sweep(t.Context(), "x/", func(name, draft string) bool { return name == f.Name && draft == f.Draft })
		require.NoError(t, err)
		require.Equal(t, 1, n)
		s := &store{cfg: g.parsed(t, nil), place: p, log: quiet()}
		err = s.Apply(t.Context(), work{Files: []file{f}})
		require.Equal(t, "The file x/1.parquet of "+p.url()+" was written and committed, but before it could be completed somebody removed what was uploaded of it, perhaps a rule that cleans up incomplete uploads or temporary files. Its 3 rows are missing. If bucket or endpoint were changed meanwhile, change them back; otherwise increase the backfill counter of the binding with path \"t\", which writes the table anew.",
			usererr.Message(err))
		s.tables = []*table{{path: "t", leaving: true}}
		require.NoError(t, s.Apply(t.Context(), work{Files: []file{f}}))
	})
}

// A store that crashed while it completed an upload may say ever after that it is complete, and not have it. That is no success: it is
// tried again, and comes out right when the store was mended.
func TestCompletedByNobody(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	if g.s3.Kind() != server.VersityGW {
		t.Skip("a mistake of versitygw's")
	}
	f := sealed(t, g.place(t), "x/1.parquet", []byte("content"))
	uploads := g.drafts(t)
	require.Len(t, uploads, 1)
	// As versitygw leaves it: the name has what the entity tag of the whole will be.
	tag, err := hex.DecodeString(strings.Trim(f.Parts[0], `"`))
	require.NoError(t, err)
	require.NoError(t, os.Rename(uploads[0], fmt.Sprintf("%s.%x-1.inprogress", uploads[0], md5.Sum(tag))))
	for range 2 {
		require.Equal(t, "s3://"+g.bucket+" says that x/1.parquet is complete, but does not give it back. It will be tried again.",
			usererr.Message(g.place(t).finish(t.Context(), f)))
	}
	g.s3.Stop()
	g.s3.Start(t)
	require.NoError(t, g.place(t).finish(t.Context(), f))
	require.Equal(t, []string{"x/1.parquet"}, g.files(t))
	require.Empty(t, g.drafts(t))
}

// A name that is taken by something else is never overwritten: not when the file begins, and not when it is finished.
func TestForeignFile(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		p := g.place(t)
		finished := sealed(t, p, "x/1.parquet", []byte("content"))
		require.NoError(t, p.finish(t.Context(), finished))
		d, err := p.create(t.Context(), "x/1.parquet")
		if err == nil { // a bucket looks when something is to be sent
			require.NoError(t, d.write(t.Context(), []byte("other")))
			_, err = d.seal(t.Context())
			d.discard()
		}
		require.ErrorContains(t, err, "There is a file x/1.parquet in "+p.url()+" already")

		late := sealed(t, p, "x/2.parquet", []byte("ours"))
		g.put(t, "x/2.parquet", "theirs")
		require.ErrorContains(t, p.finish(t.Context(), late), "which this materialization has not written")
		require.Equal(t, "theirs", string(g.read(t, "x/2.parquet")))
	})
}

// Files are finished where the state says that they are, whatever the configuration says by then.
func TestFinishElsewhere(t *testing.T) {
	t.Parallel()
	from, to := newBucketGround(t), newFolderGround(t)
	f := sealed(t, from.place(t), "old/prefix/1.parquet", []byte("content"))
	other := from
	other.bucket = from.s3.NewBucket(t)
	cfg := other.parsed(t, func(c map[string]any) { c["prefix"] = "new/%Y" })
	p, err := openPlace(t.Context(), cfg)
	require.NoError(t, err)
	s := &store{cfg: cfg, place: p, log: quiet()}
	require.NoError(t, s.Apply(t.Context(), work{Files: []file{f}}))
	require.Equal(t, []string{"old/prefix/1.parquet"}, from.files(t))

	f = sealed(t, to.place(t), "1.parquet", []byte("content"))
	require.NoError(t, s.Apply(t.Context(), work{Files: []file{f}}), "a folder of before")
	require.Equal(t, []string{"1.parquet"}, to.files(t))
}

// Crashes of a folder's finish: after the link, and after everything but before the state knew.
func TestFolderFinishedHalfway(t *testing.T) {
	t.Parallel()
	g := newFolderGround(t)
	p := g.place(t)
	f := sealed(t, p, "x/1.parquet", []byte("content"))
	require.NoError(t, os.Link(filepath.Join(g.root, "x", f.Draft), filepath.Join(g.root, "x", "1.parquet")))
	require.NoError(t, p.finish(t.Context(), f))
	require.Empty(t, g.drafts(t))
	g.put(t, "x/1.parquet", "changed")
	require.ErrorContains(t, p.finish(t.Context(), f), "already")
}

// What cannot be committed any more is removed. What a newer instance may be writing, other ranges, other tasks and what the
// state lists stay.
func TestSweep(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		p := g.place(t)
		keys := materialize.KeyRange{Begin: 0, End: 0x7fffffff}
		names := newNamer(config{Prefix: "raw/%Y"}, "acme/one", keys)
		write := func(n namer, number uint64) file {
			name, err := n.file(n.tableFolder("t", 0, time.Now()), number, 1)
			require.NoError(t, err)
			return sealed(t, p, name, []byte("content"))
		}
		abandoned := write(names, 3)
		pending := write(names, 4)
		newer := write(names, 5)
		otherRange := write(newNamer(config{Prefix: "raw/%Y"}, "acme/one", materialize.KeyRange{Begin: 0x80000000, End: 0xffffffff}), 3)
		otherTask := write(newNamer(config{Prefix: "raw/%Y"}, "acme/two", keys), 3)
		s := &store{place: p, names: names, log: quiet()}
		require.NoError(t, s.Resume(t.Context(), map[materialize.KeyRange]uint64{keys: 4}, []work{{Files: []file{pending}}}))
		require.Len(t, g.drafts(t), 4)
		for _, f := range []file{pending, newer, otherRange, otherTask} {
			require.NoError(t, p.finish(t.Context(), f))
		}
		var gone *goneError
		require.ErrorAs(t, p.finish(t.Context(), abandoned), &gone)
	})
}

// The check proves that files can be written, and leaves nothing behind.
func TestProbe(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T, g ground) {
		require.NoError(t, g.place(t).probe(t.Context()))
		require.Empty(t, g.files(t))
		require.Empty(t, g.drafts(t))
	})
	g := newFolderGround(t)
	p := newFolder(filepath.Join(g.root, "not", "yet"))
	require.NoError(t, p.probe(t.Context()))
	require.NoFileExists(t, p.root)
}

// An upload that hangs is noticed and made again; a store that was away for a moment costs nothing.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	proxy := fault.NewProxy(t, g.s3.Address())
	cfg := g.parsed(t, func(c map[string]any) {
		c["endpoint"], c["advanced"] = "http://"+proxy.Address(), map[string]any{"requestTimeout": "1s"}
	})
	p, err := openPlace(t.Context(), cfg)
	require.NoError(t, err)
	d, err := p.create(t.Context(), "1.parquet")
	require.NoError(t, err)
	content := make([]byte, partSize+1)
	require.NoError(t, d.write(t.Context(), content[:10]))
	proxy.Freeze()
	thaw := time.AfterFunc(1500*time.Millisecond, func() { proxy.Cut(); proxy.Thaw() })
	defer thaw.Stop()
	require.NoError(t, d.write(t.Context(), content[10:]))
	f, err := d.seal(t.Context())
	require.NoError(t, err)
	g.s3.Stop()
	start := time.AfterFunc(500*time.Millisecond, func() { g.s3.Start(t) })
	defer start.Stop()
	require.NoError(t, p.finish(t.Context(), f))
	require.Equal(t, []string{"1.parquet"}, g.files(t))
}

// What users can cause is said in words that name it, and never shows a secret.
func TestStoreErrors(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	login := func(id, secret string) func(map[string]any) {
		return func(c map[string]any) {
			c["credentials"] = map[string]any{"accessKeyId": id, "secretAccessKey": secret}
		}
	}
	at := g.s3.Endpoint()
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		want   string
	}{
		{"bucket", func(c map[string]any) { c["bucket"] = "nowhere" }, `There is no bucket "nowhere" at ` + at + `. Create it, or correct the configuration.`},
		{"secret", login("sluice", "top-secret"), at + " does not accept the secret access key. Check credentials.secretAccessKey."},
		{"key", login("somebody", "top-secret"), at + " does not know the access key. Check credentials.accessKeyId, and that the endpoint is the right one."},
		{"region", func(c map[string]any) { c["region"] = "eu-north-1" }, fmt.Sprintf("Bucket %q is not in region \"eu-north-1\", or not at this endpoint. Set region to the bucket's own.", g.bucket)},
		{"port", func(c map[string]any) { c["endpoint"] = "http://127.0.0.1:1" }, "http://127.0.0.1:1 does not accept connections. Check the endpoint, and that the store is running."},
		{"host", func(c map[string]any) {
			c["endpoint"], c["advanced"] = "http://nowhere.invalid", map[string]any{"pathStyle": true}
		}, `The host "nowhere.invalid" cannot be found. Check endpoint and region.`},
	} {
		if c.name == "region" && g.s3.Kind() == server.MinIO {
			continue // which it does not look at
		}
		cfg := g.parsed(t, c.change)
		p, err := openPlace(t.Context(), cfg)
		require.NoError(t, err)
		err = p.probe(t.Context())
		require.Equal(t, c.want, usererr.Message(err), c.name)
		require.NotContains(t, err.Error(), "top-secret")
	}
}

func TestFolderErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.ENOSPC, "The disk of /data is full, or its quota is used up. Free or add space; nothing was committed and the transaction will be repeated."},
		{syscall.EDQUOT, "The disk of /data is full, or its quota is used up. Free or add space; nothing was committed and the transaction will be repeated."},
		{syscall.EACCES, "The folder /data cannot be written to. Give the user that the connector runs as the right to read and write there; in a container, mount the folder."},
		{syscall.EROFS, "The folder /data is on a file system that is read-only."},
	} {
		require.Equal(t, c.want, usererr.Message(explainFolder(&fs.PathError{Op: "write", Path: "/data/x", Err: c.err}, "/data")))
	}
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.Equal(t, "A part of "+file+"/x is a file, not a folder.", usererr.Message(newFolder(file+"/x").probe(t.Context())))
	require.NoError(t, explainStore(nil, config{}, ""))
	require.ErrorIs(t, explainStore(context.Canceled, config{}, ""), context.Canceled)
	require.Error(t, errors.Unwrap(explainFolder(syscall.ENOSPC, "x")))
}

func quiet() *logrus.Entry {
	log := logrus.New()
	log.SetOutput(&strings.Builder{})
	return logrus.NewEntry(log)
}

// Some stores answer the second completion of an upload with an error. What counts is the object that is there; without one
// the same answer means that the file is gone.
func TestStoresThatForgetUploads(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	g.staging = stagedUploads
	gate, endpoint := newGate(t, g.s3.Endpoint())
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`<Error><Code>NoSuchUpload</Code><Message>There is no such upload.</Message></Error>`))
			return
		}
		gate.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	at := func(endpoint string) place {
		p, err := openPlace(t.Context(), g.parsed(t, func(c map[string]any) { c["endpoint"] = endpoint }))
		require.NoError(t, err)
		return p
	}
	done, waiting := sealed(t, at(endpoint), "1.parquet", []byte("content")), sealed(t, at(endpoint), "2.parquet", []byte("content"))
	require.NoError(t, at(endpoint).finish(t.Context(), done))
	require.NoError(t, at(front.URL).finish(t.Context(), done))
	var gone *goneError
	require.ErrorAs(t, at(front.URL).finish(t.Context(), waiting), &gone)
}

// A store may answer that all is well and mean an error, ask for patience, or complete an upload and not get to say so. The file is
// complete in the end.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	g.staging = stagedUploads
	gate, _ := newGate(t, g.s3.Endpoint())
	for name, answer := range map[string]http.HandlerFunc{
		"an error with status 200": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`<?xml version="1.0" encoding="UTF-8"?>` + "\n   " + `<Error><Code>InternalError</Code><Message>Please try again.</Message></Error>`))
		},
		"SlowDown": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`))
		},
		"a lost answer": func(_ http.ResponseWriter, r *http.Request) {
			gate.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var completions atomic.Int32
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && completions.Add(1) == 1 {
					answer(w, r)
					return
				}
				gate.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			p, err := openPlace(t.Context(), g.parsed(t, func(c map[string]any) { c["endpoint"] = front.URL }))
			require.NoError(t, err)
			f := sealed(t, p, name+"/1.parquet", []byte("content"))
			require.NoError(t, p.finish(t.Context(), f))
			require.EqualValues(t, 2, completions.Load())
			require.NoError(t, g.place(t).finish(t.Context(), f))
		})
	}
}

// A request of a session that was killed may be completing an upload while the next session asks for the same. MinIO says that
// parts are missing then.
func TestUploadThatIsBeingCompleted(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	g.staging = stagedUploads
	gate, _ := newGate(t, g.s3.Endpoint())
	var completing *http.Request
	looks := 0
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && r.URL.Query().Has("uploadId"):
			body, _ := io.ReadAll(r.Body)
			completing = r.Clone(context.WithoutCancel(r.Context()))
			completing.Body = io.NopCloser(bytes.NewReader(body))
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`<Error><Code>InvalidPart</Code><Message>Specified part could not be found.</Message></Error>`))
			return
		case r.Method == http.MethodHead && completing != nil:
			if looks++; looks == 3 {
				gate.ServeHTTP(httptest.NewRecorder(), completing)
			}
		}
		gate.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	p, err := openPlace(t.Context(), g.parsed(t, func(c map[string]any) { c["endpoint"] = front.URL }))
	require.NoError(t, err)
	require.NoError(t, p.finish(t.Context(), sealed(t, p, "1.parquet", []byte("content"))))
	require.Equal(t, []string{"1.parquet"}, g.files(t))
	require.Equal(t, 3, looks)
}

// Where the configuration says nothing, the store decides how files wait.
func TestStoresDecideHowFilesWait(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	gate, _ := newGate(t, g.s3.Endpoint())
	gate.proxy.ModifyResponse = func(r *http.Response) error { r.Header.Set("Server", "MinIO"); return nil }
	front := httptest.NewServer(gate)
	t.Cleanup(front.Close)
	waitsAsObject := func(change func(map[string]any)) bool {
		p, err := openPlace(t.Context(), g.parsed(t, change))
		require.NoError(t, err)
		f := sealed(t, p, "a b+c/1%.parquet", []byte("content"))
		require.NoError(t, p.finish(t.Context(), f))
		require.Equal(t, []string{"a b+c/1%.parquet"}, g.files(t))
		require.Empty(t, g.drafts(t))
		_, err = g.client(t).DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &g.bucket, Key: &f.Name})
		require.NoError(t, err)
		return f.isObject()
	}
	require.Equal(t, g.s3.Kind() == server.MinIO, waitsAsObject(nil))
	require.True(t, waitsAsObject(func(c map[string]any) { c["endpoint"] = front.URL }))
	require.False(t, waitsAsObject(func(c map[string]any) { c["endpoint"], c["fileSizeLimit"] = front.URL, maxStaged+1 }), "too large to be copied")
	require.False(t, waitsAsObject(func(c map[string]any) {
		c["endpoint"], c["advanced"] = front.URL, map[string]any{"staging": stagedUploads}
	}))
}
