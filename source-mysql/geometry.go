package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// wkbNames are the kinds of geometries, by their number.
var wkbNames = [...]string{"", "POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON", "GEOMETRYCOLLECTION"} //nolint:gochecknoglobals // a table

const (
	wkbPoint      = 1
	wkbLine       = 2
	wkbPolygon    = 3
	wkbCollection = 7
)

// appendGeometry appends a geometry as well-known text, from what the server stores: the number of the reference system, which
// is left out, and well-known binary.
func appendGeometry(dst, v []byte) ([]byte, error) {
	if len(v) == 0 {
		return append(dst, `""`...), nil // INSERT IGNORE leaves nothing where null is not allowed
	}
	if len(v) < 4 {
		return dst, fmt.Errorf("%w: geometry %s", errValue, hexText(v))
	}
	g := geometry{b: v[4:], dst: append(dst, '"')}
	g.shape(true, 0)
	if g.failed || len(g.b) > 0 {
		return dst, fmt.Errorf("%w: geometry %s", errValue, hexText(v))
	}
	return append(g.dst, '"'), nil
}

// geometry reads well-known binary and writes well-known text.
type geometry struct {
	b, dst []byte
	order  binary.ByteOrder
	failed bool
}

func (g *geometry) take(n int) []byte {
	if len(g.b) < n {
		g.failed, g.b = true, nil
		return make([]byte, n)
	}
	out := g.b[:n]
	g.b = g.b[n:]
	return out
}

func (g *geometry) number() int { return int(g.order.Uint32(g.take(4))) }

// shape writes one geometry, with its name or, inside of a collection of one kind, without.
func (g *geometry) shape(named bool, depth int) {
	if depth > 64 {
		g.failed = true
		return
	}
	if g.order = binary.BigEndian; g.take(1)[0] == 1 {
		g.order = binary.LittleEndian
	}
	kind := g.number()
	if kind < wkbPoint || kind > wkbCollection {
		g.failed = true
		return
	}
	if named {
		g.dst = append(g.dst, wkbNames[kind]...)
	}
	switch kind {
	case wkbPoint:
		g.dst = append(g.dst, '(')
		g.point()
		g.dst = append(g.dst, ')')
	case wkbLine:
		g.list(false, g.point)
	case wkbPolygon:
		g.list(false, func() { g.list(false, g.point) })
	default:
		g.list(kind == wkbCollection, func() { g.shape(kind == wkbCollection, depth+1) })
	}
}

func (g *geometry) list(empty bool, element func()) {
	n := g.number()
	if n == 0 && empty {
		g.dst = append(g.dst, " EMPTY"...)
		return
	}
	g.dst = append(g.dst, '(')
	for i := range n {
		if g.failed {
			return
		}
		if i > 0 {
			g.dst = append(g.dst, ',')
		}
		element()
	}
	g.dst = append(g.dst, ')')
}

func (g *geometry) point() {
	for i := range 2 {
		if i > 0 {
			g.dst = append(g.dst, ' ')
		}
		g.dst = strconv.AppendFloat(g.dst, math.Float64frombits(g.order.Uint64(g.take(8))), 'g', -1, 64)
	}
}
