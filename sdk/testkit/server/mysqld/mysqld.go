// Package mysqld runs throw-away MySQL and MariaDB servers as child processes, as package cluster does for Postgres.
//
// A server lives in a temporary folder and listens on a free loopback port only. It dies with the process that started it, even
// when that process is killed. The defaults are chosen to find bugs, not to be safe against loss of power: binary log with GTIDs
// and full metadata, a time zone that is not UTC, a plain user for everything.
package mysqld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sluicedata/sluice/sdk/testkit/server/daemon"
)

// User and Password are the credentials of the administrator that every server has.
const (
	User     = "admin"
	Password = "secret"
)

const startTimeout = 90 * time.Second

// Options describe a server.
type Options struct {
	Flavor string // MySQL or MariaDB
	// Settings are options of the server, without the leading dashes, and win over the defaults of this package.
	Settings map[string]string
}

// Server is one running (or stopped) server. Its methods may be called from any goroutine.
type Server struct {
	install  Installation
	dir      string // holds data/, server.log, server.pid; removed by Close
	port     int
	id       int // its server_id
	owner    *owner
	reaper   *daemon.Reaper
	settings map[string]string

	mu      sync.Mutex
	process *daemon.Process // nil while stopped
}

// Start makes a server and waits until it accepts connections. The caller must Close it. The context bounds the start, not the
// server's life.
func Start(ctx context.Context, opts Options) (*Server, error) {
	install, err := Find(opts.Flavor)
	if err != nil {
		return nil, err
	}
	own, err := serverOwner()
	if err != nil {
		return nil, err
	}
	template, err := templateFor(ctx, install, own)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sluice-mysqld-")
	if err != nil {
		return nil, err
	}
	s := &Server{install: install, dir: dir, owner: own, settings: opts.Settings, id: 1 + rand.IntN(1<<30)}
	if s.reaper, err = startReaper(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	err = errors.Join(own.chown(dir), copyData(template, s.DataDir(), own), os.WriteFile(filepath.Join(dir, "init.sql"), []byte(
		"SET sql_log_bin = 0;\nCREATE USER IF NOT EXISTS '"+User+"'@'%' IDENTIFIED BY '"+Password+"';\nGRANT ALL ON *.* TO '"+User+"'@'%' WITH GRANT OPTION;\n"), 0o644)) //nolint:gosec // the server's user reads it
	for attempt := 0; err == nil; attempt++ {
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.Start(ctx); err == nil {
			return s, nil
		}
		if attempt < 3 && ctx.Err() == nil {
			err = nil // somebody may have taken the port meanwhile
		}
	}
	return nil, errors.Join(err, s.Close())
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:errcheck,forcetypeassert // it is a TCP listener's
}

// arguments are the server's, of this package and of the options.
func (s *Server) arguments() []string {
	all := map[string]string{
		"datadir": s.DataDir(), "basedir": filepath.Join(s.install.root, "/usr"), "pid-file": filepath.Join(s.dir, "server.pid"),
		"socket": filepath.Join(s.dir, "s"), "bind-address": "127.0.0.1", "port": strconv.Itoa(s.port), "init-file": filepath.Join(s.dir, "init.sql"),
		"server-id": strconv.Itoa(s.id), "log-bin": "binlog", "binlog-row-metadata": "FULL",
		"default-time-zone": "-08:00", "max-connections": "200", "max-connect-errors": "1000000",
		"innodb-flush-log-at-trx-commit": "2", "sync-binlog": "0", "innodb-buffer-pool-size": "128M", "loose-innodb-doublewrite": "0",
		"loose-innodb-flush-method": "nosync", "loose-innodb-redo-log-capacity": "512M", "binlog-cache-size": "8M", "loose-mysqlx": "0", "performance-schema": "0", "loose-secure-file-priv": "",
		"lc-messages-dir": filepath.Join(s.install.root, "/usr/share/mysql"), "tmpdir": s.dir,
	}
	if s.install.Flavor == MySQL {
		all["gtid-mode"], all["enforce-gtid-consistency"] = "ON", "ON"
		all["plugin-dir"] = filepath.Join(s.install.root, "/usr/lib/mysql/plugin")
	} else {
		all["binlog-format"], all["log-slave-updates"] = "ROW", "ON"
	}
	maps.Copy(all, s.settings)
	args := []string{"--no-defaults", "--skip-name-resolve"}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "--"+name+"="+all[name])
	}
	return args
}

// Start starts a stopped server and waits until it accepts connections; it does nothing while the server runs.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return nil
	}
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.install.command(context.Background(), "mysqld", s.arguments()...) // the server outlives the call that starts it
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = s.DataDir(), s.owner.attributes(), log, log
	p, err := daemon.Start(cmd)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.install.Flavor, err)
	}
	if err := p.WaitReady(ctx, 20*time.Millisecond, startTimeout, s.greets); err != nil {
		return fmt.Errorf("starting %s: %w; its log says:\n%s", s.install.Flavor, err, s.Log())
	}
	s.process = p
	return nil
}

// greets reports whether the server sends its greeting, whose fifth byte is the protocol's version.
func (s *Server) greets(ctx context.Context) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Address())
	if err != nil {
		return false
	}
	defer conn.Close()
	var head [5]byte
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return false
	}
	_, err = io.ReadFull(conn, head[:])
	return err == nil && head[4] == 10
}

// Stop shuts the server down as an administrator would.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

// Kill ends the server with SIGKILL, as a crash would. Start recovers it.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

func (s *Server) end(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.process
	if p == nil {
		return nil
	}
	s.process = nil
	if err := p.End(startTimeout, func() error { return p.Signal(signal) }); err != nil {
		return fmt.Errorf("ending the server: %w", err)
	}
	return nil
}

// Flavor is MySQL or MariaDB.
func (s *Server) Flavor() string { return s.install.Flavor }

// Version is the server's, such as 10.11.19.
func (s *Server) Version() string { return s.install.Version }

// Installation tells where the server's programs are.
func (s *Server) Installation() Installation { return s.install }

// Address is host:port; it stays the same over restarts.
func (s *Server) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// DataDir is the server's data folder.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// LogFile is the file with the server's own log.
func (s *Server) LogFile() string { return filepath.Join(s.dir, "server.log") }

// Log is the end of the server's own log.
func (s *Server) Log() string {
	content, err := os.ReadFile(s.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4000):])
}

// Close kills the server and removes its folder. It may be called twice.
func (s *Server) Close() error {
	return errors.Join(s.Kill(), s.reaper.Close(), os.RemoveAll(s.dir))
}
