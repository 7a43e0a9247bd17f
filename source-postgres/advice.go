package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// SQLSTATE codes that something is made of here.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	stateInvalidPassword      = "28P01"
	stateInvalidAuthorization = "28000"
	stateNoDatabase           = "3D000"
	stateNoPrivilege          = "42501"
	stateUndefinedTable       = "42P01"
	stateUndefinedColumn      = "42703"
	stateUndefinedObject      = "42704"
	stateDuplicateObject      = "42710"
	stateInUse                = "55006"
	stateNotReady             = "55000"
	stateConfigLimit          = "53400"
	stateTooManyConnections   = "53300"
	stateCannotConnectNow     = "57P03"
	stateQueryCanceled        = "57014"
	stateSerialization        = "40001"
	stateDeadlock             = "40P01"
)

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func serverMessage(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Message
	}
	return ""
}

// connectAdvice says in words for people why connecting did not work and what to do.
func (c config) connectAdvice(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if through, ok := errors.AsType[*tunnelError](err); ok {
		return through.err
	}
	if advised := c.refusedByServer(err); advised != nil {
		return advised
	}
	var (
		dns      *net.DNSError
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		verify   *tls.CertificateVerificationError
		timeout  net.Error
		remote   *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		return usererr.New(err, "The host name of the address %s is not known. Check it for typing errors, and that this machine can resolve it.", c.Address)
	case errors.Is(err, syscall.ECONNREFUSED):
		return usererr.New(err, "Nothing listens at %s. Check host and port, that the server runs, and that its listen_addresses includes this address.", c.Address)
	case errors.As(err, &hostname):
		return usererr.New(err, "The server at %s shows a certificate for another name. Use the name in the certificate, or sslmode verify-ca if you trust whoever has a certificate of that authority.", c.Address)
	case errors.As(err, &unknown), errors.As(err, &verify):
		return usererr.New(err, "The certificate of the server at %s cannot be verified. Put the certificate of its authority into sslRootCert. (sslmode require would connect without knowing who answers.)", c.Address)
	case errors.As(err, &remote) && remote.Op == "remote error" && c.SSLCert != "": // an alert of TLS
		return usererr.New(err, "The server at %s does not accept the client certificate: %s. Check that sslCert is signed by an authority that the server knows (its ssl_ca_file), and has not expired.", c.Address, lastPhrase(remote))
	case c.SSLCert != "" && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)):
		// With TLS 1.3 the server refuses a certificate after the handshake; its alert may be lost when it hangs up.
		return usererr.New(err, "The server at %s hung up after it was shown the client certificate. Check that sslCert is signed by an authority that the server knows (its ssl_ca_file), and has not expired.", c.Address)
	case strings.Contains(err.Error(), "refused TLS"):
		return usererr.New(err, "The server at %s does not offer TLS. Switch it on there (ssl = on), or, if the network between is yours, set sslmode to disable.", c.Address)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return usererr.New(err, "The server at %s did not answer within %s. Check that the address is right and that no firewall drops the connection.", c.Address, connectTimeout)
	}
	return usererr.New(err, "Connecting to %s was not possible: %s.", c.Address, lastPhrase(err))
}

// refusedByServer is for a server that answered, but with no; nil if it did not answer.
func (c config) refusedByServer(err error) error {
	if name := poolerName(serverMessage(err)); name != "" {
		return c.isPooler(err, name, "it says "+strconv.Quote(serverMessage(err)))
	}
	switch sqlState(err) {
	case "":
		return nil
	case stateInvalidPassword, stateInvalidAuthorization:
		if advised := c.authAdvice(err); advised != nil {
			return advised
		}
	}
	switch sqlState(err) {
	case stateInvalidPassword:
		return usererr.New(err, "The server at %s does not accept the password of user %q. Check user and password.", c.Address, c.User)
	case stateInvalidAuthorization:
		return usererr.New(err, "The server at %s does not let user %q in: %s. Check the user's name and the server's pg_hba.conf, which may want TLS (sslmode) or another method for this address.",
			c.Address, c.User, serverMessage(err))
	case stateNoDatabase:
		return usererr.New(err, "The server at %s has no database %q. Check the name; upper and lower case matter.", c.Address, c.Database)
	case stateNoPrivilege:
		return usererr.New(err, "User %q may not do that: %s.", c.User, serverMessage(err))
	case stateTooManyConnections:
		return usererr.New(err, "The server at %s has no connection left (%s). Raise max_connections or max_wal_senders, or close connections that are not needed.", c.Address, serverMessage(err))
	case stateCannotConnectNow:
		return usererr.New(err, "The server at %s is starting up or shutting down. Try again in a moment.", c.Address)
	}
	return usererr.New(err, "The server at %s refused the connection: %s.", c.Address, serverMessage(err))
}

// authAdvice is for who logs in with something else than a password; nil for those who do.
func (c config) authAdvice(err error) error {
	switch {
	case c.Auth.Type == authAWS:
		return usererr.New(err, "The database at %s does not accept the token of AWS for user %q: %s. Check that the instance has IAM authentication on, that the user has been granted rds_iam, and that the identity may rds-db:connect as that user.", c.Address, c.User, serverMessage(err))
	case strings.Contains(serverMessage(err), "certificate"):
		return usererr.New(err, "The server at %s does not let user %q in: %s. Enter a client certificate and its key in sslCert and sslKey; its common name must be the user's, unless the server maps names (pg_ident.conf).", c.Address, c.User, serverMessage(err))
	}
	return nil
}

// lastPhrase is the innermost error, which says what happened rather than where.
func lastPhrase(err error) string {
	for {
		next := errors.Unwrap(err)
		if many, ok := err.(interface{ Unwrap() []error }); ok {
			next = many.Unwrap()[len(many.Unwrap())-1]
		}
		if next == nil {
			return strings.TrimSuffix(err.Error(), ".")
		}
		err = next
	}
}

// isRowSecurity recognises the refusal of a query that row-level security would filter; its SQLSTATE is the same as that
// of a missing grant.
func isRowSecurity(message string) bool { return strings.Contains(message, "row-level security") }
