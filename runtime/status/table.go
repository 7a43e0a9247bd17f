package status

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Table renders a snapshot for people, in lines no wider than width (0 is unlimited).
func Table(s *Snapshot, now time.Time, width int) []string {
	head := fmt.Sprintf("sluice · %s · running for %s", s.Pipeline, short(now.Sub(s.Started)))
	switch {
	case s.PID == 0:
		return append([]string{fmt.Sprintf("sluice · %s · not run with this data folder", s.Pipeline)}, placeTable(s.Places)...)
	case s.Ended:
		head = fmt.Sprintf("sluice · %s · stopped %s ago", s.Pipeline, short(now.Sub(s.Updated)))
	case !s.Alive(now):
		head = fmt.Sprintf("sluice · %s · NOT RUNNING: last seen %s ago as process %d", s.Pipeline, short(now.Sub(s.Updated)), s.PID)
	}
	rows := [][]string{{"", "PHASE", "DOCUMENTS", "RATE/s", "BYTES", "LAG", "WAITING"}}
	for _, t := range s.Tasks {
		title := fmt.Sprintf("%s %s", t.Kind, t.Name)
		lag, behind := "", ""
		if t.Source != nil && t.State == Running {
			lag, behind = t.Source.cells()
		}
		rows = append(rows, []string{title, string(t.State), "", "", "", lag, behind})
		for _, b := range t.Bindings {
			rows = append(rows, []string{
				"  " + b.Name, phaseText(b), Grouped(b.Documents), rate(b.Rate), Bytes(float64(b.Bytes)), lagText(b.LagSeconds), waiting(t.Kind, b.LagBytes),
			})
		}
		if t.Source != nil {
			for _, line := range t.Source.lines(now) {
				rows = append(rows, []string{line})
			}
		}
		if t.Problem != "" {
			rows = append(rows, []string{"  ! " + oneLine(t.Problem) + repeated(t.Failures)})
		}
	}
	lines := append([]string{head}, align(rows)...)
	if len(s.Places) > 0 {
		lines = append(append(lines, ""), placeTable(s.Places)...)
	}
	if width > 0 {
		for i, line := range lines {
			lines[i] = cut(line, width)
		}
	}
	return lines
}

// placeTable is who runs what, for people.
func placeTable(places []Place) []string {
	places = append([]Place{{"TASK", "RUNS ON"}}, places...)
	width := 0
	for _, p := range places {
		width = max(width, utf8.RuneCountInString(p.Task))
	}
	lines := make([]string, 0, len(places))
	for _, p := range places {
		if p.Process == "" {
			p.Process = "nobody: it moves to another process, or no process runs"
		}
		lines = append(lines, fmt.Sprintf("%-*s  %s", width, p.Task, p.Process))
	}
	return lines
}

func phaseText(b BindingRow) string {
	if b.Percent > 0 {
		return fmt.Sprintf("%s %.0f%%", b.Phase, b.Percent)
	}
	return b.Phase
}

func repeated(n int) string {
	if n > 1 {
		return fmt.Sprintf(" (%d times)", n)
	}
	return ""
}

// align pads columns: the first two to the right, numbers to the left. Rows of one cell are left as they are.
func align(rows [][]string) []string {
	var widths [7]int
	for _, row := range rows {
		if len(row) < len(widths) {
			continue
		}
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		if len(row) < len(widths) {
			lines = append(lines, row[0])
			continue
		}
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i < 2 {
				b.WriteString(cell + pad + "  ")
			} else {
				b.WriteString(pad + cell + "  ")
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

func cut(line string, width int) string {
	if utf8.RuneCountInString(line) <= width {
		return line
	}
	return string([]rune(line)[:max(width-1, 0)]) + "…"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Grouped is a number whose digits stand in groups.
func Grouped(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func rate(r float64) string { return Grouped(uint64(r + 0.5)) }

// Bytes is a number of bytes for people.
func Bytes(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}

func waiting(kind Kind, n int64) string {
	if kind == Capture {
		return ""
	}
	return Bytes(float64(n))
}

func lagText(seconds float64) string {
	if seconds < 1 {
		return fmt.Sprintf("%.0f ms", seconds*1000)
	}
	return short(time.Duration(seconds * float64(time.Second)))
}

func short(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}
