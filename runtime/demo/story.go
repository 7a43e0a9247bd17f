package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// story tells what happened and when. While the live table has the terminal it keeps what it has to say for later.
type story struct {
	out      *os.File
	terminal bool
	began    time.Time

	mu     sync.Mutex
	paused bool
	held   []string
}

func newStory(out *os.File) *story {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
	return &story{out: out, terminal: terminal, began: time.Now()}
}

// tell adds a line with the time since the beginning.
func (s *story) tell(format string, args ...any) {
	line := fmt.Sprintf("%6.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused {
		s.held = append(s.held, line)
		return
	}
	fmt.Fprint(s.out, line)
}

// pause holds lines back until resume.
func (s *story) pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = true
}

func (s *story) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.paused = false; len(s.held) > 0 {
		fmt.Fprintln(s.out, "\nMeanwhile:")
	}
	for _, line := range s.held {
		fmt.Fprint(s.out, line)
	}
	s.held = nil
}

// thousands writes a number with separators: 1,234,567.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
