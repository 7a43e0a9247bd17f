// Package page reads what a page of the documentation tells people to run, so that tests can run it.
package page

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	block   = regexp.MustCompile("(?s)```sql\n(.*?)```")
	comment = regexp.MustCompile(`(?m)[ \t]*--.*$`)
)

// SQL gives the statements in the blocks marked sql of one section of a page: what follows the heading, such as "## Set up", up to the
// next of its level or above. Statements come in their order, without comments and semicolons; none of them may have either within a
// string. The replacements are pairs of a text on the page, such as a password that is left out, and what to put there. A page
// without the heading, or without a statement below it, fails the test.
func SQL(t testing.TB, path, heading string, replacements ...string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	require.True(t, found, "%s has no heading %q", path, heading)
	level := strings.IndexByte(heading, ' ')
	require.Positive(t, level, "%q is no heading", heading)
	if end := regexp.MustCompile(`(?m)^#{1,` + string(rune('0'+level)) + `} `).FindStringIndex(section); end != nil {
		section = section[:end[0]]
	}
	var statements []string
	for _, m := range block.FindAllStringSubmatch(section, -1) {
		for s := range strings.SplitSeq(comment.ReplaceAllString(m[1], ""), ";") {
			if s = strings.TrimSpace(s); s != "" {
				statements = append(statements, strings.NewReplacer(replacements...).Replace(s))
			}
		}
	}
	require.NotEmpty(t, statements, "%s has no SQL below %q", path, heading)
	return statements
}
