package scaffold_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	for _, name := range []string{"go.work", ".github/dependabot.yml", ".github/CODEOWNERS", "tools/site/mkdocs.yml"} {
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

// run runs a program in a module, outside of the workspace, and without looking anything up.
func run(t *testing.T, folder string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), "GOWORK=off", "GOPROXY=off")
	if filepath.IsAbs(folder) { // a new module; of the conformance suite of materializations, one codec is enough here
		cmd.Env = append(cmd.Env, "GOFLAGS=-mod=mod -skip=TestConformance/.*_json")
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", strings.Join(args, " "), out)
	return string(out)
}

// inspect wants all parts of a connector that was written into a clone. It is formatted, vetted, and its reference is what its program says.
func inspect(t *testing.T, root, connector, title string) {
	t.Helper()
	folder := filepath.Join(root, connector)
	for _, path := range []string{"go.mod", "go.sum", "README.md", "CHANGELOG.md", "VERSION"} {
		require.FileExists(t, filepath.Join(folder, path))
	}
	for path, want := range map[string]string{
		"go.work": "\t./" + connector + "\n", ".github/dependabot.yml": "/" + connector + ",",
		".github/CODEOWNERS":                   "/" + connector + "/ @sluicedata/maintainers\n",
		"tools/site/mkdocs.yml":                "      - " + connector + ": connectors/" + connector + ".md\n      - Every setting:\n",
		"docs/connectors/" + connector + ".md": "# " + connector + "\n",
		connector + "/main.go":                 `Title: "` + title + `"`, connector + "/main_test.go": "TestConformance",
	} {
		text, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		require.Contains(t, string(text), want)
		require.NotContains(t, string(text), "{{")
	}
	require.Empty(t, run(t, folder, "gofmt", "-l", "."))
	run(t, folder, "go", "vet", ".")
	run(t, folder, "go", "build", "-o", "connector", ".")
	require.NoError(t, os.WriteFile(filepath.Join(folder, "spec"), []byte(run(t, folder, "./connector", "spec")), 0o600))
	reference, err := os.ReadFile(filepath.Join(root, "docs/connectors/reference", connector+".md"))
	require.NoError(t, err)
	require.Equal(t, run(t, "../../tools", "sh", "-c", "exec go run ./configdoc "+connector+" < "+filepath.Join(folder, "spec")), string(reference))
}

// What is written builds, and passes its tests, the conformance suite among them, as it is.
func TestNewSource(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	root := clone(t)
	written, err := scaffold.Write(filepath.Join(root, "docs"), "source-acme-crm")
	require.NoError(t, err)
	for _, path := range []string{"go.work", "docs/connectors/source-acme-crm.md", "source-acme-crm/main.go", "source-acme-crm/testdata/golden/TestConformance/spec.json"} {
		require.Contains(t, written, path)
	}
	inspect(t, root, "source-acme-crm", "Acme Crm")
	run(t, filepath.Join(root, "source-acme-crm"), "go", "test", ".")
	program, err := os.ReadFile(filepath.Join(root, "source-acme-crm", "main.go"))
	require.NoError(t, err)
	require.Less(t, countLines(string(program)), 80, "a source is short")

	_, err = scaffold.Write(root, "source-acme-crm")
	require.Equal(t, "There is source-acme-crm already. Choose another name, or remove it.", usererr.Message(err))
}

// TestNewMaterialization runs the commands of docs/writing-a-materialization.md: `sluice new`, the tests of what it wrote, and `sluice test`.
func TestNewMaterialization(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	root := clone(t)
	page, err := os.ReadFile("../../docs/writing-a-materialization.md")
	require.NoError(t, err)
	script := "set -euo pipefail\n"
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		script += block[1]
	}
	run(t, "..", "go", "build", "-o", filepath.Join(root, "bin", "sluice"), "./cmd/sluice")
	require.Regexp(t, `(?s)\nmaterialize-acme/store.go\n.*\d+ rules hold, 0 errors, 0 warnings, 2 skipped\n$`, run(t, root, "bash", "-c", script))
	inspect(t, root, "materialize-acme", "Acme")
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"foo", "source-", "source-Foo", "source-foo/../bar", "destination-foo", "materialize-"} {
		_, err := scaffold.Write(".", name)
		require.ErrorContains(t, err, "cannot be the name of a connector. Write source-NAME or materialize-NAME, with")
	}
	_, err := scaffold.Write(t.TempDir(), "source-foo")
	require.Equal(t, "A connector is a module of the repository: run this in a clone of it, in which there are go.work and sdk/.", usererr.Message(err))
}
