package schema

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/sluicedata/sluice/sdk/rowjson"
)

// Column describes the values of one column of a table.
type Column struct {
	// Types are JSON types: string, integer, number, boolean, object, array. None means any value.
	Types []string
	// Format and ContentEncoding narrow a string: "date-time", "uuid", "integer"; "base64".
	Format, ContentEncoding string
	// ContentMediaType says what a string's text is: "application/json".
	ContentMediaType string
	// Minimum and Maximum bound a number, as JSON; empty means no bound.
	Minimum, Maximum string
	// MaxLength bounds a string's characters; 0 means no bound.
	MaxLength int
	// Decimal bounds the digits of numbers that are strings; the zero value means no bound.
	Decimal Decimal
	// Description is for people; the column's type in the database's words, for example.
	Description string
}

// Schema is the JSON schema of the column's values, null included if the column may be null.
func (c Column) Schema(nullable bool) json.RawMessage {
	b := builder{}
	b.open()
	if len(c.Types) > 0 {
		b.name("type")
		types := c.Types
		if nullable {
			types = append(slices.Clip(types), "null")
		}
		if len(types) == 1 {
			b.dst = append(rowjson.AppendText(b.dst, types[0]), ',')
		} else {
			list, _ := json.Marshal(types) // texts always encode
			b.dst = append(append(b.dst, list...), ',')
		}
	}
	for _, m := range [][2]string{
		{"format", c.Format}, {"contentEncoding", c.ContentEncoding}, {"contentMediaType", c.ContentMediaType}, {"description", c.Description},
	} {
		if m[1] != "" {
			b.text(m[0], m[1])
		}
	}
	if c.Minimum != "" {
		b.raw("minimum", c.Minimum)
	}
	if c.Maximum != "" {
		b.raw("maximum", c.Maximum)
	}
	if c.MaxLength > 0 {
		b.raw("maxLength", strconv.Itoa(c.MaxLength))
	}
	if c.Decimal.Bounded() {
		b.raw(DecimalKeyword, c.Decimal.JSON())
	}
	return b.close()
}
