package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

// S3Server is a running object store with the S3 interface: versitygw, or another one that SLUICE_S3 names. Both keep a bucket as a
// folder. Its methods may be called from any goroutine that may fail t.
type S3Server struct {
	kind    s3Kind
	program string
	dir     string
	port    int

	mu      sync.Mutex
	running *s3Process
	buckets int
}

// The store's only user, and its region.
const (
	S3AccessKey = "sluice"
	S3SecretKey = "sluice-secret-key"
	S3Region    = "us-east-1"
)

// S3Kind is a product.
type S3Kind string

// What SLUICE_S3 may say; nothing is VersityGW.
const (
	VersityGW S3Kind = "versitygw" // objects are files
	MinIO     S3Kind = "minio"     // objects are folders in a format of its own
)

// s3Kind is what differs between products.
type s3Kind struct {
	name    S3Kind
	install string // what scripts/services calls it
	env     string // the variable that names a program
	uploads string // pattern of the folders of multipart uploads, below the server's own
	// command is what runs the program, and what its environment has besides.
	command func(s *S3Server) (args, env []string)
}

// s3Kinds are the products that are known.
func s3Kinds() []s3Kind {
	return []s3Kind{
		{
			name: VersityGW, install: "s3", env: "SLUICE_VERSITYGW", uploads: "buckets/*/.sgwtmp/multipart/*/*",
			command: func(s *S3Server) (args, env []string) {
				return []string{
					"--port", s.Address(), "--access", S3AccessKey, "--secret", S3SecretKey, "--region", S3Region,
					"posix", "--sidecar", filepath.Join(s.dir, "metadata"), filepath.Join(s.dir, "buckets"),
				}, nil
			},
		},
		{
			name: MinIO, install: "minio", env: "SLUICE_MINIO", uploads: "buckets/.minio.sys/multipart/*/*",
			command: func(s *S3Server) (args, env []string) {
				return []string{"server", "--quiet", "--address", s.Address(), "--console-address", "127.0.0.1:0", filepath.Join(s.dir, "buckets")},
					[]string{"MINIO_ROOT_USER=" + S3AccessKey, "MINIO_ROOT_PASSWORD=" + S3SecretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off"}
			},
		},
	}
}

// S3 starts an object store for this test; it is stopped and removed when the test ends.
func S3(t testing.TB) *S3Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an object store; run without -short")
	}
	kind, program, err := findS3()
	if err != nil {
		need.Missing(t, "%v", err)
	}
	dir := t.TempDir()
	s := &S3Server{kind: kind, program: program, dir: dir}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the end of the object store's log:\n%s", tail(string(text), 40))
		}
	})
	require.NoError(t, os.Mkdir(filepath.Join(dir, "buckets"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "metadata"), 0o755))
	for attempt := 0; ; attempt++ {
		s.port, err = cluster.FreePort()
		require.NoError(t, err)
		if err = s.start(); err == nil {
			return s
		}
		require.Less(t, attempt, 5, "%v", err)
	}
}

// HasS3 tells whether S3 would find a program, for tests that use an object store besides.
func HasS3() bool {
	_, _, err := findS3()
	return err == nil
}

// findS3 finds the program of the kind that SLUICE_S3 names.
func findS3() (s3Kind, string, error) {
	wanted := cmp.Or(S3Kind(os.Getenv("SLUICE_S3")), VersityGW)
	kinds := s3Kinds()
	at := slices.IndexFunc(kinds, func(k s3Kind) bool { return k.name == wanted })
	if at < 0 {
		return s3Kind{}, "", fmt.Errorf("SLUICE_S3 is %q, not %s or %s", wanted, VersityGW, MinIO)
	}
	kind := kinds[at]
	if program := os.Getenv(kind.env); program != "" {
		return kind, program, nil
	}
	for _, root := range cluster.CacheRoots() {
		program := filepath.Join(root, kind.install, string(kind.name))
		if info, err := os.Stat(program); err == nil && info.Mode()&0o111 != 0 {
			return kind, program, nil
		}
	}
	if program, err := exec.LookPath(string(kind.name)); err == nil {
		return kind, program, nil
	}
	return s3Kind{}, "", fmt.Errorf("no %s on this machine; run `scripts/services install %s`, or set %s to the program", kind.name, kind.install, kind.env)
}

