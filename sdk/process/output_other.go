//go:build !linux

package process

import (
	"context"
	"io"
	"os"
)

// watchOutput watches nothing here: the next write will fail.
func watchOutput(context.Context, io.Writer, func()) <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// isTerminal reports whether somebody probably sits at the other end of f.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
