package codec

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/source-kafka/internal/codec/jsontype"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// Catalog knows which subjects of a registry belong to which topic.
type Catalog struct {
	registry *registry.Client
	subjects map[string]string // by name, without the context; the value has it
}

// NewCatalog lists the subjects of a registry, which may be nil for none.
func NewCatalog(ctx context.Context, reg *registry.Client) (*Catalog, error) {
	c := &Catalog{registry: reg, subjects: map[string]string{}}
	if reg == nil {
		return c, nil
	}
	names, err := reg.Subjects(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		plain, ok := reg.InContext(name)
		if ok {
			c.subjects[plain] = name
		}
	}
	return c, nil
}

// DiscoverOptions say what is known of a topic.
type DiscoverOptions struct {
	Topic                  string
	KeyFormat, ValueFormat Format
	// Samples are records of the topic, the newest best. They find schemas whose subjects do not name the topic
	// (RecordNameStrategy), tell whose key and whose value a subject describes, and name the members of JSON values that have no
	// schema. There may be none.
	Samples []*kgo.Record
}

// Discover describes a topic's keys and values as far as the registry knows them, in all versions of their schemas: records
// that were written with older ones are still there. nil is for what is not known. Of values no member is required, since the
// next version may not have it; of keys, what Keys says is always there. Members that only samples have are annotated with x-infer-schema, and may be anything. problems are schemas that cannot be read; err is a
// registry that cannot be asked.
func (c *Catalog) Discover(ctx context.Context, opts DiscoverOptions) (key, value *Schema, problems []error, err error) {
	key, keyProblems, err := c.side(ctx, opts, Key, opts.KeyFormat)
	if err != nil {
		return nil, nil, nil, err
	}
	value, valueProblems, err := c.side(ctx, opts, Value, opts.ValueFormat)
	return key, value, append(keyProblems, valueProblems...), err
}

// found are the schemas of one side of a topic.
type found struct {
	all   []*registry.Schema
	paths map[int][][]int // message types that samples name, by schema id
	plain bool            // a sample has no schema
}

func (c *Catalog) side(ctx context.Context, opts DiscoverOptions, side Side, format Format) (*Schema, []error, error) {
	if format == "" {
		format = Auto
	}
	if c.registry == nil || !format.frames() {
		return unframed(side, format, opts.Samples), nil, nil
	}
	f := &found{paths: map[int][][]int{}}
	problems, err := c.sampled(ctx, f, opts.Samples, side)
	if err != nil {
		return nil, nil, err
	}
	for _, subject := range c.subjectsOf(opts.Topic, side, f) {
		versions, err := c.registry.Versions(ctx, subject)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return nil, nil, fmt.Errorf("reading the schemas of topic %q: %w", opts.Topic, err)
		}
		f.add(versions...)
	}
	var docs []*jsontype.Document
	proven := true
	for _, s := range f.all {
		if want, ok := languages[format]; ok && want != s.Type {
			continue
		}
		some, err := documents(ctx, s, side, f.paths[s.ID])
		if err != nil {
			problems = append(problems, fmt.Errorf("topic %q: schema %d of its %ss cannot be used: %w", opts.Topic, s.ID, side, err))
			continue
		}
		proven = proven && s.Type != registry.JSON
		docs = append(docs, some...)
	}
	if len(docs) == 0 {
		return unframed(side, format, opts.Samples), problems, nil
	}
	return describeTopic(side, docs, proven, f.plain), problems, nil
}

// unframed is Unframed, with the members that samples have where nothing else is known of JSON values.
func unframed(side Side, format Format, samples []*kgo.Record) *Schema {
	s := Unframed(side, format)
	if s == anySchema {
		if sampled := sampledJSON(samples, side); sampled != nil {
			return sampled
		}
	}
	return s
}

// describeTopic is what all the documents' values follow.
func describeTopic(side Side, docs []*jsontype.Document, proven, plain bool) *Schema {
	doc := jsontype.Merge(docs...)
	if side == Value {
		doc = doc.Optional()
	}
	if plain && side == Key {
		// Keys without a schema are texts: none of the members is in all of them.
		doc = jsontype.Merge(doc, &jsontype.Document{Root: jsontype.Of("string")})
	}
	if !proven {
		return describeJSON(side, 0, doc)
	}
	return describe(side, 0, doc.Follow(doc.Root).Title, doc)
}

func (f *found) add(schemas ...*registry.Schema) {
	for _, s := range schemas {
		if !slices.ContainsFunc(f.all, func(o *registry.Schema) bool { return o.ID == s.ID }) {
			f.all = append(f.all, s)
		}
	}
}

// sampled adds the schemas that samples name.
func (c *Catalog) sampled(ctx context.Context, f *found, samples []*kgo.Record, side Side) ([]error, error) {
	var problems []error
	for _, rec := range samples {
		data := rec.Value
		if side == Key {
			data = rec.Key
		}
		if data == nil {
			continue
		}
		frame, err := readFrame(rec, side, data)
		if err != nil {
			continue // a bad message says nothing of the topic
		}
		if !frame.framed() {
			f.plain = true
			continue
		}
		var s *registry.Schema
		if frame.guid != nil {
			s, err = c.registry.SchemaByGUID(ctx, formatGUID(frame.guid))
		} else {
			s, err = c.registry.Schema(ctx, frame.id)
		}
		switch {
		case errors.Is(err, registry.ErrNotFound):
			problems = append(problems, fmt.Errorf("topic %q: the registry does not have %s of its %ss", rec.Topic, frame.name(), side))
			continue
		case err != nil:
			return nil, fmt.Errorf("reading the schemas of topic %q: %w", rec.Topic, err)
		}
		f.add(s)
		if path, _, err := messagePath(frame.path); err == nil && s.Type == registry.Protobuf {
			if !slices.ContainsFunc(f.paths[s.ID], func(p []int) bool { return slices.Equal(p, path) }) {
				f.paths[s.ID] = append(f.paths[s.ID], path)
			}
		}
	}
	return problems, nil
}

// recordName is the full name of a record or message. It has no hyphen, so a subject orders-eu-com.acme.Order is never taken for
// one of the topic orders.
var recordName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_]*(\.[\p{L}_][\p{L}\p{N}_]*)*$`)

// subjectsOf are the subjects of one side of a topic: the one that is named by the topic (TopicNameStrategy), and those that
// are named by the topic and a record (TopicRecordNameStrategy). Whether those are of keys or of values their names do not
// tell: they are of the side whose samples name them, else of values.
func (c *Catalog) subjectsOf(topic string, side Side, f *found) []string {
	if name, ok := c.subjects[topic+"-"+side.String()]; ok {
		return []string{name}
	}
	var names []string
	for plain, name := range c.subjects {
		record, ok := strings.CutPrefix(plain, topic+"-")
		if !ok || !recordName.MatchString(record) || record == "key" || record == "value" {
			continue
		}
		named := slices.ContainsFunc(f.all, func(s *registry.Schema) bool { return recordOf(s) == record })
		if named || (side == Value && len(f.all) == 0) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// recordOf is the full name of a schema's record, as far as that is told without reading all of it.
func recordOf(s *registry.Schema) string {
	switch s.Type {
	case registry.Avro:
		if a, err := compileAvro(s, Value); err == nil {
			return a.Name()
		}
	case registry.Protobuf:
		if file, err := compileProtobuf(context.Background(), s); err == nil {
			return file.Name()
		}
	case registry.JSON:
		if doc, err := convertJSONSchema(s); err == nil {
			return doc.Follow(doc.Root).Title
		}
	}
	return ""
}
