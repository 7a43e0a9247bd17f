package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/mysqld"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const loginPassword = "S3cr3t-5e7f-never-in-clear"

// hostile is a server that says what it was told to say, one packet for each that it gets, and keeps all that it gets.
type hostile struct {
	says [][]byte // behind the greeting
	tls  *tls.Config
	got  bytes.Buffer
	done chan struct{}
}

// greeting is a server's, whose usual way to log in is plugin.
func greeting(plugin string, caps uint32) []byte {
	b := append([]byte{10}, "8.0.99-hostile\x00"...)
	b = append(b, 1, 0, 0, 0)
	b = append(b, "12345678\x00"...)
	b = append(b, byte(caps), byte(caps>>8), utf8mb4, 2, 0, byte(caps>>16), byte(caps>>24), 21)
	b = append(b, make([]byte, 10)...)
	b = append(b, "123456789012\x00"...)
	return append(append(b, plugin...), 0)
}

func (h *hostile) start(t *testing.T, first []byte) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h.done = make(chan struct{})
	go func() {
		defer close(h.done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		h.talk(conn, first)
	}()
	t.Cleanup(func() { _ = listener.Close(); <-h.done })
	return listener.Addr().String()
}

func (h *hostile) talk(conn net.Conn, first []byte) {
	next := byte(0)
	say := func(p []byte) {
		_, _ = conn.Write(append([]byte{byte(len(p)), byte(len(p) >> 8), 0, next}, p...)) // whoever hears it may be gone
	}
	hear := func() bool {
		head := make([]byte, 4)
		if _, err := io.ReadFull(conn, head); err != nil {
			return false
		}
		body := make([]byte, length(head))
		_, err := io.ReadFull(conn, body)
		h.got.Write(body)
		next = head[3] + 1
		return err == nil
	}
	say(first)
	if h.tls != nil {
		if !hear() {
			return
		}
		conn = tls.Server(conn, h.tls)
	}
	for _, p := range h.says {
		if !hear() {
			return
		}
		say(p)
	}
	_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond)) // nothing more is said
	for hear() {
	}
}

func switchTo(plugin, salt string) []byte {
	return append(append([]byte{0xfe}, plugin+"\x00"...), salt...)
}

