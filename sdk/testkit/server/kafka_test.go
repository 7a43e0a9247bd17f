package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/server/kafkad"
)

// A broker stays at its address over a crash, and is gone when it is closed.
func TestKafka(t *testing.T) {
	t.Parallel()
	c := server.Kafka(t, kafkad.Options{Secure: true})
	address := c.Addresses()
	dial := func() error {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	require.NoError(t, dial())

	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(c.CA())))
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", c.TLSAddresses())
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	require.NoError(t, c.Kill(1))
	require.Error(t, dial())
	require.NoError(t, c.Start(t.Context(), 1))
	require.NoError(t, dial())
	require.NoError(t, c.Close())
	require.Error(t, dial())
}
