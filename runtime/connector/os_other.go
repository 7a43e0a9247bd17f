//go:build !linux

package connector

import (
	"os/exec"
	"syscall"
)

// isolate gives the child a process group of its own, so that an interrupt on the terminal reaches only us and we can
// stop in order.
func isolate(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func dieWithUs(*exec.Cmd) {}

func widen(syscall.Conn) {}

func waiting(syscall.Conn) int { return 0 }
