package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/oauth2"

	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// pulse notices when no broker answers any more. Fetches that find nothing are answered within seconds, so a silence is never
// just a lack of records. Its methods may be called from any goroutine.
type pulse struct {
	heard atomic.Int64                 // when a broker last answered, in nanoseconds since 1970
	why   atomic.Pointer[connectError] // why connecting last failed

	mu    sync.Mutex
	apart map[int32]connectError // brokers that could not be connected to when that was last tried, by number
}

type connectError struct {
	err  error
	host string
	at   time.Time
}

func (p *pulse) reset() { p.heard.Store(time.Now().UnixNano()) }

// OnBrokerRead implements kgo.HookBrokerRead.
func (p *pulse) OnBrokerRead(_ kgo.BrokerMetadata, _ int16, _ int, _, _ time.Duration, err error) {
	if err == nil {
		p.reset()
		return
	}
	p.why.Store(&connectError{err: err})
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (p *pulse) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.apart, broker.NodeID)
		return
	}
	failed := connectError{err: err, host: broker.Host, at: time.Now()}
	p.why.Store(&failed)
	if p.apart == nil {
		p.apart = map[int32]connectError{}
	}
	p.apart[broker.NodeID] = failed
}

// warn writes which brokers could not be connected to for a while: the partitions that they lead stand still, although others
// answer. Those that nobody tried to reach for that long are forgotten.
func (p *pulse) warn(log *logrus.Entry, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for number, failed := range p.apart {
		if failed.at.Before(since) {
			delete(p.apart, number)
			continue
		}
		log.WithFields(logrus.Fields{"broker": number, "host": failed.host}).WithError(failed.err).
			Warn("a broker cannot be reached at the address that it advertises; partitions that it leads are not read meanwhile")
	}
}

// check fails when the silence has lasted too long.
func (p *pulse) check(cfg config) error {
	silence := time.Since(time.Unix(0, p.heard.Load()))
	if limit := duration(cfg.Advanced.ReadTimeout, defaultReadTimeout); silence > limit {
		return usererr.New(p.last(), "No broker at %s has answered for %v, so the capture ends, to be started again.", cfg.BootstrapServers, silence.Round(time.Second))
	}
	return nil
}

// last is why connecting last failed; nil if it did not.
func (p *pulse) last() error {
	if why := p.why.Load(); why != nil {
		return why.err
	}
	return nil
}

// unreachable says for people why the cluster did not answer. Other errors stay as they are.
func unreachable(err error, cfg config, p *pulse) error {
	ask, ok := errors.AsType[*askError](err)
	if !ok || errors.Is(err, context.Canceled) {
		return err
	}
	cause := errors.Join(ask, p.last())
	switch {
	case errors.Is(cause, kerr.SaslAuthenticationFailed):
		return usererr.New(cause, "The cluster at %s refuses the login. Check credentials: method, user and password.", cfg.BootstrapServers)
	case errors.Is(cause, kerr.UnsupportedSaslMechanism):
		return usererr.New(cause, "The cluster at %s does not offer to log in by %s. Choose another credentials.method.", cfg.BootstrapServers, cfg.Credentials.Method)
	}
	return usererr.New(cause, "The cluster at %s cannot be asked: %s", cfg.BootstrapServers, sentence(cause))
}

// sentence says what is wrong with a connection.
func sentence(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its name is not known here. Check bootstrapServers."
	}
	if _, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return "no token for it was given out. Check credentials: tokenEndpoint, clientId, clientSecret and scopes."
	}
	if verify := certificateProblem(err); verify != "" {
		return verify
	}
	// The client has no types for these two.
	if strings.Contains(err.Error(), "tls alert record") {
		return "it speaks TLS on this port. Set tls.mode to verify-full."
	}
	if strings.Contains(err.Error(), "exceeds BrokerMaxReadBytes") {
		return fmt.Sprintf("a batch of records has more than %d MiB, which is more than is read at once. Have producers write smaller ones (batch.size, max.request.size).", maxBatch>>20)
	}
	if _, ok := errors.AsType[*kgo.ErrFirstReadEOF](err); ok || errors.Is(err, io.EOF) {
		return "it closes connections at once. Does it want TLS, or a login? Check the port, tls and credentials."
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return "no connection to it can be made. Check bootstrapServers, and that brokers listen there; the addresses that brokers advertise must be reachable from here as well."
	}
	return "it does not answer as a Kafka broker does, or not in time."
}

// certificateProblem says what is wrong with a broker's certificate; empty if that is not the problem.
func certificateProblem(err error) string {
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("the certificate that it shows is not one for %s. Use the name in the certificate, or tls.mode verify-ca.", name.Host)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the certificate that it shows is not of an authority that is trusted here. Enter the authority's certificate in tls.rootCert."
	}
	handshake, inHandshake := errors.AsType[*kafkalogin.HandshakeError](err)
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || inHandshake && errors.Is(handshake, io.EOF) {
		return "it does not speak TLS on this port. Use its port for TLS, or set tls.mode to disable."
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return "it refuses the TLS connection. Does it want a client certificate? Enter one in tls.cert and tls.key."
	}
	return ""
}

// transient tells errors that asking again may mend. A login that is refused is not one of them.
func transient(err error) bool {
	_, ok := errors.AsType[*askError](err)
	return ok && !errors.Is(err, kgo.ErrClientClosed) && !errors.Is(err, kerr.SaslAuthenticationFailed)
}
