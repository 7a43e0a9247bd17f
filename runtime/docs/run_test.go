package docs

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/duckdb"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

const (
	root     = "../.."
	patience = 90 * time.Second // for one block, repeats included
)

// TestPages runs the documentation.
func TestPages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs a Postgres server; run without -short")
	}
	bin := buildBinaries(t)
	for _, path := range pages(t) {
		blocks := blocksOf(t, path)
		if len(blocks) == 0 {
			continue
		}
		name, err := filepath.Rel(root, path)
		require.NoError(t, err)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run := newReader(t, bin)
			for _, b := range blocks {
				run.follow(t, name, b)
			}
			run.interrupt(t)
		})
	}
}

// pages lists README.md, CONTRIBUTING.md and what is below docs/.
func pages(t *testing.T) []string {
	t.Helper()
	found := []string{filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md")}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			found = append(found, path)
		}
		return err
	})
	require.NoError(t, err)
	return found
}

// buildBinaries builds what `make build` builds, into a folder of this test.
func buildBinaries(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	connectors, err := filepath.Glob(filepath.Join(root, "*-*", "go.mod"))
	require.NoError(t, err)
	args := []string{"build", "-o", bin, "./runtime/cmd/sluice"}
	for _, path := range connectors {
		args = append(args, "./"+filepath.Base(filepath.Dir(path)))
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

// reader does what a page says.
type reader struct {
	dir     string
	address *strings.Replacer
	env     []string
	runtime *background // nil before `sluice run`
}

// newReader prepares a folder that looks like a clone after `make build`, and the server of scripts/services up.
func newReader(t *testing.T, bin string) *reader {
	t.Helper()
	pg := server.Postgres(t)
	sql, err := os.ReadFile(filepath.Join(root, "scripts", "playground.sql"))
	require.NoError(t, err)
	pg.Exec(t, "CREATE DATABASE source", "CREATE DATABASE destination")
	pg.ExecIn(t, "source", string(sql))

	dir, fake := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(bin, filepath.Join(dir, "bin")))
	require.NoError(t, os.WriteFile(filepath.Join(fake, "make"), []byte(makeScript(t)), 0o755))
	db, err := duckdb.Find()
	require.NoError(t, err)
	path := strings.Join([]string{fake, filepath.Dir(psql(t, pg)), filepath.Dir(db), os.Getenv("PATH")}, ":")
	return &reader{
		dir: dir,
		address: strings.NewReplacer("127.0.0.1:54329", pg.Address(), "localhost:54329", pg.Address(),
			"-p 54329", fmt.Sprintf("-p %d", pg.Port())),
		env: append(os.Environ(), "PATH="+path, "HOME="+dir, "CI=true"),
	}
}

func psql(t *testing.T, pg *server.PostgresServer) string {
	t.Helper()
	path, err := pg.Installation().Psql()
	require.NoError(t, err)
	return path
}

// makeScript is a make that succeeds for every target that the Makefile has.
func makeScript(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllSubmatch(text, -1) {
		targets = append(targets, string(m[1]))
	}
	return "#!/bin/sh\nfor arg; do case $arg in *=*|" + strings.Join(targets, "|") + ") ;; *) echo \"no target $arg\" >&2; exit 2 ;; esac; done\n"
}

// follow runs one block; once the runtime runs, it is repeated until it succeeds.
func (r *reader) follow(t *testing.T, page string, b block) {
	t.Helper()
	if b.notRun != "" {
		return
	}
	script := r.address.Replace(b.script)
	if line, ok := runLine(script); ok {
		require.Nil(t, r.runtime, "%s:%d starts the runtime a second time", page, b.line)
		r.runtime = r.start(t, line)
		return
	}
	deadline := time.Now().Add(patience)
	for {
		out, err := r.shell(t.Context(), script)
		switch {
		case err == nil && (b.prints == nil || b.prints.MatchString(out)):
			return
		case r.runtime != nil && r.runtime.alive() && time.Now().Before(deadline):
			<-time.After(200 * time.Millisecond) // the pipeline is on its way
		default:
			require.NoError(t, err, "%s:%d:\n%s\nprinted:\n%s\n%s", page, b.line, script, out, r.runtime.said())
			require.Regexp(t, b.prints, out, "%s:%d:\n%s\n%s", page, b.line, script, r.runtime.said())
		}
	}
}

// runLine finds the block that is nothing but `bin/sluice run …`.
func runLine(script string) (string, bool) {
	line := strings.TrimSpace(script)
	return line, strings.HasPrefix(line, "bin/sluice run ") && !strings.Contains(line, "\n")
}

func (r *reader) shell(ctx context.Context, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = r.dir, r.env
	// What the shell has started ends with it; it would hold the output open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A command that does not end is ended, with all that it has started.
func TestCommandsEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := (&reader{dir: t.TempDir(), env: os.Environ()}).shell(ctx, "sleep 60; true")
	require.Error(t, err)
	require.Less(t, time.Since(began), 30*time.Second)
}

// background is a `sluice run` in its second terminal.
type background struct {
	cmd  *exec.Cmd
	out  bytes.Buffer // to be read when done is closed
	done chan struct{}
	err  error
}

func (r *reader) start(t *testing.T, line string) *background {
	t.Helper()
	b := &background{done: make(chan struct{})}
	b.cmd = exec.CommandContext(context.Background(), "bash", "-c", "exec "+line)
	b.cmd.Dir, b.cmd.Env, b.cmd.Stdout, b.cmd.Stderr = r.dir, r.env, &b.out, &b.out
	require.NoError(t, b.cmd.Start())
	go func() {
		defer close(b.done)
		b.err = b.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		<-b.done
	})
	return b
}

func (b *background) alive() bool {
	select {
	case <-b.done:
		return false
	default:
		return true
	}
}

// said is what the runtime printed; it is ended for that.
func (b *background) said() string {
	if b == nil {
		return ""
	}
	_ = b.cmd.Process.Kill()
	<-b.done
	return "sluice run printed:\n" + b.out.String()
}

// interrupt is the reader's Ctrl-C at the end of the page.
func (r *reader) interrupt(t *testing.T) {
	t.Helper()
	if r.runtime == nil {
		return
	}
	require.NoError(t, r.runtime.cmd.Process.Signal(syscall.SIGINT))
	select {
	case <-r.runtime.done:
		require.NoError(t, r.runtime.err, "sluice run printed:\n%s", &r.runtime.out)
	case <-time.After(patience):
		t.Errorf("sluice run did not end after SIGINT\n%s", r.runtime.said())
	}
}
