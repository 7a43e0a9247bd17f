package endpoint

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Lost reports whether an error is one of the network: a connection broke, was given up because nothing came, or could not be made. What
// a server said, and what is wrong with its certificate, is none.
func Lost(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op != "remote error" && op.Op != "local error" // alerts of TLS
	}
	for _, known := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, os.ErrDeadlineExceeded, context.DeadlineExceeded,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
