package capture

import (
	"bytes"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// pullProgress tells people how a pull is going. Nil tells nobody.
type pullProgress struct {
	show  func(line string)
	began time.Time

	documents, bytes atomic.Uint64

	// Of the goroutine that tells:
	at     time.Time
	before uint64 // documents
}

// wrote counts what was written: one document a line.
func (p *pullProgress) wrote(lines []byte) {
	if p != nil {
		p.documents.Add(uint64(bytes.Count(lines, []byte{'\n'}))) //nolint:gosec // a count
		p.bytes.Add(uint64(len(lines)))
	}
}

// tell shows what has been written, and how fast since it was last called.
func (p *pullProgress) tell(now time.Time) {
	if p == nil {
		return
	}
	if p.at.IsZero() {
		p.at = p.began
	}
	documents := p.documents.Load()
	rate := float64(documents-p.before) / max(now.Sub(p.at).Seconds(), 0.001)
	p.at, p.before = now, documents
	p.show(fmt.Sprintf("%s documents  %s  %s/s  %s", thousands(documents), size(p.bytes.Load()),
		thousands(uint64(rate)), now.Sub(p.began).Round(time.Second)))
}

// thousands writes a number with commas.
func thousands(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func size(bytes uint64) string {
	v, units := float64(bytes), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for v >= 1024 && len(units) > 1 {
		v, units = v/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%.0f B", v)
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}
