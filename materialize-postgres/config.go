package main

import (
	"errors"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/tunnel"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// config is how users describe the endpoint.
type config struct {
	Address     string        `json:"address" title:"Address" desc:"Host and port of the database (host[:port]); the port is 5432 if left out." order:"0"`
	Database    string        `json:"database" title:"Database" desc:"Name of the database that your tables go to." order:"1"`
	Schema      string        `json:"schema" title:"Schema" desc:"Schema for tables whose binding names none, and for the connector's own two tables." default:"public" order:"2"`
	User        string        `json:"user" title:"User" desc:"Database user that you connect as." order:"3"`
	Password    schema.Secret `json:"password,omitzero" title:"Password" desc:"Password of that user. Leave it out if you log in with a certificate." secret:"true" order:"4"`
	SSLMode     string        `json:"sslmode,omitempty" title:"TLS Mode" desc:"How the connection is protected. If left out: verify-full, except for a database on the same machine, which is reached without TLS." enum:"disable,require,verify-ca,verify-full" order:"5"`
	SSLRootCert string        `json:"sslRootCert,omitempty" title:"TLS Root Certificate" desc:"Certificate authority, in PEM form, that signed the server's certificate. If left out, the system's authorities are trusted." multiline:"true" order:"6"`
	SSLCert     string        `json:"sslCert,omitempty" title:"TLS Client Certificate" desc:"Certificate that you show to the server, in PEM form, if it wants one." multiline:"true" order:"7"`
	SSLKey      schema.Secret `json:"sslKey,omitzero" title:"TLS Client Key" desc:"Key of the client certificate, in PEM form without a passphrase." secret:"true" multiline:"true" order:"8"`
	Tunnel      tunnel.Config `json:"tunnel,omitzero" title:"SSH Tunnel" desc:"SSH server that the database is reached through, if it cannot be reached directly." order:"9"`
	HardDelete  bool          `json:"hardDelete,omitempty" title:"Hard Delete" desc:"Delete rows when their source rows are deleted. Otherwise they stay, with _meta/op set to d." order:"10"`
	Advanced    advanced      `json:"advanced" title:"Advanced" desc:"Settings that most tables never need." advanced:"true" order:"11"`
}

// advanced are settings with good defaults.
type advanced struct {
	StoreDocument    bool   `json:"storeDocument,omitempty" title:"Store Documents" desc:"Also keep every whole document, in a column of its own."`
	NativeArrays     bool   `json:"nativeArrays,omitempty" title:"Native Arrays" desc:"Make columns of array types, such as bigint[], for arrays whose elements are all of one type. Otherwise arrays are stored as jsonb."`
	StatementTimeout string `json:"statementTimeout,omitempty" title:"Statement Timeout" desc:"How long you let one statement take before the connection is given up, such as 30m." default:"1h"`
	LockTimeout      string `json:"lockTimeout,omitempty" title:"Lock Timeout" desc:"How long you let a statement wait for a table or row that somebody else has locked, and how long the runtime may stall in the middle of a transaction that has locked rows itself." default:"1m"`
}

// resource is how users describe one table.
type resource struct {
	Table        string `json:"table" title:"Table" desc:"Name of the table." x-collection-name:"true"`
	Schema       string `json:"schema,omitempty" title:"Schema" desc:"Schema of the table, if it is not the endpoint's." x-schema-name:"true"`
	DeltaUpdates bool   `json:"deltaUpdates,omitempty" title:"Delta Updates" desc:"Append every change as a row of its own, instead of updating rows in place." x-delta-updates:"true"`
	Adopt        bool   `json:"adopt,omitempty" title:"Adopt" desc:"Fill a table of this name that exists already, with its rows and columns, if there is one."`
	History      string `json:"history,omitempty" title:"History" desc:"Keep every version of every row: scd2 adds the columns valid_from, valid_to, is_current and version_number." enum:"scd2"`
	HistoryTime  string `json:"historyTime,omitempty" title:"Time of Changes" desc:"Field that says when a change happened, if you keep a history of something that no capture of a database wrote."`
}

const (
	defaultPort      = 5432
	maxIdentifier    = 63 // bytes that a name can have in Postgres
	maxIndexed       = 32 // columns that an index can have
	defaultStatement = time.Hour
	defaultLock      = time.Minute
)

// Validate reports every problem at once.
func (c config) Validate() error {
	var problems []error
	require := func(value, name string) {
		if value == "" {
			problems = append(problems, usererr.New(nil, "%s is required.", name))
		}
	}
	require(c.Address, "address")
	require(c.Database, "database")
	require(c.User, "user")
	if c.Password.IsZero() && c.SSLCert == "" {
		problems = append(problems, usererr.New(nil, "password is required, unless you log in with a certificate (sslCert)."))
	}
	addr, err := c.address()
	if err != nil && c.Address != "" {
		problems = append(problems, err)
	}
	if len(c.schema()) > maxIdentifier {
		problems = append(problems, usererr.New(nil, "schema %q is longer than the 63 bytes that Postgres allows.", c.Schema))
	}
	if isSystemSchema(c.Schema) {
		problems = append(problems, notForTables(c.Schema))
	}
	problems = append(problems, c.tls(addr).Validate(), c.Tunnel.Validate())
	for name, text := range map[string]string{"statementTimeout": c.Advanced.StatementTimeout, "lockTimeout": c.Advanced.LockTimeout} {
		if d, err := parseDuration(text, time.Second); err != nil || d < time.Second {
			problems = append(problems, usererr.New(nil, "advanced.%s %q is not a duration of at least a second, such as 30s, 5m or 1h.", name, text))
		}
	}
	return usererr.Join("The endpoint configuration has problems:", problems)
}

// Validate reports every problem at once.
func (r resource) Validate() error {
	var problems []error
	if r.Table == "" {
		problems = append(problems, usererr.New(nil, "table is required."))
	}
	switch {
	case r.History != "" && r.History != historySCD2:
		problems = append(problems, usererr.New(nil, "history %q is not known; the choice is %s.", r.History, historySCD2))
	case r.History != "" && r.DeltaUpdates:
		problems = append(problems, usererr.New(nil, "deltaUpdates and history exclude each other. Choose deltaUpdates for every change as it came, or history for versions with the time in which they were valid."))
	case r.HistoryTime != "" && r.History == "":
		problems = append(problems, usererr.New(nil, "historyTime belongs to a history. Set history to %s, or leave historyTime out.", historySCD2))
	}
	if r.Adopt && r.History != "" {
		problems = append(problems, usererr.New(nil, "adopt and history exclude each other: a history needs a table of its own. Leave adopt out, or choose another table."))
	}
	if isSystemSchema(r.Schema) {
		problems = append(problems, notForTables(r.Schema))
	}
	for _, name := range []string{r.Table, r.Schema} {
		if len(name) > maxIdentifier {
			problems = append(problems, usererr.New(nil, "The name %q has %d bytes; Postgres allows 63. Choose a shorter one.", name, len(name)))
		}
		if strings.ContainsRune(name, 0) {
			problems = append(problems, usererr.New(nil, "The name %q contains a NUL character, which Postgres does not allow.", name))
		}
	}
	return usererr.Join("The resource has problems:", problems)
}

func isSystemSchema(name string) bool {
	return strings.HasPrefix(name, "pg_") || name == "information_schema"
}

func notForTables(schema string) error {
	return usererr.New(nil, "Schema %q is one of Postgres' own, which are not for tables of users. Choose another schema.", schema)
}

func (c config) schema() string {
	if c.Schema == "" {
		return "public"
	}
	return c.Schema
}

// address is the server's.
func (c config) address() (endpoint.Address, error) {
	return endpoint.ParseAddress(c.Address, defaultPort)
}

// tls is how the connection is protected. Only a database on this machine is reached without TLS unless asked for.
func (c config) tls(addr endpoint.Address) endpoint.TLS {
	t := endpoint.TLS{Mode: c.SSLMode, RootCert: c.SSLRootCert, Cert: c.SSLCert, Key: c.SSLKey}
	switch {
	case t.Mode != "":
	case addr.IsLoopback() && t.Cert == "":
		t.Mode = endpoint.Disable
	default:
		t.Mode = endpoint.VerifyFull
	}
	return t
}

func (a advanced) statementTimeout() time.Duration {
	d, _ := parseDuration(a.StatementTimeout, defaultStatement)
	return d
}

func (a advanced) lockTimeout() time.Duration {
	d, _ := parseDuration(a.LockTimeout, defaultLock)
	return d
}

func parseDuration(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, errors.New("not a duration")
	}
	return d, nil
}
