package kafkad

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sluicedata/sluice/sdk/testkit/server/daemon"
)

// The listeners of a broker, as indexes of its ports.
const (
	plain = iota
	controller
	secure
	mutual
	sasl
)

// broker is one broker, which is also a controller.
type broker struct {
	install      Installation
	id, size     int // size is how many brokers the cluster has
	dir          string
	host         Host
	measured     bool
	ports        []int
	voters       string
	settings     map[string]string
	certificates *certificates
	flags        []string // of the Java machine

	mu      sync.Mutex
	process *daemon.Process // nil while stopped
}

func (b *broker) data() string    { return filepath.Join(b.dir, "data") }
func (b *broker) config() string  { return filepath.Join(b.dir, "server.properties") }
func (b *broker) logFile() string { return filepath.Join(b.dir, "server.log") }

func (b *broker) address(listener int) string {
	return net.JoinHostPort(b.host.Address, strconv.Itoa(b.ports[listener]))
}

func (b *broker) writeConfig() error {
	replicas, least := strconv.Itoa(min(3, b.size)), strconv.Itoa(min(2, b.size))
	all := map[string]string{
		"process.roles": "broker,controller", "node.id": strconv.Itoa(b.id), "controller.quorum.voters": b.voters,
		"controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "PLAIN", "log.dirs": b.data(),
		"offsets.topic.replication.factor": replicas, "transaction.state.log.replication.factor": replicas, "default.replication.factor": replicas,
		"transaction.state.log.min.isr": least, "offsets.topic.num.partitions": "1", "transaction.state.log.num.partitions": "1",
		"auto.create.topics.enable": "false", "log.retention.ms": "-1", "group.initial.rebalance.delay.ms": "0",
		"num.network.threads": "2", "num.io.threads": "2", "background.threads": "2", "num.recovery.threads.per.data.dir": "1",
		"log.retention.check.interval.ms": "500", "log.initial.task.delay.ms": "200", "log.cleaner.backoff.ms": "200",
		"log.cleaner.dedupe.buffer.size": "8388608", "log.segment.delete.delay.ms": "1000",
		"broker.session.timeout.ms": "6000", "broker.heartbeat.interval.ms": "500",
		"controller.quorum.election.timeout.ms": "1000", "controller.quorum.fetch.timeout.ms": "4000",
		"replica.lag.time.max.ms": "3000", "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
	}
	listeners := []string{"PLAIN://" + b.address(plain), "CONTROLLER://" + b.address(controller)}
	protocols := "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT"
	if b.certificates != nil {
		listeners = append(listeners, "TLS://"+b.address(secure), "MUTUAL://"+b.address(mutual), "SASL://"+b.address(sasl))
		protocols += ",TLS:SSL,MUTUAL:SSL,SASL:SASL_SSL"
		maps.Copy(all, b.certificates.settings())
	}
	all["listeners"], all["listener.security.protocol.map"] = strings.Join(listeners, ","), protocols
	maps.Copy(all, b.settings)
	return errors.Join(os.WriteFile(b.config(), []byte(properties(all)), 0o600),
		os.WriteFile(filepath.Join(b.dir, "log4j2.properties"), []byte(logging), 0o600))
}

// start starts the broker, if it does not run, and waits until it serves.
func (b *broker) start(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process != nil {
		return nil
	}
	log, err := os.Create(b.logFile())
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := b.install.command(context.Background(), b.dir, b.flags, "kafka.Kafka", b.config()) // it outlives the call that starts it
	if before := b.host.Command; len(before) > 0 {
		program, err := exec.LookPath(before[0])
		if err != nil {
			return fmt.Errorf("starting broker %d on its host: %w", b.id, err)
		}
		cmd.Path, cmd.Args = program, slices.Concat(before, cmd.Args)
	}
	cmd.Stdout, cmd.Stderr = log, log
	p, err := daemon.Start(cmd)
	if err != nil {
		return fmt.Errorf("starting broker %d: %w", b.id, err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "pid"), []byte(strconv.Itoa(p.PID())), 0o600); err != nil {
		p.Kill()
		return err
	}
	if err := p.WaitReady(ctx, 50*time.Millisecond, startTimeout, b.serves); err != nil {
		return fmt.Errorf("starting broker %d: %w; its log says:\n%s", b.id, err, b.log())
	}
	b.process = p
	return nil
}

// serves reports whether the broker says that it serves.
func (b *broker) serves(context.Context) bool {
	text, err := os.ReadFile(b.logFile())
	return err == nil && bytes.Contains(text, []byte("Kafka Server started"))
}

func (b *broker) signal(signal syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == nil {
		return fmt.Errorf("broker %d does not run", b.id)
	}
	return b.process.Signal(signal)
}

func (b *broker) pid() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == nil {
		return 0
	}
	return b.process.PID()
}

func (b *broker) end(signal syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.process
	if p == nil {
		return nil
	}
	b.process = nil
	if err := p.End(startTimeout, func() error { return p.Signal(signal) }); err != nil {
		return fmt.Errorf("ending broker %d: %w", b.id, err)
	}
	return nil
}

// log is the end of the broker's log.
func (b *broker) log() string {
	content, err := os.ReadFile(b.logFile())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4000):])
}
