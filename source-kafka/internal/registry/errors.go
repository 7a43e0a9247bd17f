package registry

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// unavailableError is a registry that does not answer, or answers that it cannot now.
type unavailableError struct{ cause error }

func (e *unavailableError) Error() string { return e.cause.Error() }
func (e *unavailableError) Unwrap() error { return e.cause }

// IsUnavailable tells whether the registry could not be asked: what failed may succeed later, and says nothing about the
// schema.
func IsUnavailable(err error) bool { return isUnavailable(err) }

func isUnavailable(err error) bool {
	var u *unavailableError
	return errors.As(err, &u)
}

// meaning turns what the client reports into ErrNotFound, an outage, or advice for the user.
func (c *Client) meaning(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var answer *sr.ResponseError
	if !errors.As(err, &answer) {
		return c.transport(err)
	}
	switch {
	case answer.StatusCode == http.StatusNotFound && (answer.ErrorCode != 0 || answer.Message != ""):
		if answer.ErrorCode >= 40401 && answer.ErrorCode <= 40499 {
			return fmt.Errorf("%w (%s)", ErrNotFound, answer.Message)
		}
		return c.notARegistry(err)
	case answer.StatusCode == http.StatusNotFound:
		return c.notARegistry(err)
	case answer.StatusCode == http.StatusUnauthorized:
		return usererr.New(err, "The schema registry at %s does not accept the user and password. "+
			"Check schemaRegistry.username and schemaRegistry.password.", c.address)
	case answer.StatusCode == http.StatusForbidden:
		return usererr.New(err, "The schema registry at %s does not let this user read schemas. "+
			"Give it the right to read the subjects of the captured topics.", c.address)
	case answer.StatusCode >= http.StatusInternalServerError, answer.StatusCode == http.StatusTooManyRequests,
		answer.StatusCode == http.StatusRequestTimeout:
		return &unavailableError{usererr.New(err, "The schema registry at %s cannot answer now (HTTP status %d).", c.address, answer.StatusCode)}
	default:
		return usererr.New(err, "The schema registry at %s refuses the request with HTTP status %d: %s", c.address, answer.StatusCode, answer.Message)
	}
}

func (c *Client) notARegistry(err error) error {
	return usererr.New(err, "What answers at %s does not know a path of the schema registry's API. Check schemaRegistry.endpoint, "+
		"its path included: Apicurio, for example, has the API below /apis/ccompat/v7.", c.address)
}

// transport gives advice on connections that could not be made.
func (c *Client) transport(err error) error {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		lookup    *net.DNSError
		network   net.Error
	)
	switch {
	case errors.As(err, &authority):
		return usererr.New(err, "The certificate of the schema registry at %s is not signed by an authority that is trusted here. "+
			"Set schemaRegistry.rootCert to the certificate of its authority.", c.address)
	case errors.As(err, &name):
		return usererr.New(err, "The certificate of the schema registry at %s was made for another name. "+
			"Use the name that the certificate has in schemaRegistry.endpoint.", c.address)
	case errors.As(err, &invalid):
		return usererr.New(err, "The certificate of the schema registry at %s is not valid: %s", c.address, invalid.Error())
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return &unavailableError{usererr.New(err, "The name of the schema registry's host, %q, is not known here. "+
			"Check schemaRegistry.endpoint.", lookup.Name)}
	case errors.As(err, &network):
		return &unavailableError{usererr.New(err, "The schema registry at %s does not answer. "+
			"Check schemaRegistry.endpoint, and that this machine may connect to it.", c.address)}
	default:
		return usererr.New(err, "The answer of the schema registry at %s cannot be understood. Check schemaRegistry.endpoint.", c.address)
	}
}
