package main

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/sluicedata/sluice/sdk/tuple"
)

func encodeBool(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.Bool:
		if e.Bool {
			return append(dst, 0, 0, 0, 1, 1), nil
		}
		return append(dst, 0, 0, 0, 1, 0), nil
	default:
		return dst, errNotBoolean
	}
}

func appendInt8(dst []byte, v int64) []byte {
	dst = append(dst, 0, 0, 0, 8)
	return binary.BigEndian.AppendUint64(dst, uint64(v))
}

func encodeInt8(dst []byte, e tuple.Element) ([]byte, error) {
	v, err := integerOf(e)
	switch {
	case err != nil:
		return dst, err
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	default:
		return appendInt8(dst, v), nil
	}
}

func encodeInt4(dst []byte, e tuple.Element) ([]byte, error) {
	v, err := integerOf(e)
	switch {
	case err != nil || v != int64(int32(v)):
		return dst, errNotInt4
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	default:
		return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), uint32(v)), nil
	}
}

func encodeInt2(dst []byte, e tuple.Element) ([]byte, error) {
	v, err := integerOf(e)
	switch {
	case err != nil || v != int64(int16(v)):
		return dst, errNotInt2
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	default:
		return binary.BigEndian.AppendUint16(append(dst, 0, 0, 0, 2), uint16(v)), nil
	}
}

// integerOf is the integer that a value stands for; zero for null.
func integerOf(e tuple.Element) (int64, error) {
	switch e.Kind {
	case tuple.Nil:
		return 0, nil
	case tuple.Int:
		return e.Int, nil
	case tuple.Float:
		// JSON does not tell 1 from 1.0.
		if e.Float == math.Trunc(e.Float) && e.Float >= -(1<<63) && e.Float < 1<<63 {
			return int64(e.Float), nil
		}
	case tuple.String:
		if v, err := strconv.ParseInt(string(e.Bytes), 10, 64); err == nil {
			return v, nil
		}
	default:
	}
	return 0, errNotInteger
}

func encodeFloat8(dst []byte, e tuple.Element) ([]byte, error) {
	v, err := floatOf(e)
	switch {
	case err != nil:
		return dst, err
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	default:
		return appendInt8(dst, int64(math.Float64bits(v))), nil
	}
}

func encodeFloat4(dst []byte, e tuple.Element) ([]byte, error) {
	v, err := floatOf(e)
	switch {
	case err != nil:
		return dst, err
	case e.Kind == tuple.Nil:
		return appendNull(dst), nil
	case math.IsInf(float64(float32(v)), 0) && !math.IsInf(v, 0):
		return dst, errNotFloat4
	default:
		return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 4), math.Float32bits(float32(v))), nil
	}
}

// floatOf is the double that a value stands for; zero for null. Digits of strings and integers are there for being kept, so
// what has more of them than a double is refused.
func floatOf(e tuple.Element) (float64, error) {
	switch e.Kind {
	case tuple.Nil:
		return 0, nil
	case tuple.Float:
		return e.Float, nil
	case tuple.Int:
		const exact = 1 << 53 // up to here, a double holds every integer
		if v := float64(e.Int); e.Int <= exact && e.Int >= -exact {
			return v, nil
		}
		return exactFloat(strconv.AppendInt(nil, e.Int, 10))
	case tuple.Uint:
		return exactFloat(strconv.AppendUint(nil, e.Uint, 10))
	case tuple.String:
		return exactFloat(e.Bytes)
	default:
		return 0, errNotFloat
	}
}

func exactFloat(text []byte) (float64, error) {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, errNotFloat
	}
	if !math.IsInf(v, 0) && !math.IsNaN(v) && !sameDecimal(text, strconv.AppendFloat(nil, v, 'e', -1, 64)) {
		return 0, errInexactFloat
	}
	return v, nil
}
