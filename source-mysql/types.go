package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// kind is how the values of a column are written.
type kind uint8

const (
	kindInt kind = iota
	kindUint
	kindBit
	kindYear
	kindDecimal
	kindFloat
	kindDouble
	kindText
	kindBinary // of a fixed length
	kindBytes
	kindEnum
	kindSet
	kindJSON
	kindDate
	kindDatetime
	kindTimestamp
	kindTime
	kindGeometry
	kindVector
	kindUUID
	kindInet4
	kindInet6
)

// columnType is a type as the catalog and the log both describe it. Its text is the same from either, so that a change shows.
type columnType struct {
	kind    kind
	name    string // such as int, varchar, mediumtext
	size    int    // characters, bytes, or bits
	scale   int    // digits of a decimal behind the point, or of a fraction of a second
	charset string
	members []string
	// wide is how many bytes the log takes for a member's number or for a set.
}

// intSizes are the bytes of the integers.
var intSizes = map[string]int{"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8} //nolint:gochecknoglobals // a table

// text is the type in the database's words, as far as it matters for values.
func (t *columnType) text() string {
	out := t.name
	switch t.kind {
	case kindUint:
		return out + " unsigned"
	case kindDecimal:
		return fmt.Sprintf("decimal(%d,%d)", t.size, t.scale)
	case kindBit, kindBinary:
		return fmt.Sprintf("%s(%d)", out, t.size)
	case kindBytes:
		if t.name == "varbinary" {
			return fmt.Sprintf("%s(%d)", out, t.size)
		}
	case kindText:
		if t.name == "char" || t.name == "varchar" {
			out = fmt.Sprintf("%s(%d)", out, t.size)
		}
		return out + " " + t.charset
	case kindEnum, kindSet:
		quoted := make([]string, len(t.members))
		for i, m := range t.members {
			quoted[i] = "'" + strings.ReplaceAll(m, "'", "''") + "'"
		}
		return out + "(" + strings.Join(quoted, ",") + ") " + t.charset
	case kindDatetime, kindTimestamp, kindTime:
		if t.scale > 0 {
			return fmt.Sprintf("%s(%d)", out, t.scale)
		}
	default:
	}
	return out
}

// plainKinds are the types that have nothing but a name.
var plainKinds = map[string]kind{ //nolint:gochecknoglobals // a table
	"year": kindYear, "float": kindFloat, "double": kindDouble, "json": kindJSON, "date": kindDate, "uuid": kindUUID, "inet4": kindInet4, "inet6": kindInet6,
	"vector":   kindVector,
	"tinyblob": kindBytes, "blob": kindBytes, "mediumblob": kindBytes, "longblob": kindBytes,
	"geometry": kindGeometry, "point": kindGeometry, "linestring": kindGeometry, "polygon": kindGeometry, "multipoint": kindGeometry,
	"multilinestring": kindGeometry, "multipolygon": kindGeometry, "geometrycollection": kindGeometry, "geomcollection": kindGeometry,
}

// catalogType is the type of a column of the catalog: its DATA_TYPE, COLUMN_TYPE and CHARACTER_SET_NAME.
func catalogType(dataType, columnText, charset string) (*columnType, error) {
	dataType = strings.ToLower(dataType)
	t := &columnType{name: dataType, charset: charset}
	arguments := argumentsOf(columnText)
	number := func(i, otherwise int) int {
		if i < len(arguments) {
			if n, err := strconv.Atoi(arguments[i]); err == nil {
				return n
			}
		}
		return otherwise
	}
	switch dataType {
	case "tinyint", "smallint", "mediumint", "int", "bigint":
		t.size = intSizes[dataType]
		if strings.Contains(columnText, "unsigned") {
			t.kind = kindUint
		}
	case "decimal":
		t.kind, t.size, t.scale = kindDecimal, number(0, 10), number(1, 0)
	case "bit":
		t.kind, t.size = kindBit, number(0, 1)
	case "char", "varchar":
		t.kind, t.size = kindText, number(0, 1)
	case "tinytext", "text", "mediumtext", "longtext":
		t.kind = kindText
	case "binary":
		t.kind, t.size = kindBinary, number(0, 1)
	case "varbinary":
		t.kind, t.size = kindBytes, number(0, 1)
	case "enum", "set":
		t.kind, t.members = kindEnum, arguments
		if dataType == "set" {
			t.kind = kindSet
		}
	case "datetime", "timestamp", "time":
		t.kind = map[string]kind{"datetime": kindDatetime, "timestamp": kindTimestamp, "time": kindTime}[dataType]
		t.scale = number(0, 0)
	default:
		k, ok := plainKinds[dataType]
		if !ok {
			return nil, fmt.Errorf("%w: %s", binlog.ErrColumnType, columnText)
		}
		if t.kind = k; k == kindGeometry {
			t.name = "geometry"
		}
	}
	return t, nil
}

// argumentsOf takes apart what stands in the parentheses of a type: numbers, or quoted texts with doubled quotes.
func argumentsOf(text string) []string {
	_, text, ok := strings.Cut(text, "(")
	if !ok {
		return nil
	}
	var out []string
	for text != "" && text[0] != ')' {
		if text[0] != '\'' {
			end := strings.IndexAny(text, ",)")
			if end < 0 {
				return out
			}
			out = append(out, strings.TrimSpace(text[:end]))
			text = strings.TrimPrefix(text[end:], ",")
			continue
		}
		var b strings.Builder
		i := 1
		for ; i < len(text); i++ {
			if text[i] == '\'' {
				if i+1 >= len(text) || text[i+1] != '\'' {
					break
				}
				i++
			}
			b.WriteByte(text[i])
		}
		out = append(out, b.String())
		text = strings.TrimPrefix(text[min(i+1, len(text)):], ",")
	}
	return out
}

// logType is the type of a column of the log. known is what the catalog has under this name, or nil: some types look alike in
// the log.
func (d *driver) logType(c *binlog.Column, known *columnType) (*columnType, error) {
	t := &columnType{}
	switch c.Type {
	case binlog.TypeTiny, binlog.TypeShort, binlog.TypeInt24, binlog.TypeLong, binlog.TypeLongLong:
		t.size = map[byte]int{binlog.TypeTiny: 1, binlog.TypeShort: 2, binlog.TypeInt24: 3, binlog.TypeLong: 4, binlog.TypeLongLong: 8}[c.Type]
		for name, size := range intSizes {
			if size == t.size {
				t.name = name
			}
		}
		if c.Unsigned {
			t.kind = kindUint
		}
	case binlog.TypeDecimal:
		t.kind, t.name, t.size, t.scale = kindDecimal, "decimal", c.Meta>>8, c.Meta&0xff
	case binlog.TypeBit:
		t.kind, t.name, t.size = kindBit, "bit", c.Meta
	case binlog.TypeDatetime2:
		t.kind, t.name, t.scale = kindDatetime, "datetime", c.Meta
	case binlog.TypeTimestamp2:
		t.kind, t.name, t.scale = kindTimestamp, "timestamp", c.Meta
	case binlog.TypeTime2:
		t.kind, t.name, t.scale = kindTime, "time", c.Meta
	case binlog.TypeYear:
		t.kind, t.name = kindYear, "year"
	case binlog.TypeDate:
		t.kind, t.name = kindDate, "date"
	case binlog.TypeFloat:
		t.kind, t.name = kindFloat, "float"
	case binlog.TypeDouble:
		t.kind, t.name = kindDouble, "double"
	case binlog.TypeJSON:
		t.kind, t.name = kindJSON, "json"
	case binlog.TypeGeometry:
		t.kind, t.name = kindGeometry, "geometry"
	case binlog.TypeVector:
		t.kind, t.name = kindVector, "vector"
	case binlog.TypeEnum, binlog.TypeSet:
		return d.logChoice(c)
	case binlog.TypeVarchar, binlog.TypeVarString, binlog.TypeString, binlog.TypeBlob:
		return d.logText(c, known)
	default:
		return nil, fmt.Errorf("%w: type %d of column %q", binlog.ErrColumnType, c.Type, c.Name)
	}
	return t, nil
}

// logChoice is the type of an enumeration or a set of the log.
func (d *driver) logChoice(c *binlog.Column) (*columnType, error) {
	t := &columnType{kind: kindEnum, name: "enum"}
	if c.Type == binlog.TypeSet {
		t.kind, t.name = kindSet, "set"
	}
	cs, err := d.charsets.of(c.Collation)
	if err != nil {
		return nil, err
	}
	t.charset = cs.name
	for _, m := range c.Members {
		text, err := cs.decode(nil, m)
		if err != nil {
			return nil, err
		}
		t.members = append(t.members, string(text))
	}
	return t, nil
}

// blobNames are the types with long values, by the bytes that a length takes.
var blobNames = [5]string{"", "tinyblob", "blob", "mediumblob", "longblob"} //nolint:gochecknoglobals // a table

// logText is the type of a column with text or bytes of the log.
func (d *driver) logText(c *binlog.Column, known *columnType) (*columnType, error) {
	if known != nil && c.Type == binlog.TypeString && known.fixed() == c.Meta && c.Meta > 0 {
		return known, nil // MariaDB's, which the log has as bytes
	}
	const bytes = 63
	t := &columnType{kind: kindText}
	if c.Collation == bytes {
		t.kind = kindBytes
		switch c.Type {
		case binlog.TypeString:
			t.kind, t.name, t.size = kindBinary, "binary", c.Meta
		case binlog.TypeBlob:
			if c.Meta < 1 || c.Meta > 4 {
				return nil, fmt.Errorf("%w: column %q with lengths of %d bytes", binlog.ErrFormat, c.Name, c.Meta)
			}
			t.name = blobNames[c.Meta]
		default:
			t.name, t.size = "varbinary", c.Meta
		}
		return t, nil
	}
	cs, err := d.charsets.of(c.Collation)
	if err != nil {
		return nil, err
	}
	t.charset = cs.name
	switch c.Type {
	case binlog.TypeBlob:
		if c.Meta < 1 || c.Meta > 4 {
			return nil, fmt.Errorf("%w: column %q with lengths of %d bytes", binlog.ErrFormat, c.Name, c.Meta)
		}
		t.name = strings.ReplaceAll(blobNames[c.Meta], "blob", "text")
	case binlog.TypeString:
		t.name, t.size = "char", c.Meta/cs.longest
	default:
		t.name, t.size = "varchar", c.Meta/cs.longest
	}
	return t, nil
}

// fixed is the length of MariaDB's types that are strings of bytes to the log, or 0.
func (t *columnType) fixed() int {
	switch t.kind {
	case kindUUID, kindInet6:
		return 16
	case kindInet4:
		return 4
	default:
		return 0
	}
}

// small reports whether no value of the type is too large for a document.
func (t *columnType) small() bool {
	switch t.kind {
	case kindText, kindBytes, kindJSON, kindGeometry, kindSet:
		return false
	default:
		return true
	}
}

// isTemporal tells the types that have values which are no dates.
func (t *columnType) isTemporal() bool {
	return t.kind == kindDate || t.kind == kindDatetime || t.kind == kindTimestamp
}

// form is the notation for cdc.Column.Form: what the configuration says of the values of a type. Dates that do not exist are refused
// in keys unless they come as text.
func (d *driver) form(t *columnType, asKey bool) string {
	zero := d.cfg.Advanced.ZeroDates
	switch {
	case t.kind == kindGeometry && d.cfg.Advanced.Geometry == geoJSON:
		return geoJSON
	case !t.isTemporal():
		return ""
	case zero == zeroText:
		return zeroText
	case zero != zeroNull || asKey:
		zero = ""
	}
	if t.kind == kindDatetime && d.location != time.UTC {
		return zero + "@" + d.cfg.Timezone
	}
	return zero
}

// jsonSchema is the schema of every value that the encoders write for a column of the type. Only strings, integers and booleans
// can be keys, so floats are strings there.
func (t *columnType) jsonSchema(nullable, asKey bool, cfg *config) json.RawMessage {
	c := schema.Column{Types: []string{"string"}}
	switch t.kind {
	case kindInt, kindUint, kindBit, kindYear:
		c.Types = []string{"integer"}
		if t.kind == kindUint && t.size == 8 || t.kind == kindBit && t.size == 64 {
			c.Minimum, c.Maximum = "0", "18446744073709551615" // destinations take 64 bits with a sign for enough otherwise
		}
	case kindFloat, kindDouble:
		if c.Format = "number"; !asKey {
			c = schema.Column{Types: []string{"number"}}
		}
	case kindDecimal:
		c.Format, c.Decimal = "number", schema.DecimalOf(t.size, t.scale)
	case kindBinary, kindBytes:
		c.ContentEncoding = "base64"
	case kindJSON:
		c = schema.Column{}
	case kindDate:
		c.Format = "date"
	case kindDatetime, kindTimestamp:
		c.Format = "date-time"
	case kindUUID:
		c.Format = "uuid"
	case kindInet4:
		c.Format = "ipv4"
	case kindInet6:
		c.Format = "ipv6"
	case kindVector:
		c = schema.Column{Types: []string{"array"}}
	case kindGeometry:
		if cfg.Advanced.Geometry == geoJSON {
			c.Types = []string{"object"}
		}
	default:
	}
	if t.isTemporal() {
		switch cfg.Advanced.ZeroDates {
		case zeroText:
			c.Format, c.Description = "", "As the server prints it."
		case zeroNull:
			nullable = nullable || !asKey
		default:
		}
	}
	return c.Schema(nullable)
}

// sameValues reports whether a change between two types leaves every value as it was.
func sameValues(from, to string) bool {
	base := func(s string) (string, string) {
		name, rest, _ := strings.Cut(s, "(")
		if _, tail, ok := strings.Cut(rest, ")"); ok {
			return name, tail
		}
		return name, ""
	}
	fromName, fromTail := base(from)
	toName, toTail := base(to)
	if fromName == "varchar" && toName == "varchar" {
		return fromTail == toTail
	}
	ladder := func(steps ...string) bool {
		a, b := slices.Index(steps, from), slices.Index(steps, to)
		return a >= 0 && b >= a
	}
	return ladder("tinyint", "smallint", "mediumint", "int", "bigint") ||
		ladder("tinyint unsigned", "smallint unsigned", "mediumint unsigned", "int unsigned", "bigint unsigned") ||
		ladder("tinyblob", "blob", "mediumblob", "longblob")
}
