package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Every way to log in and to protect connections reads records from a real broker; those that are wrong say what is.
func TestLogin(t *testing.T) {
	t.Parallel()
	cluster := server.SharedKafka(t)
	b := benchAt(t, cluster.Addresses())
	topic := b.topic(1)
	b.numbered(topic, 1, 0, 3)
	for mechanism, password := range map[kadm.ScramMechanism]string{kadm.ScramSha256: "secret-of-256", kadm.ScramSha512: "secret-of-512"} {
		altered, err := b.admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "scram", Mechanism: mechanism, Iterations: 4096, Password: password}})
		require.NoError(t, err)
		require.NoError(t, altered["scram"].Err, altered["scram"].ErrMessage)
	}
	eventually(t, func(ctx ctx) bool { // all brokers know of it
		found, err := b.admin.DescribeUserSCRAMs(ctx, "scram")
		return err == nil && len(found["scram"].CredInfos) == 2
	})
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "client" || password != "client-secret" || r.FormValue("scope") != "kafka" {
			http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, unsignedToken())
	}))
	t.Cleanup(tokens.Close)
	certificate, key := cluster.Client()
	ca := tlsConfig{RootCert: cluster.CA()}
	elsewhere := forwarded(t, "127.0.0.2:0", strings.Split(cluster.TLSAddresses(), ",")[0]) // the certificate does not have that name
	sasl := func(c credentials) config {
		return config{BootstrapServers: cluster.SASLAddresses(), TLS: ca, Credentials: c}
	}
	secret := schema.NewSecret
	for _, c := range []struct {
		name string
		cfg  config
		want string // what is wrong, or nothing
	}{
		{"TLS", config{BootstrapServers: cluster.TLSAddresses(), TLS: ca}, ""},
		{"client certificate", config{BootstrapServers: cluster.MutualAddresses(), TLS: tlsConfig{RootCert: cluster.CA(), Cert: certificate, Key: secret(key)}}, ""},
		{"PLAIN", sasl(credentials{Method: kafkalogin.Plain, Username: kafkad.User, Password: secret(kafkad.Password)}), ""},
		{"SCRAM-SHA-256", sasl(credentials{Method: kafkalogin.SCRAM256, Username: "scram", Password: secret("secret-of-256")}), ""},
		{"SCRAM-SHA-512", sasl(credentials{Method: kafkalogin.SCRAM512, Username: "scram", Password: secret("secret-of-512")}), ""},
		{"token", sasl(credentials{Method: kafkalogin.OAuth, Token: secret(unsignedToken())}), ""},
		{"token endpoint", sasl(credentials{Method: kafkalogin.OAuth, TokenEndpoint: tokens.URL, ClientID: "client", ClientSecret: secret("client-secret"), Scopes: []string{"kafka"}}), ""},
		{"plain text to TLS", config{BootstrapServers: cluster.TLSAddresses()}, "speaks TLS on this port"},
		{"an unknown authority", config{BootstrapServers: cluster.TLSAddresses(), TLS: tlsConfig{Mode: "verify-full"}}, "tls.rootCert"},
		{"TLS to plain text", config{BootstrapServers: cluster.Addresses(), TLS: ca}, "does not speak TLS"},
		{"no client certificate", config{BootstrapServers: cluster.MutualAddresses(), TLS: ca}, "client certificate"},
		{"no login", sasl(credentials{}), "a login?"},
		{"a wrong password", sasl(credentials{Method: kafkalogin.Plain, Username: kafkad.User, Password: secret("wrong-secret")}), "refuses the login"},
		{"a wrong SCRAM password", sasl(credentials{Method: kafkalogin.SCRAM512, Username: "scram", Password: secret("wrong-secret")}), "refuses the login"},
		{"AWS", sasl(credentials{Method: kafkalogin.AWS, AWSAccessKeyID: "k", AWSSecretAccessKey: secret("aws-secret")}), "does not offer to log in by AWS_MSK_IAM"},
		{"a refused client", sasl(credentials{Method: kafkalogin.OAuth, TokenEndpoint: tokens.URL, ClientID: "client", ClientSecret: secret("wrong-secret")}), "token"},
		{"another name", config{BootstrapServers: elsewhere, TLS: ca}, "the certificate that it shows is not one for 127.0.0.2. Use the name in the certificate, or tls.mode verify-ca."},
		{"another name, verify-ca", config{BootstrapServers: elsewhere, TLS: tlsConfig{Mode: "verify-ca", RootCert: cluster.CA()}}, ""},
		{"nobody", config{BootstrapServers: "127.0.0.1:1"}, "no connection to it can be made"},
		{"no name", config{BootstrapServers: "broker.invalid"}, "its name is not known here. Check bootstrapServers."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Topics.Include = []string{topic}
			c.cfg.StartAt, c.cfg.OnOffsetLoss, c.cfg.OnBadMessage = startEarliest, lossEarliest, badFail
			require.NoError(t, c.cfg.Validate())
			var out bytes.Buffer
			log := logrus.New()
			log.SetOutput(&out)
			log.SetLevel(logrus.DebugLevel)
			err := source{}.Check(t.Context(), capture.Env{Log: logrus.NewEntry(log)}, c.cfg, []resource{{Topic: topic}})
			if c.want == "" {
				require.NoError(t, err)
				r := open(t, c.cfg, nil)
				r.until(3)
				require.NoError(t, r.Stop())
				return
			}
			require.ErrorContains(t, err, "")
			require.Contains(t, usererr.Message(err), c.want, err.Error())
			for _, hidden := range []string{"wrong-secret", "aws-secret"} {
				require.NotContains(t, err.Error(), hidden)
				require.NotContains(t, out.String(), hidden)
			}
		})
	}
}

// forwarded is the address of a listener that passes connections on to another address.
func forwarded(t *testing.T, at, to string) string {
	t.Helper()
	listener, err := net.Listen("tcp", at)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				other, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer other.Close()
				go func() { _, _ = io.Copy(other, conn) }()
				_, _ = io.Copy(conn, other)
			}()
		}
	}()
	return listener.Addr().String()
}

// unsignedToken is one that the test's broker takes, although nobody signed it.
func unsignedToken() string {
	encode := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			return err.Error() // maps of texts and numbers always encode
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now()
	return strings.Join([]string{
		encode(map[string]any{"alg": "none"}),
		encode(map[string]any{"sub": kafkad.User, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix()}), "",
	}, ".")
}
