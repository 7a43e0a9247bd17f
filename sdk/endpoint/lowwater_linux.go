package endpoint

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// setLowWater tells the kernel to wake a reader of the socket only once this many bytes have arrived.
// See SO_RCVLOWAT in https://man7.org/linux/man-pages/man7/socket.7.html
func setLowWater(raw syscall.RawConn, bytes int) bool {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, bytes)
	})
	return err == nil && failed == nil
}

// readWoken reads once the socket has as many bytes as its low-water mark says, not what lies below it already.
func readWoken(raw syscall.RawConn, b []byte, mark int) (n int, err error) {
	waited := false
	waiting := raw.Read(func(fd uintptr) bool {
		if !waited {
			waited = true
			if there, failed := unix.IoctlGetInt(int(fd), unix.SIOCINQ); failed != nil || there < mark {
				return false
			}
		}
		n, err = readNow(fd, b)
		return !errors.Is(err, syscall.EAGAIN)
	})
	if waiting != nil {
		return 0, waiting
	}
	return n, err
}

// readRest reads what there is, without waiting. It gives syscall.EAGAIN if there is nothing.
func readRest(raw syscall.RawConn, b []byte) (n int, err error) {
	if failed := raw.Control(func(fd uintptr) { n, err = readNow(fd, b) }); failed != nil {
		return 0, failed
	}
	return n, err
}

func readNow(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
