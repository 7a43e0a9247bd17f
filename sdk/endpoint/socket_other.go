//go:build !linux

package endpoint

import (
	"net"
	"time"
)

// giveUpSilent does nothing: other systems have no such option in common, and keepalive alone notices idle connections.
func giveUpSilent(*net.TCPConn, time.Duration) error { return nil }
