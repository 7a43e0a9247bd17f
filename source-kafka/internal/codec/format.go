package codec

import (
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Format is how keys or values are written, as users name it.
type Format string

// The formats. Auto never guesses: a record whose header or first bytes name a schema of a registry is what that schema
// says, and every other record is JSON if it is a value, text if it is a key. No JSON text and no text begins with the zero
// byte of a schema id.
const (
	Auto       Format = "auto"
	JSON       Format = "json"
	Avro       Format = "avro"
	Protobuf   Format = "protobuf"
	JSONSchema Format = "json-schema"
	String     Format = "string"
	Bytes      Format = "bytes"
	CSV        Format = "csv"
)

// Formats are all formats, in the order of forms.
func Formats() []Format {
	return []Format{Auto, JSON, Avro, Protobuf, JSONSchema, String, Bytes, CSV}
}

// Validate refuses what is no format.
func (f Format) Validate() error {
	if slices.Contains(Formats(), f) {
		return nil
	}
	var names []string
	for _, f := range Formats() {
		names = append(names, string(f))
	}
	return usererr.New(nil, "The format %q does not exist. Choose one of %s.", string(f), strings.Join(names, ", "))
}

// frames tells whether records of the format may name a schema.
func (f Format) frames() bool {
	return f == Auto || f.needsSchema()
}

// needsSchema tells whether records of the format must name a schema.
func (f Format) needsSchema() bool {
	return f == Avro || f == Protobuf || f == JSONSchema
}
