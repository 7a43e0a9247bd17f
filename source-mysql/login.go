package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// login is who we are to a server, and how we prove it. It has what the server asks for decide nothing: the password leaves this
// machine as it is only inside of TLS, and to a server that asks for nothing else only inside of TLS whose other end is proven.
type login struct {
	user     string
	password schema.Secret
	tls      *tls.Config // nil for plain text
	verified bool        // tls proves who answers

	wire   *wire
	secure bool // TLS has begun
	plugin string
	salt   []byte
	caps   uint32 // the server's
	id     uint32
}

// What client and server can do.
const (
	canLongPassword = 1
	canLongFlag     = 4
	canProtocol41   = 0x200
	canTLS          = 0x800
	canTransactions = 0x2000
	canSalt         = 0x8000
	canPlugins      = 0x80000

	ours = canLongPassword | canLongFlag | canProtocol41 | canTransactions | canSalt | canPlugins
)

// Ways to prove who one is.
const (
	byNative  = "mysql_native_password"
	bySHA2    = "caching_sha2_password"
	bySHA256  = "sha256_password"
	byEd25519 = "client_ed25519"
	byClear   = "mysql_clear_password"
)

const utf8mb4 = 45 // the collation that the connection begins with

var errNoTLS = errors.New("the server does not support TLS")

// open logs in over a connection, which the session takes over. The caller bounds it by the connection's deadline.
func (l *login) open(conn net.Conn) (*session, error) {
	l.wire = newWire(conn, maxPacket)
	greeting, err := l.read()
	if err == nil {
		err = l.greeted(greeting)
	}
	if err == nil && l.tls != nil {
		err = l.encrypt(conn)
	}
	if err == nil {
		err = l.prove()
	}
	if err != nil {
		return nil, err
	}
	l.wire.limit = cdc.MaxRow
	return &session{wire: l.wire, id: l.id}, nil
}

// read gives the next packet, which is not empty and no error.
func (l *login) read() ([]byte, error) {
	for {
		p, ok, err := l.wire.packet()
		switch {
		case err != nil:
			return nil, err
		case !ok:
			if _, err := l.wire.fill(time.Time{}); err != nil {
				return nil, err
			}
		case len(p) == 0:
			return nil, fmt.Errorf("%w: an empty packet", errPacket)
		case p[0] == 0xff:
			return nil, errorOf(p)
		default:
			return p, nil
		}
	}
}

// greeted takes what the server says first.
func (l *login) greeted(p []byte) error {
	bad := fmt.Errorf("%w: what answers is no MySQL server, or a very old one", errPacket)
	version, rest, ok := bytes.Cut(p[1:], []byte{0})
	if p[0] != 10 || !ok || len(version) > 100 || len(rest) < 4+8+1+2+1+2+2+1+10+13 {
		return bad
	}
	l.id = binary.LittleEndian.Uint32(rest)
	l.salt = bytes.Clone(rest[4:12])
	rest = rest[13:]
	l.caps = uint32(binary.LittleEndian.Uint16(rest)) | uint32(binary.LittleEndian.Uint16(rest[5:]))<<16
	if l.caps&(canProtocol41|canPlugins) != canProtocol41|canPlugins {
		return bad
	}
	rest = rest[8+10:]
	l.salt = append(l.salt, rest[:12]...)
	plugin, _, _ := bytes.Cut(rest[13:], []byte{0})
	l.plugin = string(plugin)
	return nil
}

// encrypt puts TLS around the connection.
func (l *login) encrypt(conn net.Conn) error {
	if l.caps&canTLS == 0 {
		return errNoTLS
	}
	if l.wire.r != l.wire.w {
		return fmt.Errorf("%w: the server speaks before it is asked", errPacket) // it would be taken for a part of what is encrypted
	}
	if err := l.wire.reply(l.header(ours | canTLS)); err != nil {
		return err
	}
	protected := tls.Client(conn, l.tls)
	if err := protected.Handshake(); err != nil { //nolint:noctx // the connection has a deadline
		return fmt.Errorf("beginning TLS: %w", err)
	}
	next := l.wire.next
	l.wire = newWire(protected, maxPacket)
	l.wire.next, l.secure = next, true
	return nil
}

func (l *login) header(caps uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, caps)
	b = binary.LittleEndian.AppendUint32(b, 1<<30)
	return append(append(b, utf8mb4), make([]byte, 23)...)
}

