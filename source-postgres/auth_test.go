package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Keys that exist nowhere; the documentation of AWS has made them up.
const (
	awsKey    = "AKIAIOSFODNN7EXAMPLE"
	awsSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

func awsAuth() auth {
	return auth{Type: authAWS, AWSRegion: "eu-central-1", AWSAccessKeyID: awsKey, AWSSecretAccessKey: schema.NewSecret(awsSecret)}
}

func TestAWSToken(t *testing.T) {
	t.Parallel()
	cfg := config{Address: "orders.abc123.eu-west-3.rds.amazonaws.com", User: "cap ture", Auth: awsAuth()}
	cfg.Auth.AWSRegion = ""
	token, err := cfg.passwordSource()(t.Context())
	require.NoError(t, err)
	require.NotContains(t, token, "://", "a token has no scheme")
	u, err := url.Parse("https://" + token)
	require.NoError(t, err)
	require.Equal(t, "orders.abc123.eu-west-3.rds.amazonaws.com:5432", u.Host)
	q := u.Query()
	require.Equal(t, "connect", q.Get("Action"))
	require.Equal(t, "cap ture", q.Get("DBUser"))
	require.Equal(t, "900", q.Get("X-Amz-Expires"))
	require.True(t, strings.HasPrefix(q.Get("X-Amz-Credential"), awsKey+"/"), q.Get("X-Amz-Credential"))
	require.True(t, strings.HasSuffix(q.Get("X-Amz-Credential"), "/eu-west-3/rds-db/aws4_request"), "the region is that of the address")
	require.Len(t, q.Get("X-Amz-Signature"), 64)
	require.NotContains(t, token, awsSecret)
}

func TestAuthMistakes(t *testing.T) {
	t.Parallel()
	good := config{Address: "db.example.com", Database: "d", User: "u", Auth: awsAuth()}
	require.NoError(t, good.Validate())
	for name, c := range map[string]struct {
		change func(*config)
		want   string
	}{
		"plain text":  {func(c *config) { c.SSLMode = endpoint.Disable }, "A token of AWS is as good as a password, and goes only to a server that has proved who it is: set sslmode to verify-full, with the authorities of Amazon RDS in sslRootCert."},
		"loopback":    {func(c *config) { c.Address = "localhost" }, "A token of AWS is as good as a password"},
		"anybody":     {func(c *config) { c.SSLMode = endpoint.Require }, "A token of AWS is as good as a password"},
		"no region":   {func(c *config) { c.Auth.AWSRegion = "" }, "The address db.example.com does not tell the region of the database. Enter it in auth.awsRegion."},
		"a password":  {func(c *config) { c.Password = schema.NewSecret("secret") }, "There is a password although auth.type is awsIAM. Remove one of them."},
		"half a key":  {func(c *config) { c.Auth.AWSSecretAccessKey = schema.Secret{} }, "An access key has two parts. Enter auth.awsAccessKeyId and auth.awsSecretAccessKey, or neither."},
		"no type":     {func(c *config) { c.Auth.Type = "" }, "There are settings for AWS in auth, but auth.type is not awsIAM. Choose it, or remove them."},
		"wrong type":  {func(c *config) { c.Auth.Type = "kerberos" }, `The authentication type "kerberos" does not exist. Choose password or awsIAM.`},
		"RDS's proxy": {func(c *config) { c.Address = "p.proxy-abc.eu-west-3.rds.amazonaws.com" }, "Use the endpoint of the instance or cluster instead of the RDS proxy."},
	} {
		cfg := good
		c.change(&cfg)
		err := cfg.Validate()
		require.Error(t, err, name)
		require.Contains(t, usererr.Message(err), c.want, name)
	}
	require.Contains(t, usererr.Message(awsAdvice(os.ErrNotExist, auth{})), "No credentials of AWS are to be had here: file does not exist. Give the capture an identity")
	require.Contains(t, usererr.Message(awsAdvice(os.ErrNotExist, auth{AWSRoleARN: "arn:x"})), "AWS does not give credentials of the role arn:x: file does not exist.")
}

// The token is what the server is told as the password, in TLS to a server that has proved who it is; a server that does not
// take it is explained.
func TestAWSTokenIsThePassword(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t, server.WithTLS()) // for its certificate
	ca, err := os.ReadFile(pg.CAFile())
	require.NoError(t, err)
	passwords := make(chan string, 10)
	address := passwordTaker(t, pg, passwords)
	cfg := config{Address: address, Database: "d", User: "capture", SSLRootCert: string(ca), Auth: awsAuth()}
	for range 2 {
		message := connectError(t, cfg)
		require.Contains(t, message, "does not accept the token of AWS for user \"capture\": PAM authentication failed for user \"capture\". Check that the instance has IAM authentication on, that the user has been granted rds_iam, and that the identity may rds-db:connect as that user.")
		password := <-passwords
		require.True(t, strings.HasPrefix(password, address+"?Action=connect&DBUser=capture&"), password)
		require.NotContains(t, message, "X-Amz")
	}
	// Who cannot prove who it is gets none.
	cfg.SSLRootCert = otherCertificate
	require.Contains(t, connectError(t, cfg), "cannot be verified")
	require.Empty(t, passwords)
}

