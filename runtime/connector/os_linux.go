package connector

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// isolate gives the child a process group of its own, so that an interrupt on the terminal reaches only us and we can
// stop in order; and lets it die with us, so that a runtime which was killed leaves no connector behind that
// still holds its replication slot or its lock.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// dieWithUs lets a program that stays in our process group be killed when we are.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// widen makes a pipe hold a megabyte: fewer wake-ups for a connector in a hurry. It is a favour, not a need.
func widen(pipe syscall.Conn) {
	const setPipeSize = 1031 // F_SETPIPE_SZ
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, setPipeSize, 1<<20)
	})
}

// waiting is how many bytes a pipe holds.
func waiting(pipe syscall.Conn) (bytes int) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		bytes, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) // zero if it cannot be told, which only makes us look later
	})
	return bytes
}
