//go:build race

package cdc

// underRace says that the race detector is on. A simulation has one goroutine, so it finds nothing there, and takes ten times as
// long: few of them are enough.
const underRace = true
