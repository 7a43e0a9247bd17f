// Package kafkad runs throw-away Apache Kafka clusters as child processes, as package cluster does for Postgres: real brokers in
// KRaft mode, one or several, each with a small heap and with its data in a temporary folder.
//
// A cluster listens on free loopback ports only, unless its brokers are given hosts. It dies with the process that started it, even when that process
// is killed.
// Starting a broker takes two to three seconds of CPU: its storage is formatted once a machine, and the classes that it loads
// are mapped from an archive.
//
// The defaults are chosen to find bugs: topics are not created by asking for them, logs are cleaned and expire as soon as they
// may, a dead broker is noticed within seconds.
package kafkad

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluicedata/sluice/sdk/testkit/server/daemon"
)

// User and Password are who may log in at secure listeners by PLAIN. Users of SCRAM are made by a client.
const (
	User     = "admin"
	Password = "secret"
)

const (
	clusterID    = "4L6g3nShT-eMCtK--X86sw"
	startTimeout = 120 * time.Second
)

// Options describe a cluster. The zero value is one broker.
type Options struct {
	Brokers  int               // how many; 0 means 1
	Settings map[string]string // of every broker; they win over the defaults of this package
	// Secure adds listeners: TLS, TLS with client certificates (Mutual), and SASL over TLS with PLAIN, SCRAM and OAUTHBEARER,
	// which takes tokens that nobody signed.
	Secure bool
	// Measured has brokers run as Kafka's own script runs them, with a heap of a gigabyte and all that their Java machine can do to compile: for benchmarks.
	// Otherwise they are small and start quickly.
	Measured bool
	// Hosts are where the brokers run, as many as there are brokers; none means all on loopback.
	Hosts []Host
}

// Host is a machine, or what a test has instead of it.
type Host struct {
	Address string   // an IP address that a broker there can listen on
	Command []string // what stands before a command line to have it run there, by the same process
}

// Cluster is one running cluster. Its methods may be called from any goroutine.
type Cluster struct {
	install      Installation
	dir          string // holds a folder for each broker; removed by Close
	brokers      []*broker
	certificates *certificates // nil without TLS
	reaper       *daemon.Reaper
}

// Start makes a cluster and waits until all its brokers serve. The caller must Close it. The context bounds the start, not the
// cluster's life.
func Start(ctx context.Context, opts Options) (*Cluster, error) {
	install, err := Find()
	if err != nil {
		return nil, err
	}
	t, err := templateFor(ctx, install)
	if err != nil {
		return nil, fmt.Errorf("preparing storage of Kafka %s: %w", install.Version, err)
	}
	for attempt := 0; ; attempt++ {
		c, err := newCluster(install, opts)
		if err != nil {
			return nil, err
		}
		if err = c.fill(t); err == nil {
			err = c.startAll(ctx)
		}
		if err == nil {
			return c, nil
		}
		err = errors.Join(err, c.Close())
		if attempt == 2 || ctx.Err() != nil {
			return nil, err // else somebody may have taken a port meanwhile
		}
	}
}

// newCluster makes folders and chooses ports.
func newCluster(install Installation, opts Options) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "sluice-kafka-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{install: install, dir: dir}
	if c.reaper, err = startReaper(dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if opts.Secure {
		if c.certificates, err = newCertificates(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	const listeners = 5 // of each broker, the last three secure
	ports, err := freePorts(listeners * max(1, opts.Brokers))
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for i := range max(1, opts.Brokers) {
		b := &broker{
			install: install, id: i + 1, dir: filepath.Join(dir, strconv.Itoa(i+1)), ports: ports[listeners*i : listeners*(i+1)],
			settings: opts.Settings, certificates: c.certificates, host: Host{Address: "127.0.0.1"}, measured: opts.Measured,
		}
		if len(opts.Hosts) > 0 {
			b.host = opts.Hosts[i]
		}
		c.brokers = append(c.brokers, b)
		if err := os.Mkdir(b.dir, 0o700); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	var voters []string
	for _, b := range c.brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, b.address(controller)))
	}
	for _, b := range c.brokers {
		b.voters, b.size = strings.Join(voters, ","), len(c.brokers)
	}
	return c, nil
}

