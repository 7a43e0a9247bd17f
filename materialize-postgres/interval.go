package main

import (
	"errors"
	"math"
)

var errNotInterval = errors.New("it is not a duration of the form P1DT2H30M")

// interval is a duration as Postgres keeps it: months and days have no fixed length.
type interval struct {
	months, days int32
	micros       int64
}

// parseInterval reads an ISO 8601 duration, whose parts may each have a sign, and the seconds a fraction down to a
// microsecond; or infinity, which needs Postgres 17.
func parseInterval(s []byte) (interval, error) {
	switch string(s) {
	case "infinity":
		return interval{math.MaxInt32, math.MaxInt32, math.MaxInt64}, nil
	case "-infinity":
		return interval{math.MinInt32, math.MinInt32, math.MinInt64}, nil
	}
	p := intervalParser{rest: s}
	if p.take('-') {
		p.negative = true
	}
	if !p.take('P') {
		return interval{}, errNotInterval
	}
	for len(p.rest) > 0 {
		if !p.inTime && p.take('T') {
			p.inTime = true
			continue
		}
		if !p.part() {
			return interval{}, errNotInterval
		}
		p.parts++
	}
	if p.parts == 0 || p.months != int64(int32(p.months)) || p.days != int64(int32(p.days)) {
		return interval{}, errNotInterval
	}
	return interval{int32(p.months), int32(p.days), p.micros}, nil
}

type intervalParser struct {
	rest                 []byte
	negative, inTime     bool
	parts                int
	months, days, micros int64
}

func (p *intervalParser) take(c byte) bool {
	if len(p.rest) == 0 || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// part reads a number with its unit.
func (p *intervalParser) part() bool {
	sign := int64(1)
	if p.take('-') {
		sign = -1
	} else {
		p.take('+')
	}
	if p.negative {
		sign = -sign
	}
	v, digits := p.digits(15)
	if digits == 0 {
		return false
	}
	if p.take('.') || p.take(',') {
		fraction, n := p.digits(6)
		for i := n; i < 6; i++ {
			fraction *= 10
		}
		return n > 0 && p.inTime && p.take('S') && p.clock(sign*v, microsPerSecond) && p.clock(sign*fraction, 1)
	}
	v *= sign
	switch {
	case p.inTime && p.take('H'):
		return p.clock(v, 3600*microsPerSecond)
	case p.inTime && p.take('M'):
		return p.clock(v, 60*microsPerSecond)
	case p.inTime && p.take('S'):
		return p.clock(v, microsPerSecond)
	case !p.inTime && p.take('Y'):
		p.months += v * 12
	case !p.inTime && p.take('M'):
		p.months += v
	case !p.inTime && p.take('W'):
		p.days += v * 7
	case !p.inTime && p.take('D'):
		p.days += v
	default:
		return false
	}
	return true
}

// clock adds to the part of the interval that has a fixed length, unless that becomes too long.
func (p *intervalParser) clock(v, unit int64) bool {
	sum := p.micros + v*unit
	if v > math.MaxInt64/unit || v < math.MinInt64/unit || (sum > p.micros) != (v > 0) && v != 0 {
		return false
	}
	p.micros = sum
	return true
}

func (p *intervalParser) digits(most int) (v int64, n int) {
	for n < most && n < len(p.rest) && p.rest[n] >= '0' && p.rest[n] <= '9' {
		v = v*10 + int64(p.rest[n]-'0')
		n++
	}
	p.rest = p.rest[n:]
	return v, n
}
