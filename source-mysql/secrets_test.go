package main

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/secrets"
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
	with := func(change func(*config)) []byte {
		cfg := good
		change(&cfg)
		return testsession.Config(t, cfg)
	}
	secrets.Stay(t, map[string]string{"password": password}, map[string]secrets.Case{
		"all is well":    {Config: with(func(*config) {})},
		"wrong password": {Config: with(func(c *config) { c.User = mysqld.User }), Fails: true},
		"wrong TLS":      {Config: with(func(c *config) { c.SSLMode = "verify-full" }), Fails: true},
		"no server":      {Config: with(func(c *config) { c.Address = "127.0.0.1:1" }), Fails: true},
		"not a key":      {Config: with(func(c *config) { c.SSLKey, c.SSLMode, c.SSLCert = c.Password, "require", "x" }), Fails: true},
		"a panic":        {Config: with(func(*config) {}), Program: "panics", Fails: true},
		"a wrong field":  {Config: []byte(`{"address": "a", "passwort": ` + string(quoted) + `}`), Fails: true},
		"wrong types":    {Config: []byte(`{"address": "a", "password": [` + string(quoted) + `], "sslKey": {"a": ` + string(quoted) + `}}`), Fails: true},
		"broken JSON":    {Config: []byte(`{"address": "a", "password": ` + string(quoted) + ` "x"`), Fails: true},
	})
}
