package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	testsession "github.com/sluicedata/sluice/sdk/testkit/session"
)

// panicking is the connector with a mistake in it, which prints whatever it has in its hands.
func panicking() {
	capture.Main(capture.New(cdc.New(spec(), func(_ context.Context, env capture.Env, cfg config) (cdc.Driver, cdc.Options, error) {
		d, err := newDriver(env, cfg)
		env.Log.WithField("config", cfg).WithField("driver", fmt.Sprintf("%+v", d)).Info("about to fail")
		l := login{user: cfg.User, password: cfg.Password}
		panic(fmt.Sprintf("%v %+v %#v %+v %#v %s %+v %v", cfg, cfg, cfg, d, d.dialer, cfg.Password, l, err))
	})))
}

// leaks lists the forms in which a secret is in a text.
func leaks(text []byte, secret string) (found []string) {
	quoted, _ := json.Marshal(secret)
	for _, form := range []string{
		secret, strings.Trim(string(quoted), `"`), url.QueryEscape(secret), url.PathEscape(secret), hex.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte(secret)), fmt.Sprintf("%d", []byte(secret)), strings.ReplaceAll(secret, "'", "''"),
	} {
		if bytes.Contains(text, []byte(form)) {
			found = append(found, form)
		}
	}
	return found
}

// Nothing that the connector's process prints has a secret in it: whatever command, whatever fails, at the most talkative
// level, in both formats of the log.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	db := newDatabase(t, mysqld.MySQL)
	const password = `S3cr3t'pass"w%20ord&5e7f`
	user := "capture_" + db.name
	db.exec("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1)", "CREATE USER "+user+"@'%' IDENTIFIED BY "+quotePlain(password), "GRANT ALL ON *.* TO "+user+"@'%'")
	good := db.cfg
	good.User, good.Password = user, schema.NewSecret(password)
	quoted, err := json.Marshal(password)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(*config)
		raw    string // instead of a configuration
		env    string
		fails  bool
	}{
		"all is well":    {change: func(*config) {}},
		"wrong password": {change: func(c *config) { c.User = mysqld.User }, fails: true},
		"wrong TLS":      {change: func(c *config) { c.SSLMode = "verify-full" }, fails: true},
		"no server":      {change: func(c *config) { c.Address = "127.0.0.1:1" }, fails: true},
		"not a key":      {change: func(c *config) { c.SSLKey, c.SSLMode, c.SSLCert = c.Password, "require", "x" }, fails: true},
		"a panic":        {change: func(*config) {}, env: "panics", fails: true},
		"a wrong field":  {raw: `{"address": "a", "passwort": ` + string(quoted) + `}`, fails: true},
		"wrong types":    {raw: `{"address": "a", "password": [` + string(quoted) + `], "sslKey": {"a": ` + string(quoted) + `}}`, fails: true},
		"broken JSON":    {raw: `{"address": "a", "password": ` + string(quoted) + ` "x"`, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := []byte(c.raw)
			if c.change != nil {
				cfg := good
				c.change(&cfg)
				text = testsession.Config(t, cfg)
			}
			require.NotEmpty(t, leaks(text, password), "the secret is in the configuration, in a form that is looked for")
			file := filepath.Join(t.TempDir(), "config")
			require.NoError(t, os.WriteFile(file, text, 0o600))
			for i, command := range [][]string{{"check"}, {"pull", "--limit", "1"}} {
				env := c.env
				if env == "" {
					env = "1"
				}
				self, err := os.Executable()
				require.NoError(t, err)
				cmd := exec.CommandContext(t.Context(), self, append(command, "--config", file)...)
				cmd.Env = append(os.Environ(), envConnector+"="+env, "LOG_LEVEL=trace", "LOG_FORMAT="+[]string{"json", "text"}[i%2], "GOTRACEBACK=all")
				out, err := cmd.CombinedOutput()
				require.Equal(t, c.fails, err != nil, "%v: %s", command, out)
				require.NotEmpty(t, out)
				require.Empty(t, leaks(out, password), "%s prints the secret: %s", command, out)
			}
		})
	}
}