// passwordTaker is a server that asks for a password, over TLS only, and refuses it as RDS does.
func passwordTaker(t *testing.T, pg *server.PostgresServer, passwords chan<- string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(pg.DataDir(), "server.pem"), filepath.Join(pg.DataDir(), "server.key"))
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	serve := func(plain net.Conn) error {
		defer plain.Close()
		if _, err := pgproto3.NewBackend(plain, plain).ReceiveStartupMessage(); err != nil {
			return err
		}
		if _, err := plain.Write([]byte("S")); err != nil {
			return err
		}
		conn := tls.Server(plain, &tls.Config{Certificates: []tls.Certificate{pair}})
		backend := pgproto3.NewBackend(conn, conn)
		if _, err := backend.ReceiveStartupMessage(); err != nil {
			return err
		}
		backend.Send(&pgproto3.AuthenticationCleartextPassword{})
		if err := backend.Flush(); err != nil {
			return err
		}
		if err := backend.SetAuthType(pgproto3.AuthTypeCleartextPassword); err != nil {
			return err
		}
		m, err := backend.Receive()
		if err != nil {
			return err
		}
		if p, ok := m.(*pgproto3.PasswordMessage); ok {
			passwords <- p.Password
		}
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: stateInvalidAuthorization, Message: "PAM authentication failed for user \"capture\""})
		return backend.Flush()
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = serve(conn) }()
		}
	}()
	return listener.Addr().String()
}

// Every connection asks for a password of its own: one that was good a moment ago does not do for the next, and a stream that
// is open outlives the password that it began with.
func TestPasswordsAreAskedForEachConnection(t *testing.T) {
	t.Parallel()
	pg := server.Postgres(t)
	db := databaseOn(t, pg)
	db.exec("CREATE ROLE short LOGIN SUPERUSER", "CREATE TABLE t (id int PRIMARY KEY)")
	var made atomic.Int64
	d := newDriver(testEnv(t), func() config { c := db.cfg; c.User, c.Password = "short", schema.Secret{}; return c }())
	t.Cleanup(func() { _ = d.Close() })
	d.dialer.password = func(context.Context) (string, error) {
		token := fmt.Sprintf("token-%d", made.Add(1))
		db.exec("ALTER ROLE short PASSWORD '" + token + "'") // the ones before are good no more
		return token, nil
	}
	require.NoError(t, d.look(t.Context()))
	tables := db.tables(d, "t")
	stream := db.open(d, tables...)
	before := made.Load()
	require.GreaterOrEqual(t, before, int64(2))
	d.conns.mu.Lock()
	idle := d.conns.idle
	d.conns.idle = nil
	d.conns.mu.Unlock()
	for _, conn := range idle {
		d.conns.discard(conn)
	}
	rows, _ := db.scanAll(d, tables[0], 10)
	require.Empty(t, rows)
	require.Greater(t, made.Load(), before)
	db.exec("INSERT INTO t VALUES (1)")
	require.Equal(t, []string{`c t {"id":1}`}, stream.fence())
}
