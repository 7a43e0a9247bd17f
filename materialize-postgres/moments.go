package main

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/sluicedata/sluice/sdk/tuple"
)

func encodeDate(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.String:
		days, err := parseDate(e.Bytes)
		if err != nil {
			return dst, err
		}
		return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), uint32(days)), nil
	default:
		return dst, errNotDate
	}
}

func encodeTimestamp(dst []byte, e tuple.Element) ([]byte, error) {
	dst, _, err := appendStamp(dst, e)
	return dst, err
}

func encodeTimestampKey(dst []byte, e tuple.Element) ([]byte, error) {
	out, exact, err := appendStamp(dst, e)
	if err == nil && !exact {
		return dst, errInexactKey
	}
	return out, err
}

func appendStamp(dst []byte, e tuple.Element) ([]byte, bool, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), true, nil
	case tuple.String:
		micros, exact, err := parseTimestamp(e.Bytes)
		if err != nil {
			return dst, false, err
		}
		return appendInt8(dst, micros), exact, nil
	default:
		return dst, false, errNotTime
	}
}

// exactTime is encode for keys, which refuses a fraction that would be rounded.
func exactTime(encode encoder) encoder {
	return func(dst []byte, e tuple.Element) ([]byte, error) {
		const clock = len("15:04:05")
		if e.Kind == tuple.String && len(e.Bytes) > clock {
			if _, _, exact := scanFraction(e.Bytes[clock:]); !exact {
				return dst, errInexactKey
			}
		}
		return encode(dst, e)
	}
}

func encodeTime(dst []byte, e tuple.Element) ([]byte, error) {
	t, err := timeOf(e)
	switch {
	case err != nil:
		return dst, err
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	default:
		return appendInt8(dst, t.inUTC()), nil
	}
}

func encodeTimetz(dst []byte, e tuple.Element) ([]byte, error) {
	t, err := timeOf(e)
	switch {
	case err != nil:
		return dst, err
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 12), uint64(t.micros))
		return binary.BigEndian.AppendUint32(dst, uint32(int32(-t.east))), nil // Postgres counts zones westward
	}
}

func timeOf(e tuple.Element) (clock, error) {
	switch e.Kind {
	case tuple.Nil:
		return clock{}, nil
	case tuple.String:
		return parseTime(e.Bytes)
	default:
		return clock{}, errNotClock
	}
}

// errInfiniteInterval is for servers that would take an infinite interval for a finite one, which they then cannot show.
var errInfiniteInterval = errors.New("an infinite interval needs Postgres 17")

func encodeFiniteInterval(dst []byte, e tuple.Element) ([]byte, error) {
	if e.Kind == tuple.String && bytes.HasSuffix(e.Bytes, []byte("infinity")) {
		return dst, errInfiniteInterval
	}
	return encodeInterval(dst, e)
}

func encodeInterval(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.String:
		v, err := parseInterval(e.Bytes)
		if err != nil {
			return dst, err
		}
		dst = binary.BigEndian.AppendUint64(append(dst, 0, 0, 0, 16), uint64(v.micros))
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.days))
		return binary.BigEndian.AppendUint32(dst, uint32(v.months)), nil
	default:
		return dst, errNotInterval
	}
}
