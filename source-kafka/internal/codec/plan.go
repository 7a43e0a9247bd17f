package codec

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// plan is how the records of one schema of the registry are decoded, made once and then used for every record.
type plan struct {
	schema *Schema
	append appender
	// proto is a Protobuf schema, of whose messages each record names one.
	proto *messages
}

// decoder is what appends the record's body, the schema that its values follow, and the body.
func (p *plan) decoder(f frame) (appender, *Schema, []byte, error) {
	if p.proto != nil {
		return p.proto.decoder(f)
	}
	return p.append, p.schema, f.data, nil
}

// refusal is why records of a schema cannot be decoded. It counts until the given time, or for ever if that is zero.
type refusal struct {
	err   error
	until time.Time
}

// How long a registry's word that it has no such schema is believed. Registries with several servers may be behind for a
// moment, so it is asked a few times; after that the topic's other bad records must not each cost a request.
const unknownFor = 30 * time.Second

const (
	// patientMisses is how many unknown schemas within that time are asked for repeatedly. Where more come, they are not schemas of
	// which a server of the registry is yet to hear but bytes that look like a schema's number, and each is asked for once.
	patientMisses = 3
	// maxRefusals bounds what is remembered, since such numbers may be any.
	maxRefusals = 1000
)

// plan returns the plan of the schema that a record names. The record before mostly named the same.
func (c *Codec) plan(ctx context.Context, f frame) (*plan, error) {
	if f.guid == nil && c.last != nil && c.lastID == f.id {
		return c.last, nil
	}
	p := c.plans[f.id]
	if f.guid != nil {
		p = c.headers[string(f.guid)]
	}
	if p == nil {
		var err error
		if p, err = c.newPlan(ctx, f); err != nil {
			return nil, err
		}
	}
	if f.guid == nil {
		c.last, c.lastID = p, f.id
	}
	return p, nil
}

func (c *Codec) newPlan(ctx context.Context, f frame) (*plan, error) {
	if c.opts.Registry == nil {
		return nil, c.noRegistry(f)
	}
	name := f.name()
	if r := c.refused[name]; r != nil && (r.until.IsZero() || time.Now().Before(r.until)) {
		return nil, r.err
	}
	s, err := c.fetch(ctx, f)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		bad := c.bad(err, "the schema registry at %s does not have its %s", c.opts.Registry.Address(), name)
		c.refuse(name, &refusal{err: bad, until: time.Now().Add(unknownFor)})
		return nil, bad
	case err != nil:
		return nil, fmt.Errorf("decoding the %s of a record of topic %q: %w", c.opts.Side, c.opts.Topic, err)
	}
	p, err := c.compile(ctx, s)
	if err != nil {
		bad := c.bad(err, "its %s cannot be used: %s", name, err.Error())
		c.refuse(name, &refusal{err: bad})
		return nil, bad
	}
	if f.guid != nil {
		c.headers[string(f.guid)] = p
	} else {
		c.plans[f.id] = p
	}
	return p, nil
}

// refuse remembers a refusal, in place of any other if there are too many.
func (c *Codec) refuse(name string, r *refusal) {
	for other := range c.refused {
		if len(c.refused) < maxRefusals {
			break
		}
		delete(c.refused, other)
	}
	c.refused[name] = r
}

// recentMisses counts the schemas that the registry did not have, of late.
func (c *Codec) recentMisses() int {
	recent := 0
	for _, r := range c.refused {
		if !r.until.IsZero() && time.Now().Before(r.until) {
			recent++
		}
		if recent == patientMisses {
			break
		}
	}
	return recent
}

// fetch reads the schema that a record names.
func (c *Codec) fetch(ctx context.Context, f frame) (s *registry.Schema, err error) {
	again := retry.Backoff{Min: 200 * time.Millisecond, Attempts: 4}
	if c.recentMisses() == patientMisses {
		again.Attempts = 1
	}
	err = again.Do(ctx, func(ctx context.Context) (err error) {
		if f.guid != nil {
			s, err = c.opts.Registry.SchemaByGUID(ctx, formatGUID(f.guid))
		} else {
			s, err = c.opts.Registry.Schema(ctx, f.id)
		}
		return err
	}, func(err error) bool { return errors.Is(err, registry.ErrNotFound) })
	return s, err
}

// compile plans one schema, which must be of the topic's format if that names one.
func (c *Codec) compile(ctx context.Context, s *registry.Schema) (*plan, error) {
	if want, ok := languages[c.opts.Format]; ok && want != s.Type {
		return nil, fmt.Errorf("it is of the type %s, and the topic's %sFormat is %s", s.Type, c.opts.Side, c.opts.Format)
	}
	switch s.Type {
	case registry.Avro:
		return c.avro(s)
	case registry.Protobuf:
		return c.protobuf(ctx, s)
	case registry.JSON:
		return c.json(s), nil
	default:
		return nil, fmt.Errorf("schemas of the type %s cannot be read", s.Type)
	}
}

func (c *Codec) avro(s *registry.Schema) (*plan, error) {
	a, err := compileAvro(s, c.opts.Side)
	if err != nil {
		return nil, err
	}
	return &plan{schema: exact(c.opts.Side, s.ID, a.Name(), a.Describe()), append: a.Append}, nil
}

// json takes a schema that cannot be read for one that says nothing: the records are JSON all the same.
func (c *Codec) json(s *registry.Schema) *plan {
	doc, err := convertJSONSchema(s)
	if err != nil {
		return &plan{schema: &Schema{ID: s.ID, JSON: anySchema.JSON}, append: appendJSON}
	}
	return &plan{schema: describeJSON(c.opts.Side, s.ID, doc), append: appendJSON}
}

//nolint:gochecknoglobals // a lookup table
var languages = map[Format]registry.Type{Avro: registry.Avro, Protobuf: registry.Protobuf, JSONSchema: registry.JSON}
