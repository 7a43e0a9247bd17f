// Package ratio measures a program against a limit on the same machine in the same run, as docs/performance.md says:
// limit, ours, limit, ours …, and the median of the ratios of the pairs. Rows a second alone say nothing; a ratio does.
package ratio

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// Run is one measured run of a program, or of a part of one.
type Run struct {
	Rows int64
	Took time.Duration // wall clock
	CPU  time.Duration // user and system, of the measured process alone
	Peak int64         // resident memory at its highest, in bytes
}

// Rate is rows a second.
func (r Run) Rate() float64 { return float64(r.Rows) / r.Took.Seconds() }

// CPUPerMillion is CPU seconds for each million rows.
func (r Run) CPUPerMillion() float64 { return r.CPU.Seconds() / float64(r.Rows) * 1e6 }

// Result is what several pairs of runs show.
type Result struct {
	Ratio  float64 // median of ours/limit, in rows a second
	Spread float64 // (highest - lowest) / median of the pairs' ratios; above 0.2 the machine was busy
	Limit  Run     // the run of median rate
	Ours   Run     // the run of median rate, with the median CPU of all runs and the highest Peak that any had
}

// Pairs runs limit and ours in turns, n times each (5 is a good number), so that whatever drifts hits both. It stops at
// the first error. The functions get the number of the pair, from 0.
func Pairs(n int, limit, ours func(pair int) (Run, error)) (Result, error) {
	var limits, runs []Run
	var ratios []float64
	for pair := range n {
		l, err := limit(pair)
		if err != nil {
			return Result{}, fmt.Errorf("measuring the limit: %w", err)
		}
		o, err := ours(pair)
		if err != nil {
			return Result{}, fmt.Errorf("measuring ours: %w", err)
		}
		limits, runs = append(limits, l), append(runs, o)
		ratios = append(ratios, o.Rate()/l.Rate())
	}
	slices.Sort(ratios)
	result := Result{Ratio: median(ratios), Limit: byRate(limits), Ours: byRate(runs)}
	result.Spread = (ratios[len(ratios)-1] - ratios[0]) / result.Ratio
	var cpu []float64
	for _, r := range runs {
		cpu = append(cpu, float64(r.CPU))
		result.Ours.Peak = max(result.Ours.Peak, r.Peak)
	}
	slices.Sort(cpu)
	result.Ours.CPU = time.Duration(median(cpu))
	return result, nil
}

// byRate is the run with the median rate.
func byRate(runs []Run) Run {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b Run) int { return cmp.Compare(a.Rate(), b.Rate()) })
	return sorted[len(sorted)/2]
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// String describes a result for people: both rates, the spread, CPU and memory.
func (r Result) String() string {
	return fmt.Sprintf("%.0f rows/s against %.0f, spread %.0f %%, %.2f CPU s a million, %.0f MB",
		r.Ours.Rate(), r.Limit.Rate(), r.Spread*100, r.Ours.CPUPerMillion(), float64(r.Ours.Peak)/1e6)
}

// Op says on which side of its aim a figure should be.
type Op string

// The two sides.
const (
	AtLeast Op = ">="
	AtMost  Op = "<="
)

// Print writes the line that scripts/bench collects into its table:
//
//	ratio source-postgres/backfill 0.81 (aim >= 0.70) 640000 rows/s against 790000 …
//
// The name has no spaces; detail is free text of one line.
func Print(w io.Writer, name string, value float64, op Op, aim float64, detail string) error {
	_, err := fmt.Fprintf(w, "ratio %s %s (aim %s %s) %s\n", name, number(value), op, number(aim), detail)
	return err
}

// PrintOnly writes a figure that has no aim:
//
//	ratio materialize-postgres/history-new 0.3 (no aim) …
func PrintOnly(w io.Writer, name string, value float64, detail string) error {
	_, err := fmt.Fprintf(w, "ratio %s %s (no aim) %s\n", name, number(value), detail)
	return err
}

// number shows three significant digits, and all digits before the point.
func number(v float64) string {
	if math.Abs(v) >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
