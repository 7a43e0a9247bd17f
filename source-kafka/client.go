package main

import (
	"fmt"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/kafkalogin"
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
	protect := cfg.endpointTLS()
	if err := protect.Validate(); err != nil {
		return nil, err
	}
	all := []kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID(clientID), kgo.Dialer(kafkalogin.Dialer(protect, kafkalogin.HandshakeTimeout)), kgo.WithLogger(clientLog{log}),
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
