package main

import (
	"hash/fnv"
	"strconv"
)

// state is how far a topic is captured. With several processes, each owning some of the partitions, every one of them changes
// only the positions of its own, so that their merge patches can be applied in any order.
type state struct {
	// Began is what the topic was when its capture began.
	Began *beginning `json:"began,omitempty"`
	// Partitions are positions by the partition's number.
	Partitions map[string]*position `json:"partitions,omitempty"`
}

// beginning tells partitions that were there when the capture began, which are read from where the user said, from those that
// came later, which are read from their beginning.
type beginning struct {
	Topic      string `json:"topic,omitempty"` // the topic's id
	Partitions int32  `json:"partitions"`      // how many there were
}

// position is where a partition is read on.
type position struct {
	// Topic is the id of the topic that the offset is one of: a topic that is deleted and created again keeps its name only.
	// Empty where brokers give no ids.
	Topic string `json:"topic,omitempty"`
	// Next is the offset of the next record.
	Next int64 `json:"next"`
	// Epoch is the leader epoch of the last record, which tells whether the log was cut before it since; -1 if not known.
	Epoch int32 `json:"epoch"`
}

// position is that of a partition; nil if there is none.
func (s *state) position(partition int32) *position {
	return s.Partitions[strconv.Itoa(int(partition))]
}

func (s *state) setPosition(partition int32, p *position) {
	if s.Partitions == nil {
		s.Partitions = map[string]*position{}
	}
	s.Partitions[strconv.Itoa(int(partition))] = p
}

// hashOf is where a partition falls in the range of keys that is divided between processes. It must never change: processes of
// different versions divide the same partitions.
func hashOf(topic string, partition int32) uint32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(topic)) // never fails
	_, _ = h.Write([]byte{0, byte(partition), byte(partition >> 8), byte(partition >> 16), byte(partition >> 24)})
	// The last bytes of the text have hardly reached the upper bits, which decide: mix them (the end of murmur3).
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return uint32(x >> 32) //nolint:gosec // the upper half
}
