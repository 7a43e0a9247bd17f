//go:build !linux

package main

import "os"

// punchHole would give a part of a file back to the disk, as it does on Linux. Here the space is used again all the same.
func punchHole(*os.File, int64, int64) {}
