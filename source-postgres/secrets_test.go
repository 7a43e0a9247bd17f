package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/bastion"
	"github.com/sluicedata/sluice/sdk/testkit/secrets"
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
	known := map[string]string{
		"password": password, "SSH key": s.PrivateKey(t, passphrase), "plain SSH key": s.PrivateKey(t, ""), "passphrase": passphrase,
		"SSH password": bastion.Password, "AWS key": awsSecret, "client key": key.Reveal(), "token": "X-Amz-Signature=",
	}
	good := db.cfg
	good.User, good.Password = "capture", schema.NewSecret(password)
	through(t, &good, s, s.Address())
	good.Tunnel.PrivateKey, good.Tunnel.Passphrase, good.Tunnel.Password = schema.NewSecret(known["SSH key"]), schema.NewSecret(passphrase), schema.NewSecret(bastion.Password)
	good.Address = strings.Replace(pg.Address(), "127.0.0.1", "localhost", 1)
	good.SSLMode, good.SSLRootCert, good.SSLCert, good.SSLKey = endpoint.VerifyFull, string(ca), certificate, key

	passwords := make(chan string, 100)
	rds := passwordTaker(t, pg, passwords)
	with := func(change func(*config)) []byte {
		cfg := good
		change(&cfg)
		return session.Config(t, cfg)
	}
	secrets.Stay(t, known, map[string]secrets.Case{
		"all is well":       {Config: with(func(*config) {})},
		"wrong password":    {Config: with(func(c *config) { c.User = "postgres" }), Fails: true},
		"wrong TLS":         {Config: with(func(c *config) { c.SSLRootCert = otherCertificate }), Fails: true},
		"wrong host key":    {Config: with(func(c *config) { c.Tunnel.HostKey = "SHA256:x" }), Fails: true},
		"wrong passphrase":  {Config: with(func(c *config) { c.Tunnel.Passphrase = schema.NewSecret(password) }), Fails: true},
		"wrong key":         {Config: with(func(c *config) { c.Tunnel.PrivateKey, c.Tunnel.Password = c.SSLKey, c.Password }), Fails: true},
		"not a key":         {Config: with(func(c *config) { c.Tunnel.PrivateKey, c.SSLKey = c.Password, c.Password }), Fails: true},
		"another's key":     {Config: with(func(c *config) { c.SSLCert, _ = newClientAuthority(t).sign(t, "x") }), Fails: true},
		"secrets elsewhere": {Config: with(func(c *config) { c.Tunnel.Address, c.Advanced.SlotName = "", "My-Slot" }), Fails: true},
		"a token": {Config: with(func(c *config) {
			*c = config{Address: rds, Database: "d", User: "capture", SSLRootCert: string(ca), Auth: awsAuth()}
		}), Fails: true},
		"a token and mistakes": {Config: with(func(c *config) { c.Auth = awsAuth() }), Fails: true},
		"a panic":              {Config: with(func(*config) {}), Program: "panics", Fails: true},
		"a wrong field":        {Config: []byte(`{"address": "a", "passwort": ` + jsonText(password) + `, "tunnel": {"privatekey": ` + jsonText(known["SSH key"]) + `}}`), Fails: true},
		"wrong types":          {Config: []byte(`{"address": "a", "password": [` + jsonText(password) + `], "tunnel": ` + jsonText(known["SSH key"]) + `, "sslKey": {"a": ` + jsonText(key.Reveal()) + `}}`), Fails: true},
		"broken JSON":          {Config: []byte(`{"address": "a", "password": ` + jsonText(password) + ` "x"`), Fails: true},
		"broken YAML":          {Config: []byte("address: a\npassword: S3cr3t'pass\"w%20ord&5e7f: x\n\t- y"), Fails: true},
		"YAML aliases":         {Config: []byte("address: a\npassword: *" + bastion.Password), Fails: true},
		"YAML tags":            {Config: []byte("address: a\npassword: !" + bastion.Password + " x"), Fails: true},
	})
}

func jsonText(s string) string {
	text, _ := json.Marshal(s)
	return string(text)
}
