package main

import (
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// config is how users describe the endpoint.
type config struct {
	Address     string   `json:"address" title:"Address" desc:"Host and port of the database (host[:port]); the port is 5432 if left out." order:"0"`
	Database    string   `json:"database" title:"Database" desc:"Name of the database that your tables go to." order:"1"`
	Schema      string   `json:"schema" title:"Schema" desc:"Schema for tables whose binding names none, and for the connector's own two tables." default:"public" order:"2"`
	User        string   `json:"user" title:"User" desc:"Database user that you connect as." order:"3"`
	Password    string   `json:"password" title:"Password" desc:"Password of that user." secret:"true" order:"4"`
	SSLMode     string   `json:"sslmode,omitempty" title:"TLS Mode" desc:"How the connection is protected. If left out: verify-full, except for a database on the same machine, which is reached without TLS." enum:"disable,require,verify-ca,verify-full" order:"5"`
	SSLRootCert string   `json:"sslRootCert,omitempty" title:"TLS Root Certificate" desc:"Certificate authority, in PEM form, that signed the server's certificate. If left out, the system's authorities are trusted." multiline:"true" secret:"true" order:"6"`
	HardDelete  bool     `json:"hardDelete,omitempty" title:"Hard Delete" desc:"Delete rows when their source rows are deleted. Otherwise they stay, with _meta/op set to d." order:"7"`
	Advanced    advanced `json:"advanced" title:"Advanced" desc:"Settings that most tables never need." advanced:"true" order:"8"`
}

// advanced are settings with good defaults.
type advanced struct {
	StoreDocument    bool   `json:"storeDocument,omitempty" title:"Store Documents" desc:"Also keep every whole document, in a column of its own."`
	StatementTimeout string `json:"statementTimeout,omitempty" title:"Statement Timeout" desc:"How long you let one statement take before the connection is given up, such as 30m." default:"1h"`
	LockTimeout      string `json:"lockTimeout,omitempty" title:"Lock Timeout" desc:"How long you let a statement wait for a table or row that somebody else has locked." default:"1m"`
}

// resource is how users describe one table.
type resource struct {
	Table        string `json:"table" title:"Table" desc:"Name of the table." x-collection-name:"true"`
	Schema       string `json:"schema,omitempty" title:"Schema" desc:"Schema of the table, if it is not the endpoint's." x-schema-name:"true"`
	DeltaUpdates bool   `json:"deltaUpdates,omitempty" title:"Delta Updates" desc:"Append every change as a row of its own, instead of updating rows in place." x-delta-updates:"true"`
}

const (
	defaultPort      = "5432"
	maxIdentifier    = 63 // bytes that a name can have in Postgres
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
	require(c.Password, "password")
	if c.Address != "" {
		if _, _, err := c.hostPort(); err != nil {
			problems = append(problems, err)
		}
	}
	if len(c.schema()) > maxIdentifier {
		problems = append(problems, usererr.New(nil, "schema %q is longer than the 63 bytes that Postgres allows.", c.Schema))
	}
	switch c.SSLMode {
	case "", "disable", "require", "verify-ca", "verify-full":
	default:
		problems = append(problems, usererr.New(nil,
			"sslmode %q is not known; use disable, require, verify-ca or verify-full. There is no mode that falls back to an unprotected connection.", c.SSLMode))
	}
	if c.SSLRootCert != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.SSLRootCert)) {
		problems = append(problems, usererr.New(nil, "sslRootCert holds no certificate in PEM form. Paste the whole file, with its BEGIN and END lines."))
	}
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

func (c config) schema() string {
	if c.Schema == "" {
		return "public"
	}
	return c.Schema
}

func (c config) hostPort() (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(c.Address)
	if err != nil {
		host, text = strings.Trim(c.Address, "[]"), defaultPort
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
			host = ""
		}
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || host == "" || n == 0 {
		return "", 0, usererr.New(err, "address %q is not of the form host or host:port.", c.Address)
	}
	return host, uint16(n), nil
}

// sslmode is the mode in force. Only a database on this machine is reached without TLS unless asked for.
func (c config) sslmode() string {
	if c.SSLMode != "" {
		return c.SSLMode
	}
	host, _, err := c.hostPort()
	if err != nil {
		return "verify-full"
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || (err == nil && ip.IsLoopback()) {
		return "disable"
	}
	return "verify-full"
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
