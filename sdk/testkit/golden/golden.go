// Package golden compares what a test produced with a file of the same test's making, which people have reviewed.
//
// The files live in testdata/golden of the package under test. Running its tests with -update rewrites them.
package golden

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Compare fails the test unless got is the content of testdata/golden/name.
func Compare(t testing.TB, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, got, 0o644)) //nolint:gosec // it is source
		return
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err, "make the golden file with: go test -run '^%s$' -update", t.Name())
	require.Equal(t, string(want), string(got), "if this is right, run: go test -run '^%s$' -update", t.Name())
}

// CompareJSON is Compare of JSON, indented so that a difference is one line.
func CompareJSON(t testing.TB, name string, got []byte) {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, json.Indent(&b, got, "", "  "))
	b.WriteByte('\n')
	Compare(t, name, b.Bytes())
}

// Scrubber replaces what differs from run to run.
type Scrubber struct {
	rules []rule
}

type rule struct {
	pattern     *regexp.Regexp
	replacement []byte
}

// Replace adds a rule: what the pattern matches becomes the replacement, in which $1 stands for the pattern's first group.
func (s *Scrubber) Replace(pattern, replacement string) *Scrubber {
	s.rules = append(s.rules, rule{regexp.MustCompile(pattern), []byte(replacement)})
	return s
}

// Times replaces RFC 3339 times by <time>.
func (s *Scrubber) Times() *Scrubber {
	return s.Replace(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`, "<time>")
}

// Scrub applies the rules in order. The zero Scrubber changes nothing.
func (s *Scrubber) Scrub(text []byte) []byte {
	if s == nil {
		return text
	}
	for _, r := range s.rules {
		text = r.pattern.ReplaceAll(text, r.replacement)
	}
	return text
}
