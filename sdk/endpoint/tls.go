package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Modes of TLS. Modes that fall back to plain text without a word ("prefer", "allow") do not exist.
const (
	Disable    = "disable"     // plain text
	Require    = "require"     // encrypted, but whoever answers is believed
	VerifyCA   = "verify-ca"   // … has a certificate of a trusted authority
	VerifyFull = "verify-full" // … for the host's name
)

// TLS says how a connection is protected. The zero value is VerifyFull with the system's authorities.
type TLS struct {
	Mode     string        // one of the modes; empty means VerifyFull
	RootCert string        // certificate authorities in PEM form; empty means the system's
	Cert     string        // our own certificate in PEM form, with those between it and the authority; empty for none
	Key      schema.Secret // the key of Cert in PEM form, without a passphrase
}

// Validate reports every problem at once, in words for people.
func (t TLS) Validate() error {
	var errs []error
	switch t.Mode {
	case "", Disable, Require, VerifyCA, VerifyFull:
	default:
		errs = append(errs, usererr.New(nil, "The SSL mode %q does not exist. Choose disable, require, verify-ca or verify-full.", t.Mode))
	}
	if t.RootCert != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(t.RootCert)) {
		errs = append(errs, usererr.New(nil, "The SSL root certificate holds no certificate. Paste the text of a PEM file, "+
			"which begins with -----BEGIN CERTIFICATE-----."))
	}
	if t.Cert != "" && t.Mode == Disable {
		errs = append(errs, usererr.New(nil, "A client certificate (sslCert) is shown over TLS only, and sslmode is disable. Choose verify-full."))
	}
	if _, err := t.certificates(); err != nil {
		errs = append(errs, err)
	}
	return usererr.Join("", errs)
}

// Config is what crypto/tls needs to connect to a host; nil for plain text. The host is the server's own, also where a tunnel
// leads there.
func (t TLS) Config(host string) (*tls.Config, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if t.Mode == Disable {
		return nil, nil //nolint:nilnil // no TLS
	}
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if t.RootCert != "" {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM([]byte(t.RootCert))
	}
	var err error
	if c.Certificates, err = t.certificates(); err != nil {
		return nil, err
	}
	switch t.Mode {
	case Require:
		c.InsecureSkipVerify = true //nolint:gosec // what "require" means; the documentation says so
	case VerifyCA:
		c.InsecureSkipVerify = true //nolint:gosec // the chain is verified below, the name is not
		c.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, c.RootCAs) }
	}
	return c, nil
}

// verifyChain is verification without the host name.
func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, cert := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return nil
}

// certificates are those of the client. What is wrong with them is said without showing them.
func (t TLS) certificates() ([]tls.Certificate, error) {
	switch {
	case t.Cert == "" && t.Key.IsZero():
		return nil, nil
	case t.Cert == "":
		return nil, usererr.New(nil, "There is a client key (sslKey) without its certificate. Enter the certificate in sslCert.")
	case t.Key.IsZero():
		return nil, usererr.New(nil, "There is a client certificate (sslCert) without its key. Enter the key in sslKey.")
	}
	block, _ := pem.Decode([]byte(t.Key.Reveal()))
	switch {
	case block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, usererr.New(nil, "The client key (sslKey) holds no key. Paste the text of a PEM file, which begins with -----BEGIN PRIVATE KEY----- or the like.")
	case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, usererr.New(nil, "The client key (sslKey) is protected by a passphrase. Take the passphrase off, openssl pkey -in client.key -out plain.key, and paste that.")
	}
	pair, err := tls.X509KeyPair([]byte(t.Cert), []byte(t.Key.Reveal()))
	if err != nil {
		return nil, usererr.New(err, "The client certificate (sslCert) and its key (sslKey) cannot be used: they do not belong together, or are not in PEM form.")
	}
	return []tls.Certificate{pair}, nil
}
