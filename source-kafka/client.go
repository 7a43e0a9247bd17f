package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/endpoint"
)

// clientID is what the brokers' quotas and logs call us.
const clientID = "sluice"

// newClient prepares a client of the cluster. It connects when it is first used, and belongs to the caller.
func newClient(cfg config, log *logrus.Entry, opts ...kgo.Opt) (*kgo.Client, error) {
	brokers, err := cfg.brokers()
	if err != nil {
		return nil, err
	}
	var seeds []string
	for _, addr := range brokers {
		seeds = append(seeds, addr.String())
	}
	dial, err := dialer(cfg, handshakeTimeout)
	if err != nil {
		return nil, err
	}
	all := []kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID(clientID), kgo.Dialer(dial), kgo.WithLogger(clientLog{log}),
		kgo.DisableClientMetrics(),
	}
	login, err := mechanism(cfg.Credentials)
	if err != nil {
		return nil, err
	}
	if login != nil {
		all = append(all, kgo.SASL(login))
	}
	client, err := kgo.NewClient(append(all, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("preparing the client: %w", err)
	}
	return client, nil
}

// handshakeTimeout bounds how long a broker may take to agree on a protected connection. The client bounds only requests.
const handshakeTimeout = 20 * time.Second

// dialer opens connections to brokers, which may take the timeout to agree on a protected one. The name in a broker's certificate is that of the address at which it is reached.
func dialer(cfg config, timeout time.Duration) (func(ctx context.Context, network, host string) (net.Conn, error), error) {
	protect := cfg.endpointTLS()
	if err := protect.Validate(); err != nil {
		return nil, err
	}
	var tcp endpoint.NetDialer
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := tcp.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		settings, err := protect.Config(host)
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		if settings == nil {
			return conn, nil
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		secure := tls.Client(conn, settings)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &handshakeError{err}
		}
		return secure, nil
	}, nil
}

// handshakeError is a TLS connection that did not come about.
type handshakeError struct{ cause error }

func (e *handshakeError) Error() string { return "protecting the connection: " + e.cause.Error() }
func (e *handshakeError) Unwrap() error { return e.cause }

// clientLog passes what the client says on as details: what matters of it comes back as an error.
type clientLog struct{ log *logrus.Entry }

// Level implements kgo.Logger.
func (l clientLog) Level() kgo.LogLevel {
	if l.log.Logger.IsLevelEnabled(logrus.DebugLevel) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (l clientLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	fields := logrus.Fields{}
	for i := 0; i+1 < len(keyvals); i += 2 {
		fields[fmt.Sprint(keyvals[i])] = fmt.Sprint(keyvals[i+1])
	}
	l.log.WithFields(fields).Debug(msg)
}
