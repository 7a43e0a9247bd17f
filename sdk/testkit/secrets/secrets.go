// Package secrets proves that nothing a connector prints has a secret in it.
package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/child"
)

// Case is one configuration of a connector, as JSON or YAML, or what somebody took for one.
type Case struct {
	Config []byte
	// Program is the program of [child.Main] that is run; empty for the connector.
	Program string
	// Fails says that every command fails.
	Fails bool
}

// Stay runs the commands of a capture connector as processes, at the most talkative level and in both formats of the log, and fails
// the test if one of them prints a secret, in any usual form. Secrets are given with their names; each configuration must have one.
func Stay(t *testing.T, secrets map[string]string, cases map[string]Case) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "config")
			require.NoError(t, os.WriteFile(file, c.Config, 0o600))
			require.NotEmpty(t, leaks(c.Config, secrets), "the secrets are in the configuration, in a form that is looked for")
			commands := [][]string{{"check"}, {"pull", "--limit", "1"}, {"discover"}}
			if c.Fails {
				commands = commands[:2]
			}
			program := c.Program
			if program == "" {
				program = child.Connector
			}
			for i, command := range commands {
				cmd := child.Self(t, program, append(command, "--config", file)...)
				cmd.Env = append(cmd.Env, "LOG_LEVEL=trace", "LOG_FORMAT="+[]string{"json", "text"}[i%2], "GOTRACEBACK=all")
				out, err := cmd.CombinedOutput()
				require.Equal(t, c.Fails, err != nil, "%v: %s", command, out)
				require.NotEmpty(t, out)
				require.Empty(t, leaks(out, secrets), "%s prints secrets: %s", command, out)
			}
		})
	}
}

// leaks names the secrets that are in a text, as they are or in a form that shows them.
func leaks(text []byte, secrets map[string]string) (found []string) {
	for name, secret := range secrets {
		for _, piece := range pieces(secret) {
			quoted, _ := json.Marshal(piece)
			for _, form := range []string{
				piece, strings.Trim(string(quoted), `"`), url.QueryEscape(piece), url.PathEscape(piece), hex.EncodeToString([]byte(piece)),
				base64.StdEncoding.EncodeToString([]byte(piece)), fmt.Sprintf("%d", []byte(piece)), strings.ReplaceAll(piece, "'", "''"),
			} {
				if bytes.Contains(text, []byte(form)) {
					found = append(found, name)
				}
			}
		}
	}
	return found
}

// pieces are the parts of a secret that give it away: of a key in PEM, any line of it.
func pieces(secret string) []string {
	if !strings.Contains(secret, "\n") {
		return []string{secret}
	}
	var lines []string
	for line := range strings.Lines(secret) {
		if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-----") {
			lines = append(lines, line)
		}
	}
	return lines
}
