package kafkalogin_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
)

// A broker that takes connections and says nothing fails them, as one that cannot be reached does: nothing waits for it for ever.
func TestSilentBroker(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	dial := kafkalogin.Dialer(endpoint.TLS{Mode: "require"}, 50*time.Millisecond)
	begin := time.Now()
	_, err = dial(t.Context(), "tcp", listener.Addr().String())
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "protecting the connection")
	require.Less(t, time.Since(begin), 10*time.Second)
}
