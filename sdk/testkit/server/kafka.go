package server

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/need"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// KafkaCluster is a running cluster of Apache Kafka. Its methods may be called from any goroutine that may fail t. It makes no
// topics: this module has no client, and a test of a connector has one.
type KafkaCluster struct {
	*kafkad.Cluster
}

// Kafka starts a cluster for this test; it is gone when the test ends. The test is skipped when the machine has no Kafka.
func Kafka(t testing.TB, opts kafkad.Options) *KafkaCluster {
	t.Helper()
	skipShort(t)
	c, err := kafkad.Start(t.Context(), opts)
	noKafka(t, err)
	require.NoError(t, err)
	t.Cleanup(func() {
		for i := range c.Brokers() {
			if t.Failed() {
				t.Logf("the end of the log of broker %d:\n%s", i+1, tail(c.Log(i+1), 20))
			}
		}
		require.NoError(t, c.Close())
	})
	return &KafkaCluster{c}
}

// sharedKafka is the cluster that the test binary shares. It ends with the process, because no test knows that it is the last.
var sharedKafka struct {
	once    sync.Once
	cluster *kafkad.Cluster
	err     error
}

// SharedKafka returns the one broker, with secure listeners, that all tests of this binary share. Work with topics of your own,
// and do not stop or reconfigure it.
func SharedKafka(t testing.TB) *KafkaCluster {
	t.Helper()
	skipShort(t)
	sharedKafka.once.Do(func() {
		sharedKafka.cluster, sharedKafka.err = kafkad.Start(context.Background(), kafkad.Options{Secure: true})
	})
	noKafka(t, sharedKafka.err)
	require.NoError(t, sharedKafka.err)
	return &KafkaCluster{sharedKafka.cluster}
}

func noKafka(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, kafkad.ErrNotInstalled) {
		need.Missing(t, "%v", err)
	}
}
