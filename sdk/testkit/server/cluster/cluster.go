// Package cluster runs throw-away Postgres servers as child processes: for tests (through package server, which adds
// testing.TB), for the demo and for benchmarks.
//
// A cluster lives in a temporary folder and listens on a free loopback port only. It dies with the process that
// started it, even when that process is killed: a small shell waits on a pipe, and when the pipe closes it stops the
// server and removes the folder. Starting takes a few hundred milliseconds, because initdb runs once a machine and
// its result is copied.
//
// The defaults are chosen to find bugs: logical WAL, SCRAM passwords, a session time zone far from UTC with daylight
// saving. Durability is off (fsync), visibility rules are untouched.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/sluicedata/sluice/sdk/testkit/server/daemon"
)

// Superuser and Password are the credentials of every cluster's first role.
const (
	Superuser = "postgres"
	Password  = "secret"
)

// startTimeout bounds one start of the server, crash recovery included.
const startTimeout = 60 * time.Second

// Options describe a cluster. The zero value is a plain server of the machine's default version.
type Options struct {
	// Major selects the Postgres version, 12 or newer; 0 takes what SLUICE_POSTGRES_MAJOR says, else the first
	// installation that Installations finds.
	Major int
	// Settings are added to postgresql.conf and win over the defaults of this package. Values are quoted here.
	Settings map[string]string
	// HBA replaces pg_hba.conf, one rule a line. Empty means SCRAM passwords from loopback, replication included.
	HBA []string
	// TLSHosts switches TLS on, with a certificate for these names and addresses, signed by a CA made for this cluster.
	TLSHosts []string
}

// Postgres is one running (or stopped) server. Its methods may be called from any goroutine.
type Postgres struct {
	install Installation
	dir     string // holds data/, server.log, ca.pem; removed by Close
	port    int
	tls     bool
	owner   *owner // nil when the server runs as the current user
	reaper  *daemon.Reaper

	mu     sync.Mutex
	server *daemon.Process // nil while stopped
}

// Start creates a cluster and waits until it accepts connections. The caller must Close it; if the calling process
// dies first, the cluster is stopped and removed all the same. The context bounds the start, not the server's life.
func Start(ctx context.Context, opts Options) (*Postgres, error) {
	install, err := Find(opts.Major)
	if err != nil {
		return nil, err
	}
	own, err := serverOwner()
	if err != nil {
		return nil, err
	}
	template, err := templateFor(ctx, install, own)
	if err != nil {
		return nil, fmt.Errorf("preparing a Postgres %d data folder: %w", install.Major, err)
	}
	dir, err := os.MkdirTemp("", "sluice-postgres-")
	if err != nil {
		return nil, fmt.Errorf("making the cluster's folder: %w", err)
	}
	p := &Postgres{install: install, dir: dir, owner: own, tls: len(opts.TLSHosts) > 0}
	if p.reaper, err = startReaper(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := p.create(ctx, template, opts); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// create fills the data folder and starts the server.
func (p *Postgres) create(ctx context.Context, template string, opts Options) error {
	if err := copyData(template, p.DataDir(), p.owner); err != nil {
		return fmt.Errorf("copying the data folder: %w", err)
	}
	if err := newIdentity(p.DataDir()); err != nil {
		return err
	}
	if p.tls {
		if err := p.writeCertificates(opts.TLSHosts); err != nil {
			return fmt.Errorf("making certificates: %w", err)
		}
	}
	if len(opts.HBA) > 0 {
		if err := p.writeFile("pg_hba.conf", lines(opts.HBA), 0o600); err != nil {
			return err
		}
	}
	if err := p.own(p.dir); err != nil {
		return err
	}
	return p.startOnFreePort(ctx, opts.Settings)
}

// startOnFreePort starts the server for the first time, again when somebody took the port meanwhile.
func (p *Postgres) startOnFreePort(ctx context.Context, settings map[string]string) error {
	for attempt := 0; ; attempt++ {
		port, err := FreePort()
		if err != nil {
			return err
		}
		p.port = port
		if err := p.writeFile("sluice.conf", p.config(settings), 0o600); err != nil {
			return err
		}
		err = p.Start(ctx)
		if attempt < 4 && errors.Is(err, errPortTaken) {
			continue
		}
		return err
	}
}

// config renders the settings file that postgresql.conf includes last.
func (p *Postgres) config(extra map[string]string) string {
	settings := map[string]string{
		"listen_addresses":          p.Host(),
		"port":                      strconv.Itoa(p.port),
		"unix_socket_directories":   "",
		"wal_level":                 "logical",
		"max_wal_senders":           "32",
		"max_replication_slots":     "32",
		"max_connections":           "200",
		"max_prepared_transactions": "16",
		"password_encryption":       "scram-sha-256",
		"fsync":                     "off",
		"full_page_writes":          "off",
		"jit":                       "off",
		"timezone":                  "America/Los_Angeles",
		"log_timezone":              "UTC",
		"log_line_prefix":           "%m [%p] %a ",
	}
	if p.tls {
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = "server.pem"
		settings["ssl_key_file"] = "server.key"
	}
	maps.Copy(settings, extra)
	var out []string
	for name, value := range settings {
		out = append(out, name+" = "+quoteSetting(value))
	}
	slices.Sort(out)
	return lines(out)
}

// URL is the connection string of a database for the superuser, password included. With TLS it verifies the server
// against the cluster's own CA.
func (p *Postgres) URL(database string) string {
	return p.URLFor(database, Superuser, Password)
}

// URLFor is URL for another role.
func (p *Postgres) URLFor(database, user, password string) string {
	query := url.Values{"sslmode": {"disable"}}
	if p.tls {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.CAFile()}}
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: p.Address(),
		Path: "/" + database, RawQuery: query.Encode(),
	}
	return u.String()
}

// Host is the address that the server listens on: IPv4 loopback.
func (p *Postgres) Host() string { return "127.0.0.1" }

// Port is the server's TCP port; it stays the same over restarts.
func (p *Postgres) Port() int { return p.port }

// Address is host:port.
func (p *Postgres) Address() string { return p.Host() + ":" + strconv.Itoa(p.port) }

// Major is the server's major version, such as 15.
func (p *Postgres) Major() int { return p.install.Major }

// Installation tells where the server's programs are.
func (p *Postgres) Installation() Installation { return p.install }

// DataDir is the server's data folder.
func (p *Postgres) DataDir() string { return filepath.Join(p.dir, "data") }

// CAFile is the PEM file of the CA that signed the server's certificate; it exists only with TLS.
func (p *Postgres) CAFile() string { return filepath.Join(p.dir, "ca.pem") }

// LogFile is the file with the server's own log.
func (p *Postgres) LogFile() string { return filepath.Join(p.dir, "server.log") }

// Close stops the server and removes its folder. It may be called twice.
func (p *Postgres) Close() error {
	err := p.Stop()
	return errors.Join(err, p.reaper.Close(), os.RemoveAll(p.dir))
}
