package endpoint_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
)

// Errors of the network, as they really come, are told from others.
func TestLost(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	dial := func() (net.Conn, error) { return (&net.Dialer{}).DialContext(t.Context(), "tcp", address) }
	conn, err := dial()
	require.NoError(t, err)
	peer, err := listener.Accept()
	require.NoError(t, err)
	require.NoError(t, peer.Close())
	_, closed := conn.Read(make([]byte, 1))
	require.NoError(t, conn.Close())
	_, own := conn.Read(make([]byte, 1))
	require.NoError(t, listener.Close())
	_, refused := dial()
	for _, err := range []error{closed, own, refused, io.ErrUnexpectedEOF, fmt.Errorf("reading: %w", closed)} {
		require.Error(t, err)
		require.True(t, endpoint.Lost(err), "%v", err)
	}
	alert := &net.OpError{Op: "remote error", Err: tls.AlertError(42)}
	for _, err := range []error{nil, errors.New("access denied"), alert, fmt.Errorf("the login: %w", alert)} {
		require.False(t, endpoint.Lost(err), "%v", err)
	}
}
