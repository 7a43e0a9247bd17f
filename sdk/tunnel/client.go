package tunnel

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// client is one SSH connection and whatever goes through it.
type client struct {
	ssh *ssh.Client

	mu    sync.Mutex
	cause error         // why it ended; set once, before dead is closed
	dead  chan struct{} // closed when it ended

	running sync.WaitGroup // the goroutines of the watch and of the connections
}

// pulse is how a connection is watched.
type pulse struct {
	every    time.Duration // between questions whether the other end is there
	patience time.Duration // for each answer
}

func newClient(c *ssh.Client, p pulse) *client {
	cl := &client{ssh: c, dead: make(chan struct{})}
	cl.running.Go(func() {
		err := c.Wait()
		cl.end(lostBy(err))
	})
	cl.running.Go(func() { cl.watch(p) })
	return cl
}

// watch asks now and then, so that a server that vanished is noticed although the network says nothing, and so that no
// firewall between forgets the connection.
func (c *client) watch(p pulse) {
	ticker := time.NewTicker(p.every)
	defer ticker.Stop()
	for {
		select {
		case <-c.dead:
			return
		case <-ticker.C:
		}
		timer := time.AfterFunc(p.patience, func() {
			c.end(fmt.Errorf("%w: no answer from the SSH server within %s", ErrLost, p.patience))
		})
		c.probe()
		timer.Stop()
	}
}

// probe returns once the other end has said that it is there, or the connection has ended. Any answer will do, also that the
// request is not known.
func (c *client) probe() {
	if _, _, err := c.ssh.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		c.end(lostBy(err))
	}
}

// lostBy does not wrap the cause: that is an io.EOF mostly, which readers of a connection would take for its regular end.
func lostBy(cause error) error {
	return fmt.Errorf("%w: %v", ErrLost, cause) //nolint:errorlint // see above
}

// end closes the connection for a reason; the first one counts.
func (c *client) end(cause error) {
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	c.mu.Unlock()
	if first {
		close(c.dead)
		_ = c.ssh.Close() // the reason is what matters
	}
}

// lost is why the connection ended; nil while it has not.
func (c *client) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause
}

// wait returns when nothing of the connection runs any more.
func (c *client) wait() { c.running.Wait() }
