package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// conn is a connection through the tunnel. Connections of package ssh know no deadlines, which database drivers cannot do
// without, so there is a pipe in between, which does, and a goroutine for each direction. They end with the connection, and
// are waited for by the tunnel's Close.
type conn struct {
	net.Conn // our end of the pipe
	client   *client
	remote   net.Conn // the channel
}

// pieces are how much is moved at once.
const pieces = 64 << 10

func newConn(c *client, channel net.Conn) net.Conn {
	ours, theirs := net.Pipe()
	c.running.Go(func() {
		_, _ = io.CopyBuffer(onlyWriter{theirs}, onlyReader{channel}, make([]byte, pieces))
		// A channel ends in the same way whether its other end was closed or the SSH connection broke; whether that is
		// still there tells which, and must be known before the reader learns that something ended.
		c.probe()
		_ = theirs.Close()
	})
	c.running.Go(func() {
		// What was written before our end was closed still goes out, and then the channel is closed. When the other end
		// broke, theirs is closed and so this ends as well.
		if _, err := io.CopyBuffer(onlyWriter{channel}, onlyReader{theirs}, make([]byte, pieces)); err != nil {
			c.probe()
		}
		_ = channel.Close()
		_ = theirs.Close()
	})
	return &conn{Conn: ours, client: c, remote: channel}
}

// onlyReader and onlyWriter hide what else io.CopyBuffer would use instead of the buffer.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.explain(err)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.explain(err)
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.explain(c.Conn.SetDeadline(t)) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.explain(c.Conn.SetReadDeadline(t)) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.explain(c.Conn.SetWriteDeadline(t)) }

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.remote.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote.RemoteAddr() }

// explain says that the tunnel was lost where that is why a connection ended.
func (c *conn) explain(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if lost := c.client.lost(); lost != nil {
		return lost
	}
	return err
}
