package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/testkit/server"
)

// onBoth runs a test on the embedded log and on Kafka.
func onBoth(t *testing.T, test func(t *testing.T)) {
	t.Parallel()
	t.Run("embedded", test)
	t.Run("kafka", test)
}

// onKafka tells whether a test is to have its log on Kafka.
func onKafka(t *testing.T) bool { return strings.Contains(t.Name(), "/kafka") }

// testKafka is a log on the broker that all tests share, with topics of the test's own.
func testKafka(t *testing.T) *pipeline.Kafka {
	t.Helper()
	k := &pipeline.Kafka{
		Prefix: fmt.Sprintf("t%d", time.Now().UnixNano()), Partitions: 3, Replication: 1, MaxDocument: 64 << 20, TransactionTimeout: time.Minute,
		TLS: endpoint.TLS{Mode: endpoint.Disable}, At: "test.yaml:30",
	}
	for one := range strings.SplitSeq(server.SharedKafka(t).Addresses(), ",") {
		address, err := endpoint.ParseAddress(one, 9092)
		require.NoError(t, err)
		k.Brokers = append(k.Brokers, address)
	}
	return k
}
