package conformance

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"time"
)

// Outcome is what became of a rule.
type Outcome string

// The outcomes.
const (
	Pass Outcome = "pass"
	Fail Outcome = "fail"
	Skip Outcome = "skip"
)

// Finding is the outcome of one rule.
type Finding struct {
	Rule     string        `json:"rule"`
	Severity Severity      `json:"severity"`
	Title    string        `json:"title"`
	Outcome  Outcome       `json:"outcome"`
	Detail   string        `json:"detail,omitempty"` // what was seen, or why it was skipped
	Fix      string        `json:"fix,omitempty"`    // of one that failed
	Took     time.Duration `json:"-"`
	Seconds  float64       `json:"seconds"`
}

// Report is the outcome of all rules for one connector.
type Report struct {
	Connector string    `json:"connector"`
	Kind      Kind      `json:"kind"`
	Findings  []Finding `json:"findings"`
}

// Count counts the findings of an outcome; of failures, only those of the given severity unless it is empty.
func (r *Report) Count(o Outcome, s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Outcome == o && (s == "" || f.Severity == s) {
			n++
		}
	}
	return n
}

// OK reports whether no rule of severity Error is broken.
func (r *Report) OK() bool { return r.Count(Fail, Error) == 0 }

// Write writes the report: text for people, json, or junit for CI systems.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	case "junit":
		return r.junit(w)
	case "text":
		return r.text(w)
	}
	return fmt.Errorf("choosing the format: %q is not text, json or junit", format)
}

func (r *Report) text(w io.Writer) error {
	for _, f := range r.Findings {
		if _, err := fmt.Fprintf(w, "%-4s  %-18s %6.1fs  %s\n", f.Outcome, f.Rule, f.Seconds, f.Title); err != nil {
			return err
		}
		if f.Detail != "" {
			if _, err := fmt.Fprintf(w, "      %-18s          %s\n", "", f.Detail); err != nil {
				return err
			}
		}
		if f.Outcome == Fail {
			if _, err := fmt.Fprintf(w, "      %-18s          %s: %s\n", "", f.Severity, f.Fix); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "\n%s (%s): %d rules hold, %d errors, %d warnings, %d skipped\n",
		r.Connector, r.Kind, r.Count(Pass, ""), r.Count(Fail, Error), r.Count(Fail, Warning), r.Count(Skip, ""))
	return err
}

type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string     `xml:"name,attr"`
		Class   string     `xml:"classname,attr"`
		Seconds float64    `xml:"time,attr"`
		Failure *junitText `xml:"failure,omitempty"`
		Skipped *junitText `xml:"skipped,omitempty"`
		Out     string     `xml:"system-out,omitempty"`
	}
	junitText struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit writes a suite with a case for each rule. A broken rule of severity Warning is no failure; its text is the case's output.
func (r *Report) junit(w io.Writer) error {
	suite := junitSuite{Name: r.Connector, Tests: len(r.Findings), Failures: r.Count(Fail, Error), Skipped: r.Count(Skip, "")}
	for _, f := range r.Findings {
		c := junitCase{Name: f.Rule, Class: string(r.Kind), Seconds: f.Seconds}
		switch {
		case f.Outcome == Skip:
			c.Skipped = &junitText{Message: f.Detail}
		case f.Outcome == Fail && f.Severity == Error:
			c.Failure = &junitText{Message: f.Detail, Text: f.Title + "\n" + f.Fix}
		case f.Outcome == Fail:
			c.Out = "warning: " + f.Detail + "\n" + f.Fix
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
