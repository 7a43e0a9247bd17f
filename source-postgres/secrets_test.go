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
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// panicking is the connector with a mistake in it, which prints whatever it has in its hands.
func panicking() {
	capture.Main(capture.New(cdc.New(spec(), func(_ context.Context, env capture.Env, cfg config) (cdc.Driver, cdc.Options, error) {
		d := newDriver(env, cfg)
		env.Log.WithField("config", cfg).WithField("driver", fmt.Sprintf("%+v", d)).Info("about to fail")
		panic(fmt.Sprintf("%v %+v %#v %+v %#v %s", cfg, cfg, cfg, d, d.dialer, cfg.Password))
	})))
}

// leaks names the secrets that are in a text, as they are or in a form that shows them.
func leaks(text []byte, secrets map[string]string) (found []string) {
	for name, secret := range secrets {
		pieces := []string{secret}
		if strings.Contains(secret, "\n") {
			pieces = nil
			for line := range strings.Lines(secret) { // of a key: any line of it
				if line = strings.TrimSpace(line); len(line) > 20 && !strings.HasPrefix(line, "-----") {
					pieces = append(pieces, line)
				}
			}
		}
		for _, piece := range pieces {
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

// Nothing that the connector's process prints has a secret in it: whatever command, whatever fails, at the most talkative
// level, in both formats of the log.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS())
	db := databaseOn(t, pg)
	s := bastion.Start(t, bastion.Options{})
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	certificate, key := newClientAuthority(t).sign(t, "capture")
	const password, passphrase = `S3cr3t'pass"w%20ord&5e7f`, "pass-phrase-81d2"
	db.exec("CREATE ROLE capture LOGIN SUPERUSER PASSWORD "+quoteLiteral(password), "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
	secrets := map[string]string{
		"password": password, "SSH key": s.PrivateKey(t, passphrase), "plain SSH key": s.PrivateKey(t, ""), "passphrase": passphrase,
		"SSH password": bastion.Password, "AWS key": awsSecret, "client key": key.Reveal(), "token": "X-Amz-Signature=",
	}
	good := db.cfg
	good.User, good.Password = "capture", schema.NewSecret(password)
	through(t, &good, s, s.Address())
	good.Tunnel.PrivateKey, good.Tunnel.Passphrase, good.Tunnel.Password = schema.NewSecret(secrets["SSH key"]), schema.NewSecret(passphrase), schema.NewSecret(bastion.Password)
	good.Address = strings.Replace(pg.Address(), "127.0.0.1", "localhost", 1)
	good.SSLMode, good.SSLRootCert, good.SSLCert, good.SSLKey = endpoint.VerifyFull, string(ca), certificate, key

	passwords := make(chan string, 100)
	rds := passwordTaker(t, pg, passwords)
	for name, c := range map[string]struct {
		change func(*config)
		raw    string // instead of a configuration
		env    string
		fails  bool
	}{
		"all is well":       {change: func(*config) {}},
		"wrong password":    {change: func(c *config) { c.User = "postgres" }, fails: true},
		"wrong TLS":         {change: func(c *config) { c.SSLRootCert = otherCertificate }, fails: true},
		"wrong host key":    {change: func(c *config) { c.Tunnel.HostKey = "SHA256:x" }, fails: true},
		"wrong passphrase":  {change: func(c *config) { c.Tunnel.Passphrase = schema.NewSecret(password) }, fails: true},
		"wrong key":         {change: func(c *config) { c.Tunnel.PrivateKey, c.Tunnel.Password = c.SSLKey, c.Password }, fails: true},
		"not a key":         {change: func(c *config) { c.Tunnel.PrivateKey, c.SSLKey = c.Password, c.Password }, fails: true},
		"another's key":     {change: func(c *config) { c.SSLCert, _ = newClientAuthority(t).sign(t, "x") }, fails: true},
		"secrets elsewhere": {change: func(c *config) { c.Tunnel.Address, c.Advanced.SlotName = "", "My-Slot" }, fails: true},
		"a token": {change: func(c *config) {
			*c = config{Address: rds, Database: "d", User: "capture", SSLRootCert: string(ca), Auth: awsAuth()}
		}, fails: true},
		"a token and mistakes": {change: func(c *config) { c.Auth = awsAuth() }, fails: true},
		"a panic":              {change: func(*config) {}, env: "panics", fails: true},
		"a wrong field":        {raw: `{"address": "a", "passwort": ` + jsonText(password) + `, "tunnel": {"privatekey": ` + jsonText(secrets["SSH key"]) + `}}`, fails: true},
		"wrong types":          {raw: `{"address": "a", "password": [` + jsonText(password) + `], "tunnel": ` + jsonText(secrets["SSH key"]) + `, "sslKey": {"a": ` + jsonText(key.Reveal()) + `}}`, fails: true},
		"broken JSON":          {raw: `{"address": "a", "password": ` + jsonText(password) + ` "x"`, fails: true},
		"broken YAML":          {raw: "address: a\npassword: S3cr3t'pass\"w%20ord&5e7f: x\n\t- y", fails: true},
		"YAML aliases":         {raw: "address: a\npassword: *" + bastion.Password, fails: true},
		"YAML tags":            {raw: "address: a\npassword: !" + bastion.Password + " x", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := []byte(c.raw)
			if c.change != nil {
				cfg := good
				c.change(&cfg)
				text = session.Config(t, cfg)
			}
			file := filepath.Join(t.TempDir(), "config")
			require.NoError(t, os.WriteFile(file, text, 0o600))
			require.NotEmpty(t, leaks(text, secrets), "the secrets are in the configuration, in a form that is looked for")
			commands := [][]string{{"check"}, {"pull", "--limit", "1"}, {"discover"}}
			if c.fails {
				commands = commands[:2]
			}
			for i, command := range commands {
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
				require.Empty(t, leaks(out, secrets), "%s prints secrets: %s", command, out)
			}
		})
	}
}

func jsonText(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}
