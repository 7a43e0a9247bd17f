package sdk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWritingASource puts the program of docs/writing-a-source.md together, and runs it and its conformance test.
func TestWritingASource(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	page, err := os.ReadFile("../docs/writing-a-source.md")
	if os.IsNotExist(err) {
		t.Skip("the page is not here: this is a build of three folders")
	}
	require.NoError(t, err)
	var program, test strings.Builder
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		if strings.Contains(block[1], "testing.T") {
			test.WriteString(block[1])
		} else {
			program.WriteString(block[1])
		}
	}
	sums, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	module, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	// The sdk's own go.mod names every version that is needed, so that nothing is looked up.
	requires := strings.Replace(string(module), "module github.com/sluicedata/sluice/sdk", "module github.com/sluicedata/sluice/source-hello", 1)
	requires = strings.Replace(requires, "=> ../protocol", "=> "+filepath.Dir(here)+"/protocol", 1)
	requires += "\nrequire github.com/sluicedata/sluice/sdk v0.0.0\nreplace github.com/sluicedata/sluice/sdk => " + here + "\n"

	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": requires, "go.sum": string(sums), "main.go": program.String(), "main_test.go": test.String(), "c.yaml": "rate: 1000\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	run := func(program string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s %s: %s", program, strings.Join(args, " "), out)
		return string(out)
	}
	run("go", "vet", ".")
	run("go", "build", "-o", "hello", ".")
	require.Regexp(t, `^\{"n":0,"at":"[^"]+"\}\n\{"n":1,`, run(filepath.Join(dir, "hello"), "pull", "--config", "c.yaml", "--limit", "3"))
	run("go", "test", ".", "-update")
	run("go", "test", ".")
}
