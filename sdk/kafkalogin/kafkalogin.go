// Package kafkalogin is what people write to reach a Kafka cluster: how to log in, and how connections are protected. It is shared
// by who captures topics and by who keeps the log in them, and has no client, but what one dials with.
package kafkalogin

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Credentials are how to log in.
type Credentials struct {
	Method             string        `json:"method,omitempty" title:"Method" desc:"How to log in: none, by a user and a password (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), by a token (OAUTHBEARER), or by the IAM of Amazon (AWS_MSK_IAM)." enum:",none,PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER,AWS_MSK_IAM" order:"0"`
	Username           string        `json:"username,omitempty" title:"User" desc:"The user, for PLAIN and SCRAM." order:"1"`
	Password           schema.Secret `json:"password,omitzero" title:"Password" desc:"The user's password, for PLAIN and SCRAM." secret:"true" order:"2"`
	Token              schema.Secret `json:"token,omitzero" title:"Token" desc:"A token that does not expire, for OAUTHBEARER. Tokens that do are fetched from tokenEndpoint." secret:"true" order:"3"`
	TokenEndpoint      string        `json:"tokenEndpoint,omitempty" title:"Token Endpoint" desc:"The https address that gives out tokens for a client's credentials, for OAUTHBEARER." order:"4"`
	ClientID           string        `json:"clientId,omitempty" title:"Client ID" desc:"The client that tokens are fetched for." order:"5"`
	ClientSecret       schema.Secret `json:"clientSecret,omitzero" title:"Client Secret" desc:"The client's secret." secret:"true" order:"6"`
	Scopes             []string      `json:"scopes,omitempty" title:"Scopes" desc:"The scopes to ask for, if the token endpoint wants any." order:"7"`
	AWSAccessKeyID     string        `json:"awsAccessKeyId,omitempty" title:"AWS Access Key" desc:"The access key, for AWS_MSK_IAM. Empty means what the machine has: environment, profile, role." order:"8"`
	AWSSecretAccessKey schema.Secret `json:"awsSecretAccessKey,omitzero" title:"AWS Secret Key" desc:"The secret of the access key." secret:"true" order:"9"`
	AWSSessionToken    schema.Secret `json:"awsSessionToken,omitzero" title:"AWS Session Token" desc:"The session token, if the access key is a temporary one." secret:"true" order:"10"`
}

// TLS is how connections are protected.
type TLS struct {
	Mode     string        `json:"mode,omitempty" title:"Mode" desc:"How connections are protected. Empty means verify-full, or disable if all bootstrap servers are loopback addresses. Only verify-full and verify-ca prove which server answers." enum:",disable,require,verify-ca,verify-full" order:"0"`
	RootCert string        `json:"rootCert,omitempty" title:"Root Certificate" desc:"The certificate of the authority that signed the brokers' certificates, as PEM text. Empty means the authorities this machine trusts." multiline:"true" order:"1"`
	Cert     string        `json:"cert,omitempty" title:"Client Certificate" desc:"The certificate that you show to the brokers, as PEM text, if they want one." multiline:"true" order:"2"`
	Key      schema.Secret `json:"key,omitzero" title:"Client Key" desc:"The key of the client certificate, as PEM text without a passphrase." secret:"true" multiline:"true" order:"3"`
}

// The ways to log in, as Credentials.Method has them; "" is None.
const (
	None     = "none"
	Plain    = "PLAIN"
	SCRAM256 = "SCRAM-SHA-256"
	SCRAM512 = "SCRAM-SHA-512"
	OAuth    = "OAUTHBEARER"
	AWS      = "AWS_MSK_IAM"
)

