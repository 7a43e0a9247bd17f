package flowpb

import "math"

// Keys returns the part of the key space that a session owns, both ends included. Without a range, and with one of zeros, that is
// all of it: senders of JSON leave the bounds of the full range out.
func (x *RangeSpec) Keys() (begin, end uint32) {
	if x.GetKeyBegin() == 0 && x.GetKeyEnd() == 0 && x.GetRClockEnd() == 0 {
		return 0, math.MaxUint32
	}
	return x.GetKeyBegin(), x.GetKeyEnd()
}

// FullRange is the range of a task that is not split.
func FullRange() *RangeSpec {
	return &RangeSpec{KeyEnd: math.MaxUint32, RClockEnd: math.MaxUint32}
}
