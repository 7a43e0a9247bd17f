package main

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// An ownedConn is a connection of pgconn that nobody but its frontend reads, so that it can be taken over.
//
// Whenever a write takes longer than 15 ms, as it may on a busy machine, pgconn reads in the background, as much as there is
// (pgconn/internal/bgreader), and its Hijack leaves that behind. After START_REPLICATION it is the beginning of the log: whole
// transactions that nobody would ever miss. So the frontend reads the connection itself, one message at a time, and the
// background reader is given nothing: it waits for the end.
type ownedConn struct {
	net.Conn
	once  sync.Once
	ended chan struct{}
}

// own has the configuration's connection owned by its frontend.
func own(cc *pgconn.Config) {
	var conn *ownedConn
	// This is the connection below the protocol, above TLS.
	cc.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, below net.Conn) (net.Conn, error) {
		conn = &ownedConn{Conn: below, ended: make(chan struct{})}
		return conn, nil
	}
	cc.BuildFrontend = func(_ io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&exactReader{r: conn.Conn}, w)
	}
}

// Read implements net.Conn for the background reader.
func (c *ownedConn) Read([]byte) (int, error) {
	<-c.ended
	return 0, net.ErrClosed
}

// Close implements net.Conn.
func (c *ownedConn) Close() error {
	c.once.Do(func() { close(c.ended) })
	return c.Conn.Close()
}

// takenConn is an owned connection for whoever has taken it over.
type takenConn struct{ *ownedConn }

// Read implements net.Conn.
func (c takenConn) Read(p []byte) (int, error) { return c.Conn.Read(p) }
