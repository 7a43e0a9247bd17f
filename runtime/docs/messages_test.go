package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	joined = regexp.MustCompile("[\"`] \\+\\s*[\"`]") // of a text that the source has in several pieces
	quoted = regexp.MustCompile("`([^`]+)`|\\*([^*]+)\\*")
)

// ofServers are messages that no connector makes.
const ofServers = "canceling statement due to conflict with recovery"

// What a connector's page explains under Troubleshooting are messages that exist: in the connector, the sdk or their tests, which also have
// the words of servers.
func TestMessages(t *testing.T) {
	t.Parallel()
	sdk := sources(t, filepath.Join(root, "sdk"))
	paths, err := filepath.Glob(filepath.Join(root, "docs", "connectors", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		connector := strings.TrimSuffix(filepath.Base(path), ".md")
		text := sources(t, filepath.Join(root, connector)) + sdk + ofServers
		messages := messagesOf(t, path)
		require.Greater(t, len(messages), 5, path)
		for _, message := range messages {
			for part := range strings.SplitSeq(message, "…") {
				if part = strings.TrimSpace(part); part != "" {
					require.True(t, strings.Contains(text, part), "%s explains %q, and no message says %q", path, message, part) //nolint:testifylint // Contains would print all of it
				}
			}
		}
	}
}

// messagesOf are the texts in the first column of the tables below a page's heading Troubleshooting.
func messagesOf(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(text), "\n## Troubleshooting\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var messages []string
	for line := range strings.SplitSeq(section, "\n") {
		cells := strings.SplitN(line, "|", 3)
		if len(cells) < 3 {
			continue
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			messages = append(messages, m[1]+m[2])
		}
	}
	return messages
}

// sources is the Go code below a folder, as one text in which strings are whole and have no escapes.
func sources(t *testing.T, folder string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	require.NoError(t, err)
	return strings.ReplaceAll(joined.ReplaceAllString(all.String(), ""), `\"`, `"`)
}
