package cdc

import (
	"slices"

	"github.com/sirupsen/logrus"
)

// partsEvent marks the log line of parts that left a table with their rows.
const partsEvent = "partsRemoved"

// parted follows which parts a table consists of (Table.Parts). What a part holds when it comes is read; of the rows of one
// that went, no log has deletes.
func (r *reader) parted(t *table, found *Table) error {
	s := t.state
	if s.Phase == Pending || s.Phase == Missing {
		return nil // the plan says which parts there are
	}
	if s.Parts == nil || t.changesOnly {
		if !slices.Equal(s.Parts, found.Parts) {
			s.Parts = found.Parts
			r.save(t)
		}
		return nil
	}
	has := func(parts []string) func(string) bool {
		return func(p string) bool { return slices.Contains(parts, p) }
	}
	t.fresh = slices.DeleteFunc(slices.Clone(found.Parts), has(s.Parts))
	if len(t.fresh) > 0 {
		r.rework = true
		t.watch()
	}
	gone := slices.DeleteFunc(slices.Clone(s.Parts), has(found.Parts))
	if len(gone) == 0 {
		return nil
	}
	s.Parts = slices.DeleteFunc(slices.Clone(s.Parts), has(gone))
	r.save(t)
	return r.emptied(t, r.log.WithFields(logrus.Fields{
		"eventType": partsEvent, "table": t.id.String(), "cursor": string(r.shared.Cursor), "parts": join(gone), "onTruncate": string(r.opts.OnTruncate),
	}), "lost a part of its rows, which was detached or dropped")
}

// extend begins to read parts that have come to a table.
func (r *reader) extend(t *table, j *planJob) error {
	if err := r.adopt(t, j.found); err != nil {
		return err
	}
	s := t.state
	if t.revision != j.at || s.Phase != Live && s.Phase != Scanning {
		return nil // all of it is read anew
	}
	t.window.require(j.plan.Unseen)
	if s.Phase == Live {
		s.Phase, s.Fixed, s.Rows, s.Estimate = Scanning, j.plan.Fixed, 0, -1
		t.chunkRows = r.opts.ChunkRows
		t.started = r.now()
	} else {
		s.Fixed = s.Fixed && j.plan.Fixed
	}
	for _, rest := range j.plan.Ranges {
		if rest != "" {
			t.spans = append(t.spans, &span{rest: rest, ahead: rest})
		}
	}
	s.Parts = append(slices.Clip(s.Parts), j.shape.Parts...)
	slices.Sort(s.Parts)
	t.fresh = slices.DeleteFunc(t.fresh, func(p string) bool { return slices.Contains(j.parts, p) })
	t.saveRanges()
	r.save(t)
	r.log.WithFields(logrus.Fields{"table": t.id.String(), "parts": join(j.parts)}).Info("reading parts that have come to the table")
	r.finished(t)
	return nil
}