// Problems are what is wrong with the credentials, for people.
func (c Credentials) Problems() []error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	switch c.Method {
	case "", None:
		if c.Username != "" || !c.Password.IsZero() || !c.Token.IsZero() || c.TokenEndpoint != "" || c.AWSAccessKeyID != "" {
			problem("There are credentials, but no method to log in with. Choose one in credentials.method.")
		}
	case Plain, SCRAM256, SCRAM512:
		if c.Username == "" {
			problem("Enter the user to log in as, in credentials.username.")
		}
		if c.Password.IsZero() {
			problem("Enter the user's password, in credentials.password.")
		}
	case OAuth:
		switch u, err := url.Parse(c.TokenEndpoint); {
		case c.Token.IsZero() == (c.TokenEndpoint == ""):
			problem("Enter either a token, in credentials.token, or where tokens are fetched, in credentials.tokenEndpoint.")
		case c.TokenEndpoint == "":
		case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
			problem("The token endpoint %q is not an address such as https://login.example.com/oauth2/token.", Redacted(u, c.TokenEndpoint))
		case u.User != nil:
			problem("The token endpoint %q holds a login, and addresses are shown in logs. Enter it in credentials.clientId and credentials.clientSecret.", u.Redacted())
		case !Private(u):
			problem("The token endpoint %q would be sent the client's secret in clear text. Use an address that begins with https://.", c.TokenEndpoint)
		case c.ClientID == "" || c.ClientSecret.IsZero():
			problem("Enter the client that tokens are fetched for, in credentials.clientId and credentials.clientSecret.")
		}
	case AWS:
		if (c.AWSAccessKeyID == "") != c.AWSSecretAccessKey.IsZero() {
			problem("An access key of AWS has two parts: enter credentials.awsAccessKeyId and credentials.awsSecretAccessKey, or neither.")
		}
	default:
		problem("The method %q to log in does not exist. Choose none, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM.", c.Method)
	}
	return errs
}

// Settings are what was written, for a cluster with these bootstrap servers. Without a word from the user they are verify-full, except
// that a cluster on this machine, for which nothing about certificates was said, is reached in plain text.
func (t TLS) Settings(brokers []endpoint.Address) endpoint.TLS {
	settings := endpoint.TLS{Mode: t.Mode, RootCert: t.RootCert, Cert: t.Cert, Key: t.Key}
	remote := func(a endpoint.Address) bool { return !a.IsLoopback() }
	if t.Mode == "" && t.RootCert == "" && t.Cert == "" && len(brokers) > 0 && !slices.ContainsFunc(brokers, remote) {
		settings.Mode = endpoint.Disable
	}
	return settings
}

// HandshakeTimeout is how long a broker may take to agree on a protected connection. Clients bound only requests.
const HandshakeTimeout = 20 * time.Second

// Dialer opens connections to brokers, which may take the timeout to agree on a protected one. The name in a broker's certificate is that of the
// address at which it is reached. The settings must be valid ([endpoint.TLS.Validate]). A protected connection that does not come about is a
// [HandshakeError]. It may be called from any goroutine.
func Dialer(protect endpoint.TLS, timeout time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	var tcp endpoint.NetDialer
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := tcp.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		settings, err := protect.Config(host)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		if settings == nil {
			return conn, nil
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		secure := tls.Client(conn, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &HandshakeError{err}
		}
		return secure, nil
	}
}

// HandshakeError is a TLS connection that did not come about.
type HandshakeError struct{ cause error }

func (e *HandshakeError) Error() string { return "protecting the connection: " + e.cause.Error() }

// Unwrap is why.
func (e *HandshakeError) Unwrap() error { return e.cause }

// Redacted is an address for messages, without the password that it may hold. u is nil if it cannot be parsed.
func Redacted(u *url.URL, address string) string {
	if u != nil {
		return u.Redacted()
	}
	if _, host, ok := strings.Cut(address, "@"); ok {
		return "…@" + host
	}
	return address
}

// Private tells whether nobody else can read what is sent to an address.
func Private(u *url.URL) bool {
	return u.Scheme == "https" || endpoint.Address{Host: u.Hostname()}.IsLoopback()
}
