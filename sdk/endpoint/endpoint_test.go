package endpoint_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"db.example.com": "db.example.com:5432", "db.example.com:6000": "db.example.com:6000", "10.0.0.1": "10.0.0.1:5432",
		"::1": "[::1]:5432", "[::1]": "[::1]:5432", "[2001:db8::1]:6000": "[2001:db8::1]:6000", "localhost:5433": "localhost:5433",
		"fe80::1%eth0": "[fe80::1%eth0]:5432",
	} {
		addr, err := endpoint.ParseAddress(address, 5432)
		require.NoError(t, err, address)
		require.Equal(t, want, addr.String())
		require.Equal(t, address == "localhost:5433" || address == "::1" || address == "[::1]", addr.IsLoopback(), address)
	}
	for address, want := range map[string]string{
		"host:":             `The address "host:" is not of the form host:port. An IPv6 address with a port is written [::1]:5432.`,
		"a:b:c":             `The address "a:b:c" is not of the form host:port.`,
		":5432":             `The address ":5432" is not a host name or an IP address. Enter just host or host:port, without a scheme, user or path.`,
		"":                  `is not a host name or an IP address.`,
		"postgres://h/db":   `is not a host name or an IP address.`,
		"user@host":         `is not a host name or an IP address.`,
		"a b":               `is not a host name or an IP address.`,
		"[a:b]":             `is not a host name or an IP address.`,
		"host:0":            `The port "0" of the address is not a number between 1 and 65535.`,
		"host:port":         `The port "port" of the address is not a number between 1 and 65535.`,
		"a:5432,b:5432":     `The address "a:5432,b:5432" names several hosts. Enter one: the server that the data is to come from, or a name that always leads to it.`,
		"/run/postgresql":   `The address "/run/postgresql" is a Unix socket, not a host name or an IP address. Have the server listen on TCP, and enter host or host:port, such as 127.0.0.1:5432.`,
		"db.example.com:-1": `The port "-1" of the address`,
	} {
		_, err := endpoint.ParseAddress(address, 5432)
		require.Error(t, err, address)
		require.Contains(t, usererr.Message(err), want)
	}
}

// pair is a certificate that signed itself, and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "someone"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	text, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))
}

// What connections use is proved against real servers in the connectors; this is what they are made of, and what is refused.
func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key := pair(t)
	_, otherKey := pair(t)
	secret := schema.NewSecret
	for name, c := range map[string]struct {
		tls  endpoint.TLS
		want string
	}{
		"a mode that falls back": {endpoint.TLS{Mode: "prefer"}, `The SSL mode "prefer" does not exist. Choose disable, require, verify-ca or verify-full.`},
		"no certificate":         {endpoint.TLS{RootCert: "x"}, "The SSL root certificate holds no certificate. Paste the text of a PEM file, which begins with -----BEGIN CERTIFICATE-----."},
		"no key":                 {endpoint.TLS{Cert: cert}, "There is a client certificate (sslCert) without its key. Enter the key in sslKey."},
		"only a key":             {endpoint.TLS{Key: secret(key)}, "There is a client key (sslKey) without its certificate. Enter the certificate in sslCert."},
		"another's key":          {endpoint.TLS{Cert: cert, Key: secret(otherKey)}, "The client certificate (sslCert) and its key (sslKey) cannot be used: they do not belong together, or are not in PEM form."},
		"a protected key":        {endpoint.TLS{Cert: cert, Key: secret("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")}, "The client key (sslKey) is protected by a passphrase. Take the passphrase off, openssl pkey -in client.key -out plain.key, and paste that."},
		"a file name":            {endpoint.TLS{Cert: cert, Key: secret("/etc/client.key")}, "The client key (sslKey) holds no key."},
		"in plain text":          {endpoint.TLS{Mode: endpoint.Disable, Cert: cert, Key: secret(key)}, "A client certificate (sslCert) is shown over TLS only, and sslmode is disable. Choose verify-full."},
	} {
		err := c.tls.Validate()
		require.Error(t, err, name)
		require.Equal(t, c.want, usererr.Message(err)[:min(len(c.want), len(usererr.Message(err)))], name)
		require.NotContains(t, err.Error(), key[40:80])
		_, err = c.tls.Config("db")
		require.Error(t, err, name)
	}
	plain, err := endpoint.TLS{Mode: endpoint.Disable}.Config("db")
	require.NoError(t, err)
	require.Nil(t, plain)
	full, err := endpoint.TLS{Cert: cert, Key: secret(key)}.Config("db")
	require.NoError(t, err)
	require.False(t, full.InsecureSkipVerify)
	require.Equal(t, "db", full.ServerName)
	require.Len(t, full.Certificates, 1)
	require.EqualValues(t, tls.VersionTLS12, full.MinVersion)
}
