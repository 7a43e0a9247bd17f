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

// floatOf is the double that a value stands for; zero for null. Digits in a string are there for being kept, so a string is
// refused if it has more of them than a double.
func floatOf(e tuple.Element) (float64, error) {
	switch e.Kind {
	case tuple.Nil:
		return 0, nil
	case tuple.Float:
		return e.Float, nil
	case tuple.Int:
		return float64(e.Int), nil
	case tuple.Uint:
		return float64(e.Uint), nil
	case tuple.String:
		v, err := strconv.ParseFloat(string(e.Bytes), 64)
		if err != nil {
			return 0, errNotFloat
		}
		if !math.IsInf(v, 0) && !math.IsNaN(v) && !sameDecimal(e.Bytes, strconv.AppendFloat(nil, v, 'e', -1, 64)) {
			return 0, errInexactFloat
		}
		return v, nil
	default:
		return 0, errNotFloat
	}
}
