package cdctest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// history is what the stress did to the rows of one table. The workload writes it before it commits, so that it is never
// behind what is captured.
type history struct {
	mu    sync.Mutex
	lives map[string]*life // by key, as the parts of a key are joined
}

// life is all that happened to one key. Its events are numbered from 1 on; column v of a row is the number of the event that
// made it what it is.
type life struct {
	events []event
	// hot says that several sessions change the row at once: it was there from the beginning, every change adds one to
	// its number, and events does not list them.
	hot bool
}

// event is one change of one row.
type event struct {
	op   byte // c, u, d; t for a truncation, which no document tells of
	tx   int64
	note *string // the row after it; long values as digest writes them
	big  *string
	at   time.Time
}

const truncation = 't'

func newHistory() *history { return &history{lives: map[string]*life{}} }

// add appends an event.
func (h *history) add(key string, e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[key]
	if l == nil {
		l = &life{}
		h.lives[key] = l
	}
	e.at = time.Now()
	l.events = append(l.events, e)
}

// undo takes the last event of a key back, whose transaction was rolled back.
func (h *history) undo(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[key]
	l.events = l.events[:len(l.events)-1]
}

// heat makes a key hot.
func (h *history) heat(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lives[key].hot = true
}

// look calls f with what is known of a key, which does not change meanwhile.
func (h *history) look(key string, f func(l *life) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[key]
	if l == nil {
		l = &life{}
	}
	return f(l)
}

func (h *history) keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := make([]string, 0, len(h.lives))
	for key := range h.lives {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// at returns an event by its number.
func (l *life) at(number int) (event, bool) {
	if l.hot {
		note := hotNote(number)
		return event{op: 'u', note: &note}, true
	}
	if number < 1 || number > len(l.events) {
		return event{}, false
	}
	return l.events[number-1], true
}

// hotNote is what column note of a hot row holds.
func hotNote(number int) string { return "hot " + strconv.Itoa(number) }

// after returns the number of the next event of which a document tells; 0 if there is none.
func (l *life) after(number int) int {
	if l.hot {
		return number + 1
	}
	for n := number + 1; n <= len(l.events); n++ {
		if l.events[n-1].op != truncation {
			return n
		}
	}
	return 0
}

// before returns the number of the last event before it of which a document tells; 0 if there is none.
func (l *life) before(number int) int {
	if l.hot {
		return number - 1
	}
	for n := number - 1; n > 0; n-- {
		if l.events[n-1].op != truncation {
			return n
		}
	}
	return 0
}

// last returns the number of the last event of which a document tells, whether a row is there after all, and whether a
// truncation ended the life.
func (l *life) last() (number int, alive, truncated bool) {
	number = l.before(len(l.events) + 1)
	if len(l.events) == 0 || number == 0 {
		return 0, false, false
	}
	truncated = l.events[len(l.events)-1].op == truncation
	return number, !truncated && l.events[number-1].op != 'd', truncated
}

// String tells the last events for people.
func (l *life) String() string {
	const most = 40
	var b strings.Builder
	if l.hot {
		return "  (a hot row: every change adds 1 to v)\n"
	}
	first := max(0, len(l.events)-most)
	if first > 0 {
		fmt.Fprintf(&b, "  … %d events before\n", first)
	}
	for i, e := range l.events[first:] {
		fmt.Fprintf(&b, "  %s  %d. %c by transaction %d", e.at.Format(clock), first+i+1, e.op, e.tx)
		if e.op != 'd' && e.op != truncation {
			fmt.Fprintf(&b, ": note %s, big %s", text(e.note), text(e.big))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// clock is how the stress writes times.
const clock = "15:04:05.000"

// digest is a value as the stress keeps and compares it: long ones by their length and a sum.
func digest(v *string) *string {
	if v == nil || len(*v) <= 64 {
		return v
	}
	s := fmt.Sprintf("%s…(%d bytes, sum %x)", (*v)[:8], len(*v), sum(*v))
	return &s
}

// truncatedBefore reports whether a truncation stands between an event and the one before it.
func (l *life) truncatedBefore(number int) bool {
	return !l.hot && number > 1 && l.events[number-2].op == truncation
}
