// Package shard divides a task into parts that run side by side, each with a range of its keys' hashes, and knows what has to be kept
// when it is divided anew.
package shard

import (
	"fmt"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// Shard is one part of a task. The zero Shard is the whole of it.
type Shard struct {
	Index int // from zero
	Count int // of all parts; 0 and 1 are a whole
}

// Of lists the parts of a task, in the order of their ranges.
func Of(count int) []Shard {
	count = max(count, 1)
	all := make([]Shard, count)
	for i := range all {
		all[i] = Shard{i, count}
	}
	return all
}

// Whole tells whether the task is not divided.
func (s Shard) Whole() bool { return s.Count <= 1 }

// Leads tells whether this is the part that applies the task's specification, for all of them.
func (s Shard) Leads() bool { return s.Index == 0 }

// Owns tells whether a part of equally many keys, one of a number of such parts in the order of their hashes, is this shard's. Every one is
// some shard's, and if there are fewer than shards, some have none.
func (s Shard) Owns(part, of int) bool {
	return s.Whole() || part*s.Count/of == s.Index
}

// Range is what the connector is opened with.
func (s Shard) Range() *flowpb.RangeSpec {
	r := flowpb.FullRange()
	if !s.Whole() {
		r.KeyBegin, r.KeyEnd = s.begin(), s.end()
	}
	return r
}

func (s Shard) begin() uint32 { return uint32(uint64(s.Index) << 32 / uint64(s.Count)) }
func (s Shard) end() uint32   { return uint32(uint64(s.Index+1)<<32/uint64(s.Count) - 1) }

// Suffix tells what belongs to this shard from what belongs to others of the task: behind a name. It is empty for a whole.
func (s Shard) Suffix() string {
	if s.Whole() {
		return ""
	}
	return fmt.Sprintf(";%08x-%08x", s.begin(), s.end())
}

// Label is what people see behind the task's name; empty for a whole.
func (s Shard) Label() string {
	if s.Whole() {
		return ""
	}
	return fmt.Sprintf(" %d/%d", s.Index+1, s.Count)
}