// selfSigned is a certificate that nobody trusts.
func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// A server that nobody has proven to be the right one gets no password, whatever it asks for, and brings nothing down.
func TestHostileServers(t *testing.T) {
	t.Parallel()
	const salt = "12345678901234567890\x00"
	const all = ours | canTLS
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	ecDER, err := x509.MarshalPKIXPublicKey(&ecKey.PublicKey)
	require.NoError(t, err)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	smallDER, err := x509.MarshalPKIXPublicKey(&small.PublicKey)
	require.NoError(t, err)
	pemOf := func(der []byte) []byte {
		return append([]byte{1}, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	untrusted := selfSigned(t)
	for name, c := range map[string]struct {
		mode  string
		first []byte
		tls   *tls.Config
		says  [][]byte
		want  string
	}{
		"asks for it in clear text":                     {"disable", greeting(byNative, ours), nil, [][]byte{switchTo(byClear, "")}, "The server asks for the password in clear text"},
		"asks for it in clear text from the beginning":  {"disable", greeting(byClear, ours), nil, [][]byte{switchTo(byClear, salt)}, "The server asks for the password in clear text"},
		"asks for it in TLS that proves nothing":        {"require", greeting(byNative, all), untrusted, [][]byte{switchTo(byClear, "")}, "it is not proven that it is the right server"},
		"is not trusted":                                {"verify-full", greeting(bySHA2, all), untrusted, [][]byte{{1, 4}}, "The certificate of the server at"},
		"says that it has no TLS":                       {"require", greeting(bySHA2, ours), nil, [][]byte{{1, 4}}, "speaks no TLS"},
		"wants all, with a key that is none":            {"disable", greeting(bySHA2, ours), nil, [][]byte{{1, 4}, append([]byte{1}, "-----BEGIN"...)}, "the server's key is none"},
		"wants all, with another kind of key":           {"disable", greeting(bySHA2, ours), nil, [][]byte{{1, 4}, pemOf(ecDER)}, `the server's key is a \*ecdsa\.PublicKey`},
		"wants all, with a key that is no number":       {"disable", greeting(bySHA256, ours), nil, [][]byte{switchTo(bySHA256, salt), pemOf([]byte{1, 2, 3})}, "reading the server's key"},
		"is content without a proof, and wants a query": {"disable", greeting(bySHA2, ours), nil, [][]byte{{1, 4}, pemOf(smallDER), {1, 4}}, "the server's answer is not of the expected form|cannot be reached"},
		"has a short salt":                              {"disable", greeting(byNative, ours), nil, [][]byte{switchTo(byNative, "x")}, "a salt of 1 bytes"},
		"has a short salt for ed25519":                  {"disable", greeting(byNative, ours), nil, [][]byte{switchTo(byEd25519, salt)}, "a salt of 20 bytes"},
		"wants an unknown way":                          {"disable", greeting(byNative, ours), nil, [][]byte{switchTo("dialog", "Password:")}, `wants the user "capture" to log in by "dialog"`},
		"switches for ever":                             {"disable", greeting(byNative, ours), nil, bytesTimes(switchTo(byNative, salt), 20), "the login does not end"},
		"says nothing of use":                           {"disable", []byte{10, 0}, nil, nil, "no MySQL server"},
		"is old":                                        {"disable", greeting(byNative, canProtocol41), nil, nil, "a very old one"},
		"has an empty packet":                           {"disable", greeting(byNative, ours), nil, [][]byte{{}}, "an empty packet"},
		"refuses":                                       {"disable", greeting(byNative, ours), nil, [][]byte{append([]byte{0xff, 0x15, 0x04}, "#28000no"...)}, `does not let the user "capture" in`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &hostile{says: c.says, tls: c.tls}
			cfg := config{Address: h.start(t, c.first), User: "capture", Password: schema.NewSecret(loginPassword), SSLMode: c.mode}
			_, err := newDialer(cfg, testEnv(t).Log).open(t.Context())
			require.Error(t, err)
			require.Regexp(t, c.want, usererr.Message(err)+err.Error())
			require.NotContains(t, err.Error(), loginPassword)
			<-h.done
			require.NotContains(t, h.got.String(), loginPassword)
		})
	}
}

func bytesTimes(p []byte, n int) (out [][]byte) {
	for range n {
		out = append(out, p)
	}
	return out
}

// Every way to log in that servers have, with and without TLS, with passwords of any length.
func TestLogins(t *testing.T) {
	t.Parallel()
	flavors(t, func(t *testing.T, flavor string) {
		db := databaseOn(t, server.MySQL(t, flavor, nil))
		ways := []string{bySHA2, bySHA256}
		if flavor == mysqld.MariaDB {
			ways = []string{byNative}
			if err := db.session("").exec(t.Context(), "INSTALL SONAME 'auth_ed25519'"); err == nil { // a package of its own
				ways = append(ways, "ed25519")
			}
		}
		for i, way := range ways {
			for j, password := range []string{"", "x", loginPassword, "ünïcödé '\"\\ 日本", string(bytes.Repeat([]byte("long"), 40))} {
				user := fmt.Sprintf("u%d_%d", i, j)
				with := "IDENTIFIED WITH " + way + " BY " + quotePlain(password)
				if flavor == mysqld.MariaDB {
					with = "IDENTIFIED VIA " + way + " USING PASSWORD(" + quotePlain(password) + ")"
				}
				db.exec("CREATE USER " + user + "@'%' " + with)
				modes := []string{"disable", "disable"} // the first one fills the server's cache
				if flavor == mysqld.MySQL {
					modes = append(modes, "require")
				}
				for _, mode := range modes {
					cfg := db.cfg
					cfg.User, cfg.Password, cfg.SSLMode = user, schema.NewSecret(password), mode
					s, err := newDialer(cfg, testEnv(t).Log).open(t.Context())
					require.NoError(t, err, "%s %s %q", way, mode, password)
					row, err := s.row(t.Context(), "SELECT CURRENT_USER(), @@version")
					require.NoError(t, err)
					require.Equal(t, user+"@%", row[0])
					require.NoError(t, s.close())
				}
			}
		}
	})
}

func quotePlain(s string) string {
	return "'" + string(bytes.ReplaceAll(bytes.ReplaceAll([]byte(s), []byte(`\`), []byte(`\\`)), []byte(`'`), []byte(`''`))) + "'"
}

// scriptedConn is a connection on which a server has said all that it will ever say.
type scriptedConn struct {
	net.Conn
	says io.Reader
	got  bytes.Buffer
}

func (c *scriptedConn) Read(p []byte) (int, error)      { return c.says.Read(p) }
func (c *scriptedConn) Write(p []byte) (int, error)     { return c.got.Write(p) }
func (c *scriptedConn) SetReadDeadline(time.Time) error { return nil }

// Whatever a server says, without TLS it gets no password.
func FuzzLogin(f *testing.F) {
	packet := func(seq byte, p []byte) []byte { return append([]byte{byte(len(p)), byte(len(p) >> 8), 0, seq}, p...) }
	f.Add(append(packet(0, greeting(byNative, ours)), packet(2, switchTo(byClear, ""))...))
	f.Add(append(append(packet(0, greeting(bySHA2, ours)), packet(2, []byte{1, 4})...), packet(4, []byte("\x01-----BEGIN"))...))
	f.Add(append(packet(0, greeting(bySHA256, ours)), packet(2, switchTo(bySHA256, "12345678901234567890\x00"))...))
	f.Fuzz(func(t *testing.T, says []byte) {
		conn := &scriptedConn{says: bytes.NewReader(says)}
		l := login{user: "capture", password: schema.NewSecret(loginPassword), verified: true}
		_, _ = l.open(conn)
		require.NotContains(t, conn.got.String(), loginPassword)
	})
}
