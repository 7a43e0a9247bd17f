package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/scaffold"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// clone is what a new connector needs of a repository.
func clone(t *testing.T) string {
	t.Helper()
	root, dir := "../..", t.TempDir()
	for _, name := range []string{"go.work", ".github/dependabot.yml"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	for _, name := range []string{"sdk", "protocol"} {
		target, err := filepath.Abs(filepath.Join(root, name))
		require.NoError(t, err)
		require.NoError(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	return dir
}

// What is written builds, is formatted, and passes its tests, the conformance suite among them, as it is.
func TestNewSource(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	root := clone(t)
	written, err := scaffold.Write(filepath.Join(root, "docs"), "source-acme-crm")
	require.NoError(t, err)
	for _, path := range []string{"go.mod", "go.sum", "main.go", "main_test.go", "README.md", "CHANGELOG.md", "VERSION", "testdata/golden/TestConformance/spec.json"} {
		require.Contains(t, written, filepath.Join("source-acme-crm", path))
	}
	for path, want := range map[string]string{
		"go.work": "\t./source-acme-crm\n", ".github/dependabot.yml": "/source-acme-crm,",
		"docs/connectors/source-acme-crm.md": "# source-acme-crm\n", "source-acme-crm/main.go": `Title: "Acme Crm"`,
	} {
		require.Contains(t, written, path)
		text, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		require.Contains(t, string(text), want)
		require.NotContains(t, string(text), "{{")
	}
	run := func(program string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Env = filepath.Join(root, "source-acme-crm"), append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s %s: %s", program, strings.Join(args, " "), out)
		return string(out)
	}
	require.Empty(t, run("gofmt", "-l", "."))
	run("go", "vet", ".")
	run("go", "test", ".")
	program, err := os.ReadFile(filepath.Join(root, "source-acme-crm", "main.go"))
	require.NoError(t, err)
	require.Less(t, strings.Count(string(program), "\n"), 150, "a source is short")

	_, err = scaffold.Write(root, "source-acme-crm")
	require.Equal(t, "There is source-acme-crm already. Choose another name, or remove it.", usererr.Message(err))
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"foo", "source-", "source-Foo", "source-foo/../bar", "destination-foo"} {
		_, err := scaffold.Write(".", name)
		require.ErrorContains(t, err, "cannot be the name of a connector. Write source-NAME")
	}
	_, err := scaffold.Write(t.TempDir(), "source-foo")
	require.Equal(t, "A connector is a module of the repository: run this in a clone of it, in which there are go.work and sdk/.", usererr.Message(err))
}
