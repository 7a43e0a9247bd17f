package sinktest

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// patience bounds every wait for a connector.
const patience = 60 * time.Second

// Process is a running connector, in a process of its own or in the test's.
type Process struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	// Kill ends the connector as SIGKILL does: at once, without a word.
	Kill func()
	// Wait waits for the end and returns the error that the connector reports to people, nil after a clean end.
	Wait func() error
}

// Peer is the runtime's end of one connector process. It is for one goroutine.
type Peer struct {
	t     testing.TB
	codec frame.Codec
	p     Process
	r     *frame.Reader
	w     *frame.Writer
	// step is told of every message that crosses the pipe; it may kill the connector.
	step func(name string)

	ended   sync.Once
	waitErr error
}

// Start starts a connector and takes the other end of its pipes. The connector is killed when the test ends.
func Start(t testing.TB, c Case, codec frame.Codec) *Peer {
	t.Helper()
	p := c.Start(t, codec)
	peer := &Peer{
		t: t, codec: codec, p: p,
		r: frame.NewReader(p.Stdout, codec, 0), w: frame.NewWriter(p.Stdin, codec),
		step: func(string) {},
	}
	t.Cleanup(func() { peer.Kill() })
	return peer
}

// Kill ends the connector at once.
func (p *Peer) Kill() {
	p.p.Kill()
	_ = p.Wait()
}

// KillOnly is Kill for other goroutines than the peer's: it does not wait for the end.
func (p *Peer) KillOnly() { p.p.Kill() }

// Wait waits for the connector's end.
func (p *Peer) Wait() error {
	p.ended.Do(func() {
		_ = p.p.Stdin.Close()
		p.waitErr = p.p.Wait()
	})
	return p.waitErr
}

// CloseRequests closes the connector's input.
func (p *Peer) CloseRequests() { _ = p.p.Stdin.Close() }

// Send sends a request at once.
func (p *Peer) Send(m *materializepb.Request) error {
	if err := p.w.Write(m); err != nil {
		return err
	}
	return p.w.Flush()
}

// Next returns the next response; io.EOF after the last one.
func (p *Peer) Next() (*materializepb.Response, error) {
	timer := time.AfterFunc(patience, p.p.Kill)
	defer timer.Stop()
	m := &materializepb.Response{}
	if err := p.r.Read(m); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("checking a response: %w", err)
	}
	return m, nil
}

// Call sends a request and returns the response. A connector that ends instead fails with what it reported.
func (p *Peer) Call(m *materializepb.Request) (*materializepb.Response, error) {
	if err := p.Send(m); err != nil {
		return nil, p.reason(err)
	}
	res, err := p.Next()
	if err != nil {
		return nil, p.reason(err)
	}
	return res, nil
}

// MustCall is Call for requests that must succeed.
func (p *Peer) MustCall(m *materializepb.Request) *materializepb.Response {
	p.t.Helper()
	res, err := p.Call(m)
	require.NoError(p.t, err)
	return res
}

// errEnded says that the connector ended without an error of its own.
var errEnded = errors.New("the connector ended")

// reason replaces the error of a broken pipe with what the connector had to say.
func (p *Peer) reason(err error) error {
	if err := p.Wait(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errEnded, err)
}
