package main

import "runtime"

// memoryUsed is what the process has from the system, for the test that nothing large is kept.
func memoryUsed() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}
