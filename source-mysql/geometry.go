package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// geometryNames are the kinds of geometries, by their number, as GeoJSON spells them; well-known text has capital letters.
var geometryNames = [...]string{"", "Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection"} //nolint:gochecknoglobals // a table

const (
	wkbPoint      = 1
	wkbLine       = 2
	wkbPolygon    = 3
	wkbCollection = 7
)

// appendGeometry appends a geometry as well-known text in a string, or as GeoJSON (https://www.rfc-editor.org/rfc/rfc7946), from what the server
// stores: the number of the reference system, which is left out, and well-known binary, whose first coordinate is the longitude where there is one.
func appendGeometry(dst, v []byte, asJSON bool) ([]byte, error) {
	if len(v) == 0 { // INSERT IGNORE leaves nothing where null is not allowed
		if asJSON {
			return append(dst, `{"type":"GeometryCollection","geometries":[]}`...), nil
		}
		return append(dst, `""`...), nil
	}
	if len(v) < 4 {
		return dst, fmt.Errorf("%w: geometry %s", errValue, hexText(v))
	}
	g := geometry{b: v[4:], dst: dst, json: asJSON}
	g.write("\"", "")
	g.shape(true, 0)
	g.write("\"", "")
	if g.failed || len(g.b) > 0 {
		return dst, fmt.Errorf("%w: geometry %s", errValue, hexText(v))
	}
	return g.dst, nil
}

// geometry reads well-known binary and writes well-known text, or GeoJSON.
type geometry struct {
	b, dst []byte
	json   bool
	order  binary.ByteOrder
	failed bool
}

// write writes the one or the other.
func (g *geometry) write(text, json string) {
	if g.json {
		text = json
	}
	g.dst = append(g.dst, text...)
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
		member := "coordinates"
		if kind == wkbCollection {
			member = "geometries"
		}
		name := geometryNames[kind]
		g.write(strings.ToUpper(name), `{"type":"`+name+`","`+member+`":`)
	}
	switch kind {
	case wkbPoint:
		g.write("(", "")
		g.point()
		g.write(")", "")
	case wkbLine:
		g.list(false, g.point)
	case wkbPolygon:
		g.list(false, func() { g.list(false, g.point) })
	default:
		g.list(kind == wkbCollection, func() { g.shape(kind == wkbCollection, depth+1) })
	}
	if named {
		g.write("", "}")
	}
}

func (g *geometry) list(empty bool, element func()) {
	n := g.number()
	if n == 0 && empty && !g.json {
		g.dst = append(g.dst, " EMPTY"...)
		return
	}
	g.write("(", "[")
	for i := range n {
		if g.failed {
			return
		}
		if i > 0 {
			g.dst = append(g.dst, ',')
		}
		element()
	}
	g.write(")", "]")
}

func (g *geometry) point() {
	g.write("", "[")
	for i := range 2 {
		if i > 0 {
			g.write(" ", ",")
		}
		f := math.Float64frombits(g.order.Uint64(g.take(8)))
		if g.json && (math.IsNaN(f) || math.IsInf(f, 0)) { // no server takes them, and JSON has none
			g.failed = true
			return
		}
		g.dst = strconv.AppendFloat(g.dst, f, 'g', -1, 64)
	}
	g.write("", "]")
}
