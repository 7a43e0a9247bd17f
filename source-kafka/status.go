package main

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kadm"
)

// status is what the log says now and then. Where partitions end is asked beside the reading, for a partition that is not read just now
// says nothing of it, and a broker that does not answer must hold nobody up.
type status struct {
	records int64                   // captured when it was last written
	answer  chan kadm.ListedOffsets // of the question that is under way; nil if none is
	cancel  context.CancelFunc
}

// endsTimeout bounds the question where partitions end.
const endsTimeout = 10 * time.Second

// ask begins to find out where partitions end.
func (s *status) ask(ctx context.Context, admin *kadm.Client, topics map[string]*topic) {
	if s.answer != nil {
		return
	}
	ctx, s.cancel = context.WithTimeout(ctx, endsTimeout)
	answer, names := make(chan kadm.ListedOffsets, 1), slices.Sorted(maps.Keys(topics))
	s.answer = answer
	go func() {
		ends, _ := admin.ListCommittedOffsets(ctx, names...) // partitions without an answer are counted
		answer <- ends
	}()
}

// close ends a question that is under way.
func (s *status) close() {
	if s.answer != nil {
		s.cancel()
		<-s.answer
		s.answer = nil
	}
}

// tell writes how far the capture is, if the answer is there.
func (s *status) tell(log *logrus.Entry, topics map[string]*topic) {
	select {
	case ends := <-s.answer:
		s.cancel()
		s.answer = nil
		s.write(log, topics, ends)
	default:
	}
}

func (s *status) write(log *logrus.Entry, topics map[string]*topic, ends kadm.ListedOffsets) {
	var partitions, bad, unknown int
	var records, behind int64
	for _, t := range topics {
		partitions += len(t.partitions)
		bad += t.bad
		unknown += len(t.waiting)
		for _, p := range t.partitions {
			records += p.records
			end, ok := ends.Lookup(t.name, p.number)
			if !ok || end.Err != nil {
				unknown++
				continue
			}
			behind += max(0, end.Offset-p.Next)
		}
	}
	fields := logrus.Fields{"partitions": partitions, "records": records - s.records, "behind": behind}
	if bad > 0 {
		fields["bad"] = bad
	}
	if unknown > 0 {
		fields["unknown"] = unknown
	}
	s.records = records
	log.WithFields(fields).Info("capturing")
}
