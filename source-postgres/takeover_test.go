package main

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/endpoint"
)

// slowDialer makes connections whose writes return long after the server has the bytes, as on a machine that has much else to
// do. That is when pgconn reads in the background, ahead of what it was asked for.
type slowDialer struct{ endpoint.Dialer }

func (s slowDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := s.Dialer.DialContext(ctx, network, address)
	return slowConn{conn}, err
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	time.Sleep(50 * time.Millisecond) //nolint:forbidigo // it is what is simulated
	return n, err
}

// The log that the server sends at once, together with its answer, is not lost with what was read ahead when the connection is
// taken over.
func TestTakingOverLosesNothing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.exec("CREATE TABLE t (id int PRIMARY KEY)")
	d := db.driver()
	tables := db.tables(d, "t")
	s := db.open(d, tables...)
	s.close()
	for i := range 5 {
		db.exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
	}
	d.dialer.net = slowDialer{d.dialer.net}
	for range 3 {
		s := db.resume(d, s.Start(), tables...)
		require.Len(t, s.fence(), 5)
		s.close()
	}
}
