package main

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// One broker that cannot be reached is told of although others answer; not once it was reached, or is tried no more.
func TestOneBrokerApart(t *testing.T) {
	t.Parallel()
	logger := logrus.New()
	logger.SetOutput(io.Discard)
	said := test.NewLocal(logger)
	p := &pulse{}
	broker := kgo.BrokerMetadata{NodeID: 2, Host: "two"}
	warned := func(since time.Time) int {
		said.Reset()
		p.warn(logrus.NewEntry(logger), since)
		return len(said.AllEntries())
	}
	begin := time.Now()
	require.Zero(t, warned(begin))
	refused := errors.New("refused")
	p.OnBrokerConnect(broker, 0, nil, refused)
	p.OnBrokerConnect(kgo.BrokerMetadata{NodeID: 1}, 0, nil, nil)
	require.Equal(t, 1, warned(begin))
	require.Equal(t, "two", said.LastEntry().Data["host"])
	require.Equal(t, refused, said.LastEntry().Data[logrus.ErrorKey])
	require.Equal(t, refused, p.last())
	p.OnBrokerConnect(broker, 0, nil, nil)
	require.Zero(t, warned(begin))
	p.OnBrokerConnect(broker, 0, nil, refused)
	require.Zero(t, warned(time.Now().Add(time.Hour)))
	require.Zero(t, warned(begin), "it was forgotten")
}
