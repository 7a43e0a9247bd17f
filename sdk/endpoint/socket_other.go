//go:build !linux

package endpoint

import (
	"net"
	"time"
)

// setUserTimeout does nothing: other systems have no such option in common, and keepalive alone notices idle connections.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
