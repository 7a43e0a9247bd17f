package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server/cluster"
)

// S3Server is a running object store with the S3 interface: versitygw, which keeps the objects of a bucket as files of a
// folder. Its methods may be called from any goroutine that may fail t.
type S3Server struct {
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

// errNoS3 says how to get the object store.
var errNoS3 = errors.New("no versitygw on this machine; run `scripts/services install s3`, or set SLUICE_VERSITYGW to the program")

// S3 starts an object store for this test; it is stopped and removed when the test ends.
func S3(t testing.TB) *S3Server {
	t.Helper()
	if testing.Short() {
		t.Skip("needs an object store; run without -short")
	}
	program, err := findS3()
	if err != nil {
		need.Missing(t, "%v", err)
	}
	dir := t.TempDir()
	s := &S3Server{program: program, dir: dir}
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
	_, err := findS3()
	return err == nil
}

func findS3() (string, error) {
	if program := os.Getenv("SLUICE_VERSITYGW"); program != "" {
		return program, nil
	}
	for _, root := range cluster.CacheRoots() {
		program := filepath.Join(root, "s3", "versitygw")
		if info, err := os.Stat(program); err == nil && info.Mode()&0o111 != 0 {
			return program, nil
		}
	}
	if program, err := exec.LookPath("versitygw"); err == nil {
		return program, nil
	}
	return "", errNoS3
}

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

// Folder is where the objects of a bucket are, as files. What is not complete is in a hidden folder.
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
		return fmt.Errorf("mending what a crash of versitygw left: %w", err)
	}
	// No CommandContext: the server outlives the call that starts it.
	cmd := exec.Command("sh", "-c", s3Script, "sluice-s3", s.program, "--port", s.Address(), "--access", S3AccessKey, "--secret", S3SecretKey,
		"--region", S3Region, "posix", "--sidecar", filepath.Join(s.dir, "metadata"), filepath.Join(s.dir, "buckets"))
	cmd.Stdout, cmd.Stderr = log, log
	p := &s3Process{cmd: cmd, gone: make(chan struct{})}
	if p.pipe, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting versitygw: %w", err)
	}
	go func() {
		defer close(p.gone)
		_ = cmd.Wait() // how it ended is in its log
	}()
	if err := s.waitReady(); err != nil {
		p.stop()
		text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
		return fmt.Errorf("starting versitygw: %w; its log says:\n%s", err, tail(string(text), 20))
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

// waitReady polls the port.
func (s *S3Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Address())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not listen: %w", err)
		case <-poll.C:
		}
	}
}

// stop kills the server and waits until it is gone.
func (p *s3Process) stop() {
	_ = p.pipe.Close()
	<-p.gone
}
