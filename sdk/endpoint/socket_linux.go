package endpoint

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A hearing has the kernel give up a connection whose other end was not heard for a while although something waits to be sent
// or acknowledged.
//
// Without an option the kernel repeats lost data for a quarter of an hour, and keepalive asks nothing meanwhile. But the option
// for it, TCP_USER_TIMEOUT, also ends the connection of a server that lives and does not read, because it waits for a lock or
// its disk: it counts from when the window closed, though all the questions whether it has opened are answered. So, every now
// and then, the timeout is raised to where it would end if it had begun at the last answer. The kernel never asks later than the
// timeout, so that answers come as often.
type hearing struct {
	raw   syscall.RawConn
	dead  time.Duration // how long nothing may be heard
	limit time.Duration // the timeout in force
	acked uint64        // bytes
	moved time.Time     // when it was last seen that nothing waits, or that more was acknowledged
}

// looks is how often a hearing looks in the time in which nothing may be heard.
const looks = 6

// giveUpSilent makes a hearing for a connection; it ends with that.
func giveUpSilent(conn *net.TCPConn, dead time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("preparing the connection: %w", err)
	}
	h := &hearing{raw: raw, dead: dead, moved: time.Now()}
	if err := h.setLimit(dead); err != nil {
		return err
	}
	h.lookLater()
	return nil
}

func (h *hearing) lookLater() {
	time.AfterFunc(h.dead/looks, func() {
		if h.look() == nil { // else the connection is closed
			h.lookLater()
		}
	})
}

func (h *hearing) look() error {
	var info *unix.TCPInfo
	var err error
	closed := h.raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(closed, err); err != nil {
		return err
	}
	now := time.Now()
	waits := info.Unacked > 0 || info.Notsent_bytes > 0
	if !waits || info.Bytes_acked != h.acked {
		h.acked, h.moved = info.Bytes_acked, now
		return h.setLimit(h.dead)
	}
	heard := now.Add(-time.Duration(info.Last_ack_recv) * time.Millisecond)
	// It may have begun to wait as long before moved as looks are apart.
	return h.setLimit(max(heard.Sub(h.moved)+h.dead/looks, 0) + h.dead)
}

func (h *hearing) setLimit(limit time.Duration) error {
	const most = 20 * 24 * time.Hour // the option has 31 bits of milliseconds
	limit = min(limit, most)
	if limit == h.limit {
		return nil
	}
	h.limit = limit
	var err error
	closed := h.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limit.Milliseconds()))
	})
	return errors.Join(closed, err)
}
