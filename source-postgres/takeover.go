package main

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// A takenConn is a connection that was taken over from pgconn.
//
// Whenever a write takes longer than 15 ms, as it may on a busy machine, pgconn reads in the background, as much as there is
// (pgconn/internal/bgreader), and its Hijack leaves that behind. After START_REPLICATION it is the beginning of the log: whole
// transactions that nobody would ever miss. So the connection is still read through pgconn's own reader, which first gives what it
// has, and waits for a read that is under way. Nothing lies between pgconn and TLS, whose certificate a login is bound to.
type takenConn struct {
	net.Conn
	r io.Reader
}

// customReader is where a connection's custom data has the reader.
const customReader = "sluice reader"

// Read implements net.Conn.
func (c takenConn) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("reading the replication stream: the server closed the connection: %w", io.ErrUnexpectedEOF)
	case err != nil:
		err = fmt.Errorf("reading the replication stream: %w", err)
	}
	return n, err
}

// keepReader has the configuration's connection read one message at a time, so that nothing but pgconn's own reader holds what was
// read ahead, and returns where that is, once there is a connection.
func keepReader(cc *pgconn.Config) *io.Reader {
	var kept io.Reader
	cc.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		kept = r // of several attempts, the last one succeeds
		return pgproto3.NewFrontend(&exactReader{r: r}, w)
	}
	return &kept
}