// Kind is the product that runs.
func (s *S3Server) Kind() S3Kind { return s.kind.name }

// Address is "host:port".
func (s *S3Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// Endpoint is the URL that clients are configured with.
func (s *S3Server) Endpoint() string { return "http://" + s.Address() }

// NewBucket makes a bucket with a name of its own.
func (s *S3Server) NewBucket(t testing.TB) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets++
	name := fmt.Sprintf("bucket-%d", s.buckets)
	require.NoError(t, os.Mkdir(s.Folder(name), 0o755))
	return name
}

// Uploads are the folders of all multipart uploads that are neither complete nor aborted.
func (s *S3Server) Uploads() ([]string, error) {
	return filepath.Glob(filepath.Join(s.dir, filepath.FromSlash(s.kind.uploads)))
}

// Folder is where a bucket is. With versitygw objects are files there; what is not complete is in a hidden folder.
func (s *S3Server) Folder(bucket string) string { return filepath.Join(s.dir, "buckets", bucket) }

// Start starts a stopped server on the same address.
func (s *S3Server) Start(t testing.TB) {
	t.Helper()
	require.NoError(t, s.start())
}

// Restart is Start where a test cannot be ended.
func (s *S3Server) Restart() error { return s.start() }

// Stop kills the server, as a crash would. What it acknowledged stays.
func (s *S3Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		s.running.stop()
		s.running = nil
	}
}

// s3Process is one life of the server. It runs below a shell that ends it when our process is gone, however that ends.
type s3Process struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
	gone chan struct{}
}

const s3Script = `exec 3<&0
"$@" <&- 3<&- & pid=$!
read -r _ <&3 || true
kill -KILL $pid 2>/dev/null
wait $pid`

func (s *S3Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if err := s.mend(); err != nil {
		return fmt.Errorf("mending what a crash left: %w", err)
	}
	// No CommandContext: the server outlives the call that starts it.
	args, env := s.kind.command(s)
	cmd := exec.Command("sh", append([]string{"-c", s3Script, "sluice-s3", s.program}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	p := &s3Process{cmd: cmd, gone: make(chan struct{})}
	if p.pipe, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", s.kind.name, err)
	}
	go func() {
		defer close(p.gone)
		_ = cmd.Wait() // how it ended is in its log
	}()
	if err := s.waitReady(); err != nil {
		p.stop()
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return fmt.Errorf("starting %s: %w; its log says:\n%s", s.kind.name, err, tail(string(text), 20))
	}
	s.running = p
	return nil
}

// mend gives uploads whose completion a crash interrupted their names back. versitygw renames an upload while it completes it, and
// takes any upload with that name for one that another request is completing: it would answer for ever that all is well, and never
// make the object (https://github.com/versity/versitygw/pull/1993, as of v1.8.0).
func (s *S3Server) mend() error {
	for _, root := range []string{"buckets", "metadata"} {
		left, err := filepath.Glob(filepath.Join(s.dir, root, "*", ".sgwtmp", "multipart", "*", "*.inprogress"))
		if err != nil {
			return err
		}
		for _, name := range left {
			id, _, _ := strings.Cut(filepath.Base(name), ".")
			if err := os.Rename(name, filepath.Join(filepath.Dir(name), id)); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitReady polls until a request is refused for what it asks, and not because the server is not there yet.
func (s *S3Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", err)
		case <-poll.C:
		}
	}
}

func (s *S3Server) answers(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint(), http.NoBody)
	if err != nil {
		return err
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := res.Body.Close(); err != nil {
		return err
	}
	if res.StatusCode >= http.StatusInternalServerError {
		return errors.New(res.Status)
	}
	return nil
}

// stop kills the server and waits until it is gone.
func (p *s3Process) stop() {
	_ = p.pipe.Close()
	<-p.gone
}
