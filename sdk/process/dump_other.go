//go:build !linux

package process

// forbidDumps does nothing here.
func forbidDumps() {}
