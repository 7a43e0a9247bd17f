package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// SQLSTATEs that people can do something about.
const (
	codeDiskFull           = "53100"
	codeTooManyConnections = "53300"
	codeConfigurationLimit = "53400"
	codeReadOnly           = "25006"
	codeLockNotAvailable   = "55P03"
	codeNoPrivilege        = "42501"
	codeWrongPassword      = "28P01"
	codeNotAuthorized      = "28000"
	codeNoDatabase         = "3D000"
	codeNoSchema           = "3F000"
	codeNoTable            = "42P01"
	codeDependents         = "2BP01"
	codeNotNull            = "23502"
	codeUnique             = "23505"
	codeForeignKey         = "23503"
	codeCheck              = "23514"
	codeExclusion          = "23P01"
	codeUnsupported        = "0A000"
	codeStalled            = "25P03"
	codeTooManyColumns     = "54011"
	codeProgramLimit       = "54000"
	codeCardinality        = "21000"
	codeNotSupported       = "0A000"
	codeDeadlock           = "40P01"
	codeSerialization      = "40001"
	codeAdminShutdown      = "57P01"
	codeCannotConnectNow   = "57P03"
)

// The first two characters of SQLSTATEs that have much in common.
const (
	classWrongValue     = "22"
	classWrongStatement = "42"
)

// explainConnect turns a failed connection into words for people.
func explainConnect(err error, cfg config) error {
	if through, ok := errors.AsType[*tunnelError](err); ok {
		return through.err
	}
	addr, _ := cfg.address()
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch server.Code {
		case codeWrongPassword, codeNotAuthorized:
			if strings.Contains(server.Message, "no pg_hba.conf entry") {
				return usererr.New(err, "The server at %s does not let user %q connect to database %q from here. Allow it in pg_hba.conf, or set sslmode if the server insists on TLS.", cfg.Address, cfg.User, cfg.Database)
			}
			return usererr.New(err, "The server at %s refused user %q: the password is wrong or the user may not log in.", cfg.Address, cfg.User)
		case codeNoDatabase:
			return usererr.New(err, "There is no database %q on the server at %s. Create it, or correct the configuration.", cfg.Database, cfg.Address)
		case codeTooManyConnections:
			return usererr.New(err, "The server at %s has no connection left. Each materialization needs two; raise max_connections or close others.", cfg.Address)
		case codeCannotConnectNow:
			return usererr.New(err, "The server at %s is starting up or shutting down. It will be tried again.", cfg.Address)
		}
		return usererr.New(err, "The server at %s refused the connection: %s.", cfg.Address, server.Message)
	}
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &dns):
		return usererr.New(err, "The host %q cannot be found. Check the address.", addr.Host)
	case errors.As(err, &unknown):
		return usererr.New(err, "The certificate of the server at %s is signed by an authority that is not trusted. Set sslRootCert to that authority's certificate.", cfg.Address)
	case errors.As(err, &name):
		return usererr.New(err, "The certificate of the server at %s is not made for the name %q. Use a name that it is made for, or sslmode verify-ca.", cfg.Address, addr.Host)
	case errors.As(err, &record), strings.Contains(err.Error(), "server refused TLS connection"):
		return usererr.New(err, "The server at %s does not speak TLS, and sslmode is %s. Switch TLS on in the server, or set sslmode to disable if you trust the network in between.", cfg.Address, cfg.tls(addr).Mode)
	case errors.Is(err, context.DeadlineExceeded):
		return usererr.New(err, "The server at %s does not answer. Check the address, and that a firewall lets this machine through.", cfg.Address)
	}
	return usererr.New(err, "The server at %s cannot be reached. Check host and port, and that the server is running.", cfg.Address)
}

// explain turns a failed statement into words for people. The ctx is the one that carried the statement's deadline.
func (c *conn) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return usererr.New(err, "The destination did not finish a statement within %s. It may be overloaded, out of disk space or out of reach; see also advanced.statementTimeout.", c.timeout)
	}
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return explainServer(server, err)
	}
	if ctx.Err() == nil && c.pg.IsClosed() {
		return usererr.New(err, "The connection to the destination broke. It will be opened again, and what was not committed is repeated.")
	}
	return err
}

