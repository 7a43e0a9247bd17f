// Package fault makes readers and writers that fail at a chosen moment.
package fault

import (
	"errors"
	"io"
)

// ErrInjected is the failure.
var ErrInjected = errors.New("injected fault")

// Reader gives the first bytes of another reader, and then fails.
type Reader struct {
	R     io.Reader
	After int   // bytes that still come through
	Err   error // what Read returns then; nil means ErrInjected; io.EOF cuts the stream
}

func (r *Reader) Read(p []byte) (int, error) {
	if r.After <= 0 {
		if r.Err != nil {
			return 0, r.Err
		}
		return 0, ErrInjected
	}
	n, err := r.R.Read(p[:min(len(p), r.After)])
	r.After -= n
	return n, err
}

// Writer passes bytes on, and then fails; the write that crosses the limit is cut short there, as a full disk does.
type Writer struct {
	W     io.Writer
	After int   // bytes that still come through
	Err   error // nil means ErrInjected
}

func (w *Writer) Write(p []byte) (int, error) {
	if len(p) <= w.After {
		n, err := w.W.Write(p)
		w.After -= n
		return n, err
	}
	n, err := w.W.Write(p[:w.After])
	w.After = 0
	if err == nil {
		err = w.Err
	}
	if err == nil {
		err = ErrInjected
	}
	return n, err
}
