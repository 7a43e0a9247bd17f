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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
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
	ports        []int
	voters       string
	settings     map[string]string
	certificates *certificates
	flags        []string // of the Java machine

	mu      sync.Mutex
	process *process // nil while stopped
}

type process struct {
	cmd  *exec.Cmd
	gone chan struct{}
}

func (b *broker) data() string    { return filepath.Join(b.dir, "data") }
func (b *broker) config() string  { return filepath.Join(b.dir, "server.properties") }
func (b *broker) logFile() string { return filepath.Join(b.dir, "server.log") }

func (b *broker) address(listener int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.ports[listener]))
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
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting broker %d: %w", b.id, err)
	}
	p := &process{cmd: cmd, gone: make(chan struct{})}
	go func() {
		defer close(p.gone)
		_ = cmd.Wait() // how it ended is in its log
	}()
	err = os.WriteFile(filepath.Join(b.dir, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
	if err == nil {
		err = b.waitReady(ctx, p)
	}
	if err != nil {
		_ = cmd.Process.Kill() // it may be gone by itself
		<-p.gone
		return fmt.Errorf("starting broker %d: %w; its log says:\n%s", b.id, err, b.log())
	}
	b.process = p
	return nil
}

// waitReady polls until the broker says that it serves.
func (b *broker) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		text, err := os.ReadFile(b.logFile())
		if err != nil {
			return err
		}
		if bytes.Contains(text, []byte("Kafka Server started")) {
			return nil
		}
		select {
		case <-p.gone:
			return errors.New("it exited at once")
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
		}
	}
}

func (b *broker) signal(signal syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.process == nil {
		return fmt.Errorf("broker %d does not run", b.id)
	}
	return b.process.cmd.Process.Signal(signal)
}

func (b *broker) end(signal syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.process
	if p == nil {
		return nil
	}
	b.process = nil
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending broker %d: %w", b.id, err)
	}
	select {
	case <-p.gone:
		return nil
	case <-time.After(startTimeout):
	}
	_ = p.cmd.Process.Kill() // it may have ended just now
	<-p.gone
	return fmt.Errorf("broker %d did not end in time and was killed", b.id)
}

// log is the end of the broker's log.
func (b *broker) log() string {
	content, err := os.ReadFile(b.logFile())
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-4000):])
}