func explainServer(server *pgconn.PgError, err error) error {
	// The text of a function is known only when it runs, and only triggers make ours run functions of others. A block of our own is none.
	if strings.HasPrefix(server.Code, classWrongStatement) && server.Where != "" && !strings.Contains(server.Where, "inline_code_block") {
		return usererr.New(err, "A trigger's function in the destination fails: %s (%s). If it is a name that is not found: write it with its schema, or run ALTER FUNCTION … SET search_path. The connector's sessions find names without one in pg_catalog only.",
			server.Message, strings.ReplaceAll(server.Where, "\n", "; "))
	}
	switch server.Code {
	case codeDiskFull:
		return usererr.New(err, "The destination's disk is full (%s). Free or add disk space; nothing was committed and the transaction will be repeated.", server.Message)
	case codeConfigurationLimit:
		return usererr.New(err, "The destination reached a configured limit: %s.", server.Message)
	case codeReadOnly:
		return usererr.New(err, "The destination is read-only: it is a standby, or default_transaction_read_only is on. Use the address of the primary, or make it writable.")
	case codeLockNotAvailable:
		return usererr.New(err, "Something in the destination is locked by another session, longer than the lock timeout. Look for long transactions in pg_stat_activity, or raise advanced.lockTimeout.")
	case codeNoPrivilege:
		return usererr.New(err, "The user lacks a privilege in the destination: %s. Grant it, or make the user the owner.", server.Message)
	case codeNoTable, codeNoSchema:
		return usererr.New(err, "Something is missing in the destination: %s. If it was dropped by hand, increase the binding's backfill counter to create it anew.", server.Message)
	case codeDependents:
		return usererr.New(err, "A table must be replaced, but other objects depend on it (%s). Drop them, let the table be replaced, and create them again.", strings.ReplaceAll(server.Detail, "\n", "; "))
	case codeNotNull:
		return usererr.New(err, "Column %q of %s.%s does not allow NULL, but a document has no value for it. Drop the column's NOT NULL.", server.ColumnName, server.SchemaName, server.TableName)
	case codeNotSupported:
		return usererr.New(err, "The destination does not allow it: %s. If it is because other objects depend on the table (%s), drop them, let the table be changed, and create them again.", server.Message, strings.ReplaceAll(server.Detail, "\n", "; "))
	case codeUnique:
		return usererr.New(err, "A row breaks the unique constraint %q of %s.%s, which is not that of the collection's key: %s. Drop the constraint, or correct the rows.", server.ConstraintName, server.SchemaName, server.TableName, server.Detail)
	case codeCheck, codeForeignKey, codeExclusion:
		return usererr.New(err, "The destination refuses a row: %s. %s Correct the row at its source, or change the table so that it takes it.", server.Message, server.Detail)
	case codeCardinality:
		return keysAreOne(err)
	case codeTooManyColumns:
		return usererr.New(err, "A table can have 1600 columns in Postgres, and this collection has more fields. Exclude some of them.")
	case codeProgramLimit:
		return usererr.New(err, "A value is too large for the destination: %s. A key can have about 2700 bytes.", server.Message)
	case codeStalled:
		return usererr.New(err, "No rows came for longer than advanced.lockTimeout in the middle of a transaction, so the destination ended it, lest it keep others waiting. Nothing of it was stored, and it will be repeated. Look why the runtime stalls.")
	case codeDeadlock, codeSerialization:
		return usererr.New(err, "Another session in the destination changed the same rows in another order (%s), so the server ended our transaction. Nothing of it was stored, and it will be repeated. If it happens often, look for what else writes to the tables.", server.Message)
	case codeAdminShutdown:
		return usererr.New(err, "The destination ended the connection: %s. It will be opened again.", server.Message)
	}
	if strings.HasPrefix(server.Code, classWrongValue) {
		return usererr.New(err, "The destination refuses a value: %s (%s). Correct it at its source, or set castToString or another columnType in its field's configuration and increase the binding's backfill counter.",
			server.Message, strings.ReplaceAll(server.Where, "\n", "; "))
	}
	return err
}

func keysAreOne(cause error) error {
	return usererr.New(cause, "Two keys of the collection are one in the destination, such as 1.0 and 1.00 in a column of numbers. Set castToString in the key's configuration and increase the binding's backfill counter.")
}