// prove says who we are, and answers until the server is content.
func (l *login) prove() error {
	caps := uint32(ours)
	if l.secure {
		caps |= canTLS
	}
	if l.plugin != bySHA2 {
		l.plugin = byNative // the server says so if it wants something else
	}
	answer, err := l.answer()
	if err != nil {
		return err
	}
	b := append(append(l.header(caps), l.user...), 0)
	b = append(append(b, byte(len(answer))), answer...)
	if err := l.wire.reply(append(append(b, l.plugin...), 0)); err != nil {
		return err
	}
	const rounds = 10 // servers may try several ways
	for range rounds {
		p, err := l.read()
		if err != nil {
			return err
		}
		switch p[0] {
		case 0:
			return nil
		case 0xfe:
			name, salt, _ := bytes.Cut(p[1:], []byte{0})
			if len(salt) == 21 { // a zero byte ends it
				salt = salt[:20]
			}
			l.plugin, l.salt = string(name), bytes.Clone(salt)
			answer, err = l.answer()
		case 1:
			answer, err = l.more(p[1:])
		default:
			err = fmt.Errorf("%w: %#x while logging in", errPacket, p[0])
		}
		if err != nil {
			return err
		}
		if answer == nil {
			continue
		}
		if err := l.wire.reply(answer); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the login does not end", errPacket)
}

// answer is the first answer to a server that wants to be proven who we are in a certain way.
func (l *login) answer() ([]byte, error) {
	const shortest = 20
	if (l.plugin == byNative || l.plugin == bySHA2) && len(l.salt) < shortest || l.plugin == byEd25519 && len(l.salt) != 32 {
		return nil, fmt.Errorf("%w: a salt of %d bytes for %s", errPacket, len(l.salt), l.plugin)
	}
	switch l.plugin {
	case byNative:
		return append([]byte{}, mysql.CalcPassword(l.salt[:shortest], []byte(l.password.Reveal()))...), nil
	case bySHA2:
		return append([]byte{}, mysql.CalcCachingSha2Password(l.salt[:shortest], l.password.Reveal())...), nil
	case byEd25519:
		answer, err := mysql.CalcEd25519Password(l.salt, l.password.Reveal())
		if err != nil {
			return nil, fmt.Errorf("answering to %s: %w", l.plugin, err)
		}
		return answer, nil
	case bySHA256:
		if l.secure || l.password.Reveal() == "" {
			return l.clear(), nil
		}
		return []byte{1}, nil // asks for the server's key
	case byClear:
		if l.secure && l.verified {
			return l.clear(), nil
		}
		return nil, usererr.New(nil, "The server asks for the password in clear text (%s), and it is not proven that it is the right server. Set sslmode to verify-full (or verify-ca), with the certificate of its authority in sslRootCert; "+
			"or give the user %q another way to log in, such as caching_sha2_password.", byClear, l.user)
	}
	return nil, usererr.New(nil, "The server wants the user %q to log in by %q, which is not supported. Give the user another way to log in: caching_sha2_password, or of MariaDB ed25519 or mysql_native_password.", l.user, l.plugin)
}

// more is the answer to a server that was not content. Nil if there is nothing to say.
func (l *login) more(p []byte) ([]byte, error) {
	const content, wantsAll, asksForKey = 3, 4, 2
	switch {
	case l.plugin == bySHA2 && len(p) == 1 && p[0] == content:
		return nil, nil
	case l.plugin == bySHA2 && len(p) == 1 && p[0] == wantsAll:
		if l.secure {
			return l.clear(), nil
		}
		return []byte{asksForKey}, nil
	case (l.plugin == bySHA2 || l.plugin == bySHA256) && len(p) > 1 && !l.secure:
		return l.sealed(p)
	}
	return nil, fmt.Errorf("%w: %d bytes more to %s", errPacket, len(p), l.plugin)
}

// clear is the password as it is.
func (l *login) clear() []byte { return append([]byte(l.password.Reveal()), 0) }

// sealed is the password encrypted for the owner of a key, which the server sent: whoever only listens learns nothing of it.
func (l *login) sealed(key []byte) ([]byte, error) {
	block, _ := pem.Decode(key)
	if block == nil || len(l.salt) == 0 {
		return nil, fmt.Errorf("%w: the server's key is none", errPacket)
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the server's key: %w", err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: the server's key is a %T", errPacket, parsed)
	}
	out, err := mysql.EncryptPassword(l.password.Reveal(), l.salt, public)
	if err != nil {
		return nil, fmt.Errorf("encrypting the password: %w", err)
	}
	return out, nil
}
