package process

import "golang.org/x/sys/unix"

// forbidDumps keeps what is in memory, such as passwords, from being written to disk when the process crashes, and from other processes of
// the same user, which could read its memory and its environment. Children inherit the limit, not the rest. Both are needed: the kernel ignores
// the limit where it hands dumps to a program. Where one is refused the other still counts.
func forbidDumps() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}
