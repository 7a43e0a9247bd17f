package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// fork is where a timeline ended and the next one began: a standby was promoted, or a server was restored.
type fork struct {
	timeline int // the one that ended
	end      lsn // what was written to it from here on is not part of the next one
	reason   string
}

// chosen reports whether somebody chose the point, to bring back an older state.
func (f fork) chosen() bool { return f.reason != "no recovery target specified" }

// readForks asks which timelines a timeline descends from. The first one has no history.
func readForks(ctx context.Context, conn *pgconn.PgConn, timeline int) ([]fork, error) {
	if timeline <= 1 {
		return nil, nil
	}
	results, err := conn.Exec(ctx, "TIMELINE_HISTORY "+strconv.Itoa(timeline)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("reading the history of timeline %d: %w", timeline, err)
	}
	return parseForks(string(results[0].Rows[0][1]))
}

// parseForks reads a timeline history file: a line a fork of number, position and reason, separated by tabs.
// https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES
func parseForks(text string) ([]fork, error) {
	var forks []fork
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		parts := append(strings.SplitN(line, "\t", 3), "", "")
		timeline, err := strconv.Atoi(parts[0])
		if err != nil {
			return nil, fmt.Errorf("reading a timeline history: line %q: %w", line, err)
		}
		end, err := parseLSN(parts[1])
		if err != nil {
			return nil, fmt.Errorf("reading a timeline history: line %q: %w", line, err)
		}
		forks = append(forks, fork{timeline: timeline, end: end, reason: parts[2]})
	}
	return forks, nil
}

// forkOf is where the given timeline was left on the way to the present one; false if that does not descend from it.
func (s system) forkOf(timeline int) (fork, bool) {
	i := slices.IndexFunc(s.forks, func(f fork) bool { return f.timeline == timeline })
	if i < 0 {
		return fork{}, false
	}
	return s.forks[i], true
}

// lastForkBefore is where the timeline began that the server's history has at a position; 0 if that is the first one.
func (s system) lastForkBefore(at lsn) (begin lsn) {
	for _, f := range s.forks {
		if f.end < at {
			begin = max(begin, f.end)
		}
	}
	return begin
}
