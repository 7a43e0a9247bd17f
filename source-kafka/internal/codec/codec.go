// Package codec turns the keys and values of Kafka's records into JSON, in every format that topics have: JSON itself, text,
// bytes, CSV, and Avro, Protobuf and JSON Schema as a schema registry knows them.
//
// A Codec plans once per schema and appends per record. It tells three things apart: a record that cannot be decoded
// (BadMessage, for the user's policy), a registry that cannot be asked (any other error: the same record may succeed later
// and must never be skipped), and a value that is not there (nil, appended as null).
package codec

import (
	"context"
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// Side is the half of a record that is decoded.
type Side uint8

// The halves.
const (
	Key Side = iota
	Value
)

func (s Side) String() string {
	if s == Key {
		return "key"
	}
	return "value"
}

// Options say what is decoded. The zero value decodes keys of a nameless topic by the rules of Auto, without registry.
type Options struct {
	Topic  string // for messages
	Side   Side
	Format Format
	// Registry has the schemas of framed records; nil for none. It is shared by all codecs and stays the caller's.
	Registry *registry.Client
}

// Codec decodes one side of one topic's records. It belongs to one goroutine.
type Codec struct {
	opts    Options
	frames  bool     // records may name schemas
	text    appender // of records without schema; nil where they are refused
	schema  *Schema  // of records without schema
	last    *plan    // of the record before
	lastID  int
	plans   map[int]*plan       // by schema id
	headers map[string]*plan    // by GUID
	refused map[string]*refusal // schemas that the registry does not have, or that we cannot read
}

// appender appends one JSON value for data, or returns an error whose text is the reason why data is a bad message. dst may
// then hold a part of the value.
type appender func(dst, data []byte) ([]byte, error)

// New makes a codec. It speaks to nobody; whether the registry can be asked shows with the first record that needs it.
func New(opts Options) (*Codec, error) {
	if opts.Format == "" {
		opts.Format = Auto
	}
	if err := opts.Format.Validate(); err != nil {
		return nil, err
	}
	c := &Codec{opts: opts, frames: opts.Format.frames(), plans: map[int]*plan{}, headers: map[string]*plan{}, refused: map[string]*refusal{}}
	format := opts.Format
	if format == Auto {
		format = opts.Side.unframed()
	}
	c.text, c.schema = textFormats(format)
	return c, nil
}

// unframed is what Auto takes records for that name no schema.
func (s Side) unframed() Format {
	if s == Key {
		return String
	}
	return JSON
}

// Append appends the JSON value of rec's key or value to dst, null if there is none, and tells the schema that it follows,
// which is never nil; the pointer stays the same until another schema comes. On an error dst is returned as it was. Neither
// rec nor what it holds is kept. ctx bounds the requests to the registry that a new schema needs.
func (c *Codec) Append(ctx context.Context, dst []byte, rec *kgo.Record) ([]byte, *Schema, error) {
	data := rec.Value
	if c.opts.Side == Key {
		data = rec.Key
	}
	if data == nil {
		return append(dst, "null"...), nullSchema, nil
	}
	if c.frames && (len(rec.Headers) > 0 || len(data) > 0 && data[0] == magicID) {
		if p := c.last; p != nil && p.append != nil && len(rec.Headers) == 0 && len(data) >= 5 && int(binary.BigEndian.Uint32(data[1:])) == c.lastID {
			return c.appendPlanned(dst, data[5:], p) // nearly every record that has a schema has that of the one before
		}
		return c.appendNamed(ctx, dst, rec, data)
	}
	return c.appendText(dst, data)
}

// appendNamed appends what may name its schema.
func (c *Codec) appendNamed(ctx context.Context, dst []byte, rec *kgo.Record, data []byte) ([]byte, *Schema, error) {
	f, err := readFrame(rec, c.opts.Side, data)
	if err != nil {
		return dst, c.schema, c.bad(err, "%s", err.Error())
	}
	if f.framed() {
		return c.appendFramed(ctx, dst, f)
	}
	return c.appendText(dst, data)
}

// appendText appends what names no schema.
func (c *Codec) appendText(dst, data []byte) ([]byte, *Schema, error) {
	if c.text == nil {
		return dst, c.schema, c.bad(nil, "it names no schema of a registry, as values of the format %s do. "+
			"If they are written without, choose another format for the topic", c.opts.Format)
	}
	start := len(dst)
	dst, err := c.text(dst, data)
	if err != nil {
		return dst[:start], c.schema, c.badText(data, err)
	}
	return dst, c.schema, nil
}

// appendPlanned appends a record's body by the plan of its schema, whose id it named at its front.
func (c *Codec) appendPlanned(dst, body []byte, p *plan) ([]byte, *Schema, error) {
	out, err := p.append(dst, body)
	if err != nil {
		return dst, c.schema, c.bad(err, "it does not follow its schema, %s: %s", frame{id: c.lastID}.name(), err.Error())
	}
	return out, p.schema, nil
}

func (c *Codec) appendFramed(ctx context.Context, dst []byte, f frame) ([]byte, *Schema, error) {
	p, err := c.plan(ctx, f)
	if err != nil {
		return dst, c.schema, err
	}
	start := len(dst)
	decode, schema, body, err := p.decoder(f)
	if err == nil {
		dst, err = decode(dst, body)
	}
	if err != nil {
		return dst[:start], c.schema, c.bad(err, "it does not follow its schema, %s: %s", f.name(), err.Error())
	}
	return dst, schema, nil
}
