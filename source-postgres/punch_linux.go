package main

import (
	"os"
	"syscall"
)

// punchHole gives a part of a file back to the disk. Where the file system cannot do that, the space is used again all the
// same.
func punchHole(f *os.File, at, n int64) {
	const keepSize, hole = 1, 2
	_ = syscall.Fallocate(int(f.Fd()), keepSize|hole, at, n) //nolint:gosec // a descriptor fits an int
}
