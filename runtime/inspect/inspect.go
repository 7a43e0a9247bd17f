// Package inspect shows what is in the log of a pipeline: through the process that runs it or, when none does, from the data
// folder.
package inspect

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Log is a log to look at.
type Log interface {
	// Report describes all that the log has.
	Report(ctx context.Context) (*Report, error)
	// Documents writes documents of a collection as JSON lines, in the order of the log. Errors are for people.
	Documents(ctx context.Context, q Query, out io.Writer) error
	Close() error
}

// Query chooses documents of a collection.
type Query struct {
	Collection string
	// From and To are times of commits: documents committed at From or later, and before To. Zero is no bound.
	From, To time.Time
	Limit    int // of documents; zero is none
}

// Report is what a log has, in the form of `sluice log stats --json`.
type Report struct {
	Collections []Collection `json:"collections"`
}

// Collection is a collection of a log.
type Collection struct {
	Name     string    `json:"name"`
	Journals []Journal `json:"journals"`
	Readers  []Reader  `json:"readers"`
}

// Journal is the part of a collection that one capture writes, with positions in bytes since the journal began; or on Kafka a partition of its
// topic, "#" and its number instead of the capture, with positions in records.
type Journal struct {
	Capture string `json:"capture"`
	// Start is where the oldest document stands that has not been dropped, Head where the journal ends.
	Start int64 `json:"start"`
	Head  int64 `json:"head"`
	// First and Last are when the oldest and the newest document were committed.
	First     time.Time `json:"firstCommit"`
	Last      time.Time `json:"lastCommit"`
	Documents int64     `json:"documents"`
	Commits   int64     `json:"commits"`
	// Size is how many bytes of documents the journal has; an estimate where positions are records.
	Size int64 `json:"bytes"`
	// Uncounted bytes were written by a version of sluice that did not count; their documents and commits are in no number here.
	Uncounted int64 `json:"uncountedBytes,omitempty"`
}

// Bytes is what the journal has.
func (j *Journal) Bytes() int64 { return j.Size }

// Reader is how far one binding of a materialization has committed one journal.
type Reader struct {
	Materialization string `json:"materialization"`
	Binding         string `json:"binding,omitempty"`
	Capture         string `json:"capture"`
	Position        int64  `json:"position"`
	// Bytes and Documents are what it has not committed. Documents of a commit that it has in part are counted.
	Bytes     int64 `json:"bytesBehind"`
	Documents int64 `json:"documentsBehind"`
	// Through is the time of the last commit that it has as a whole; zero if that is not known.
	Through time.Time `json:"through,omitzero"`
}

// Open opens the log of a data folder: beside the sluice that uses it, through that; otherwise itself, so that none can use it
// until the log is closed. Errors are for people.
func Open(dir string, logger *logrus.Logger) (Log, error) {
	log, err := wal.Open(wal.Options{Dir: dir, Log: logrus.NewEntry(logger), ReadOnly: true})
	if errors.Is(err, wal.ErrInUse) {
		return dial(dir, err)
	}
	if err != nil {
		return nil, err
	}
	return &folder{log}, nil
}

// OpenElsewhere opens a log that is not in the data folder: beside the sluice that uses the folder, through that; otherwise as open does. Errors are
// for people.
func OpenElsewhere(dir string, open func() (wal.Engine, error)) (Log, error) {
	if _, err := os.Stat(dir); err == nil {
		folder, err := wal.Lock(dir)
		if errors.Is(err, wal.ErrInUse) {
			return dial(dir, err)
		}
		if err != nil {
			return nil, err
		}
		if err := folder.Close(); err != nil {
			return nil, err
		}
	}
	log, err := open()
	if err != nil {
		return nil, err
	}
	return &folder{log}, nil
}

// Sum is a collection's journals as if they were one.
func (c *Collection) Sum() *Journal {
	sum := &Journal{}
	for i := range c.Journals {
		j := &c.Journals[i]
		sum.Start, sum.Head, sum.Size = sum.Start+j.Start, sum.Head+j.Head, sum.Size+j.Size
		sum.Documents, sum.Commits, sum.Uncounted = sum.Documents+j.Documents, sum.Commits+j.Commits, sum.Uncounted+j.Uncounted
		if !j.First.IsZero() && (sum.First.IsZero() || j.First.Before(sum.First)) {
			sum.First = j.First
		}
		if j.Last.After(sum.Last) {
			sum.Last = j.Last
		}
	}
	return sum
}

// Only is the report of some collections. Errors are for people.
func (r *Report) Only(names []string) (*Report, error) {
	some := &Report{}
	for _, name := range names {
		i := slices.IndexFunc(r.Collections, func(c Collection) bool { return c.Name == name })
		if i < 0 {
			var has []string
			for _, c := range r.Collections {
				has = append(has, c.Name)
			}
			return nil, unknown(name, has)
		}
		some.Collections = append(some.Collections, r.Collections[i])
	}
	return some, nil
}

// unknown says that a collection is not there, and which are.
func unknown(name string, has []string) error {
	if len(has) == 0 {
		return usererr.New(nil, "the log has no collection %q: it is empty", name)
	}
	return usererr.New(nil, "the log has no collection %q; it has %s", name, strings.Join(has, ", "))
}
