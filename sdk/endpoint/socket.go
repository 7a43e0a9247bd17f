package endpoint

import (
	"context"
	"fmt"
	"net"
	"time"
)

// A Dialer opens connections: a NetDialer does it directly, a tunnel through another machine.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// NetDialer opens TCP connections whose other end cannot vanish unnoticed. A server whose machine stopped, or a firewall that
// forgot the connection, says nothing; with a NetDialer of the zero value such a connection fails within a minute, whether
// something was to be sent (on Linux) or nothing (keepalive). A server that lives, but does not read what it is sent, is waited
// for.
type NetDialer struct {
	Timeout time.Duration // of connecting; 0 means 20 s
	Idle    time.Duration // how long nothing may arrive before the other end is asked whether it is there; 0 means 15 s
	Dead    time.Duration // how long it may not answer what was sent or asked; 0 means 30 s
}

func (d NetDialer) withDefaults() NetDialer {
	if d.Timeout <= 0 {
		d.Timeout = 20 * time.Second
	}
	if d.Idle <= 0 {
		d.Idle = 15 * time.Second
	}
	if d.Dead <= 0 {
		d.Dead = 30 * time.Second
	}
	return d
}

// probes is how many unanswered questions make a connection dead, on systems that count them.
const probes = 3

// DialContext implements Dialer.
func (d NetDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d = d.withDefaults()
	dialer := net.Dialer{Timeout: d.Timeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: d.Idle, Interval: d.Dead / probes, Count: probes,
	}}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err //nolint:wrapcheck // a *net.OpError, which names the address
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := giveUpSilent(tcp, d.Dead); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("preparing the connection: %w", err)
		}
	}
	return conn, nil
}