// fill gives every broker storage that is formatted.
func (c *Cluster) fill(t template) error {
	for _, b := range c.brokers {
		b.flags = []string{"-XX:SharedArchiveFile=" + t.classes(), "-Xshare:auto"}
		if b.measured {
			b.flags = []string{"-Xmx1g", "-Xms1g", "-XX:TieredStopAtLevel=4", "-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"}
		}
		err := errors.Join(os.Mkdir(b.data(), 0o700), copyFile(t.checkpoint(), filepath.Join(b.data(), "bootstrap.checkpoint")),
			os.WriteFile(filepath.Join(b.data(), "meta.properties"), []byte(properties(map[string]string{
				"version": "1", "cluster.id": clusterID, "node.id": strconv.Itoa(b.id), "directory.id": directoryID(b.id),
			})), 0o600), b.writeConfig())
		if err != nil {
			return fmt.Errorf("filling the folder of broker %d: %w", b.id, err)
		}
	}
	return nil
}

// directoryID is a UUID as Kafka writes them; the first hundred are reserved.
func directoryID(broker int) string {
	return base64.RawURLEncoding.EncodeToString([]byte{15: byte(broker), 0: 1})
}

// startAll starts the brokers at the same time: they wait for each other.
func (c *Cluster) startAll(ctx context.Context) error {
	failed := make(chan error, len(c.brokers))
	for _, b := range c.brokers {
		go func() { failed <- b.start(ctx) }()
	}
	var errs []error
	for range c.brokers {
		errs = append(errs, <-failed)
	}
	return errors.Join(errs...)
}

// freePorts are free now; somebody else may take one before it is used.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()                                     // all at the end, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port) //nolint:errcheck,forcetypeassert // it is a TCP listener's
	}
	return ports, nil
}

// Brokers is how many brokers there are. They are numbered from 1, which is also their id.
func (c *Cluster) Brokers() int { return len(c.brokers) }

// Version is that of Kafka.
func (c *Cluster) Version() string { return c.install.Version }

// Stop shuts a broker down as an administrator would: its partitions are handed over first.
func (c *Cluster) Stop(broker int) error { return c.brokers[broker-1].end(syscall.SIGTERM) }

// Kill ends a broker as a crash would.
func (c *Cluster) Kill(broker int) error { return c.brokers[broker-1].end(syscall.SIGKILL) }

// Pause stops a broker from doing anything, without closing its connections; Resume lets it go on.
func (c *Cluster) Pause(broker int) error { return c.brokers[broker-1].signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (c *Cluster) Resume(broker int) error { return c.brokers[broker-1].signal(syscall.SIGCONT) }

// Start starts a stopped broker and waits until it serves; it does nothing while the broker runs.
func (c *Cluster) Start(ctx context.Context, broker int) error { return c.brokers[broker-1].start(ctx) }

// PID is the process of a broker, counted from 1; zero while it is stopped.
func (c *Cluster) PID(broker int) int { return c.brokers[broker-1].pid() }

// Log is the end of a broker's log.
func (c *Cluster) Log(broker int) string { return c.brokers[broker-1].log() }

// Addresses are host:port of the brokers, for clients in plain text, separated by commas. They stay the same over restarts.
func (c *Cluster) Addresses() string { return c.addresses(plain) }

// TLSAddresses are those for TLS, MutualAddresses for TLS with client certificates, SASLAddresses for logins over TLS.
func (c *Cluster) TLSAddresses() string { return c.addresses(secure) }

// MutualAddresses are those of the listeners that want a client certificate.
func (c *Cluster) MutualAddresses() string { return c.addresses(mutual) }

// SASLAddresses are those of the listeners that want a login.
func (c *Cluster) SASLAddresses() string { return c.addresses(sasl) }

func (c *Cluster) addresses(listener int) string {
	var all []string
	for _, b := range c.brokers {
		all = append(all, b.address(listener))
	}
	return strings.Join(all, ",")
}

// CA is the authority that signed the brokers' certificates, as PEM text; empty without Secure.
func (c *Cluster) CA() string {
	if c.certificates == nil {
		return ""
	}
	return c.certificates.ca
}

// Client is a client's certificate and its key, as PEM texts.
func (c *Cluster) Client() (certificate, key string) {
	return c.certificates.client.certificate, c.certificates.client.key
}

// Close kills the brokers and removes their folders. It may be called twice.
func (c *Cluster) Close() error {
	var errs []error
	for _, b := range c.brokers {
		errs = append(errs, b.end(syscall.SIGKILL))
	}
	return errors.Join(append(errs, c.reaper.Close(), os.RemoveAll(c.dir))...)
}

// stopScript stops the brokers of a folder.
const stopScript = `
for file in "$1"/*/pid; do
	pid=$(cat "$file" 2>/dev/null) || continue
	if kill -KILL "$pid" 2>/dev/null; then
		while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
	fi
done
`

func startReaper(dir string) (*daemon.Reaper, error) {
	return daemon.StartReaper("sluice-kafka-reaper", dir, stopScript)
}
