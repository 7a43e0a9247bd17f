package process

import (
	"io"
	"sync"
)

// statusLine is a terminal whose last line says how things are going. What is written goes above it.
type statusLine struct {
	mu    sync.Mutex
	out   io.Writer
	shown string
}

const clearLine = "\r\x1b[K"

// Write writes above the line.
func (s *statusLine) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shown == "" {
		return s.out.Write(text)
	}
	if _, err := io.WriteString(s.out, clearLine); err != nil {
		return 0, err
	}
	n, err := s.out.Write(text)
	if err == nil {
		_, err = io.WriteString(s.out, s.shown)
	}
	return n, err
}

// set changes the line; an empty one goes away.
func (s *statusLine) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text == s.shown {
		return
	}
	s.shown = text
	_, _ = io.WriteString(s.out, clearLine+text) // a terminal that is gone shows nothing
}

// ShowStatus shows a line below everything that is logged, in place of the one before, if somebody looks at Stderr; an empty
// one goes away. It may be called from any goroutine.
func (p *Process) ShowStatus(text string) {
	if p.status != nil {
		p.status.set(text)
	}
}
