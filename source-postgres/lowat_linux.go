package main

import (
	"net"
	"syscall"
)

// setLowWater tells the kernel to wake a reader of the socket only once this many bytes have arrived.
// See SO_RCVLOWAT in https://man7.org/linux/man-pages/man7/socket.7.html
func setLowWater(conn *net.TCPConn, bytes int) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
	})
	return err == nil && failed == nil
}
