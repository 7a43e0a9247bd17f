package host

import (
	"maps"
	"slices"
	"strings"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
)

type constraint = materializepb.Response_Validated_Constraint

const (
	required  = materializepb.Response_Validated_Constraint_FIELD_REQUIRED
	located   = materializepb.Response_Validated_Constraint_LOCATION_REQUIRED
	forbidden = materializepb.Response_Validated_Constraint_FIELD_FORBIDDEN
)

// KeyFields lists the fields that a binding's documents are grouped by. Of several fields of one location it prefers
// one that the user requires, then the location's own name. usable tells what may be used; nil allows everything.
func KeyFields(c *flowpb.CollectionSpec, f *Fields, usable func(field string) bool) ([]string, error) {
	if len(f.GroupBy) > 0 {
		for _, field := range f.GroupBy {
			if specs.Projection(c, field) == nil {
				return nil, usererr.New(nil, "groupBy names the field %q, which the collection does not have", field)
			}
		}
		return f.GroupBy, nil
	}
	var keys []string
	for _, pointer := range c.Key {
		best, rank := "", 0
		for _, p := range c.Projections {
			if p.Ptr != pointer || usable != nil && !usable(p.Field) {
				continue
			}
			r := 1
			if !p.Explicit {
				r = 2
			}
			if _, wanted := f.Require[p.Field]; wanted {
				r = 3
			}
			if r > rank {
				best, rank = p.Field, r
			}
		}
		if best == "" {
			return nil, usererr.New(nil, "the destination accepts no field of the key %s", pointer)
		}
		keys = append(keys, best)
	}
	return keys, nil
}

// selector chooses the fields of one binding from what the connector allows and what the user wants.
type selector struct {
	spec     *flowpb.CollectionSpec
	want     *Fields
	answer   *materializepb.Response_Validated_Binding
	by       map[string]*constraint // by field: the strictest
	last     map[string]bool        // fields of the applied specification
	selected map[string]bool
	folded   map[string]string // name as the destination spells it → field
}

// Fields is what the user wants of a binding's fields.
type Fields = pipeline.Fields

// SelectFields makes a binding's field selection: of what the connector allows, what the user wants. last is the selection that was applied
// before, or nil. Errors are for people.
func SelectFields(c *flowpb.CollectionSpec, want *Fields, answer *materializepb.Response_Validated_Binding, last *flowpb.FieldSelection) (*flowpb.FieldSelection, error) {
	s := &selector{spec: c, want: want, answer: answer, selected: map[string]bool{}, folded: map[string]string{}, last: map[string]bool{}}
	for _, field := range slices.Concat(last.GetKeys(), last.GetValues(), []string{last.GetDocument()}) {
		s.last[field] = true
	}
	if err := s.merge(); err != nil {
		return nil, err
	}
	keys, err := KeyFields(c, want, s.usable)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return s.all(keys, "is part of the key") },
		s.connectorsOwn,
		func() error { return s.all(slices.Sorted(maps.Keys(want.Require)), "is required by the pipeline") },
		s.locations,
		s.others,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return s.result(keys), nil
}

// merge brings both forms of constraints together: a map, as older connectors send, and a list, which may say several
// things about a field.
func (s *selector) merge() error {
	s.by = map[string]*constraint{}
	add := func(field string, c *constraint) error {
		old := s.by[field]
		switch {
		case c == nil || c.Type == 0:
			return usererr.New(nil, "the connector gave an invalid constraint of the field %q", field)
		case old == nil:
			s.by[field] = c
		case refuses(old) != refuses(c) && (demands(old) || demands(c)):
			return usererr.New(nil, "the connector both requires and refuses the field %q: %s; %s", field, old.Reason, c.Reason)
		case refuses(old):
		case refuses(c) || c.Type < old.Type:
			s.by[field] = c
		}
		return nil
	}
	for field, c := range s.answer.Constraints {
		if err := add(field, c); err != nil {
			return err
		}
	}
	for _, c := range s.answer.ProjectionConstraints {
		if err := add(c.Field, c.Constraint); err != nil {
			return err
		}
	}
	return nil
}

func demands(c *constraint) bool { return c.Type == required || c.Type == located }
func refuses(c *constraint) bool { return c == nil || c.Type >= forbidden }

func (s *selector) usable(field string) bool { return !refuses(s.by[field]) }

// all selects fields that must be selected, for the given reason.
func (s *selector) all(fields []string, why string) error {
	for _, field := range fields {
		if specs.Projection(s.spec, field) == nil {
			return usererr.New(nil, "the field %q %s, but the collection has no such field", field, why)
		}
		if c := s.by[field]; refuses(c) {
			return usererr.New(nil, "the field %q %s, but the destination refuses it: %s%s", field, why, reasonOf(c), remedy(c))
		}
		if other := s.collision(field); other != "" {
			return usererr.New(nil, "the field %q %s, but the destination cannot tell it from the field %q: exclude one of them", field, why, other)
		}
		s.take(field)
	}
	return nil
}

func reasonOf(c *constraint) string {
	if c == nil || c.Reason == "" {
		return "it gives no reason"
	}
	return c.Reason
}

// remedy tells how to get over a refusal that only a new table can, unless the connector says it.
func remedy(c *constraint) string {
	if c != nil && c.Type > forbidden && !strings.Contains(c.Reason, "backfill") {
		return " (raise the binding's backfill counter to build it anew)"
	}
	return ""
}

// connectorsOwn selects what the connector requires by name.
func (s *selector) connectorsOwn() error {
	for _, field := range slices.Sorted(maps.Keys(s.by)) {
		if c := s.by[field]; c.Type == required {
			if slices.Contains(s.want.Exclude, field) {
				return usererr.New(nil, "the field %q is excluded, but the destination requires it: %s", field, reasonOf(c))
			}
			if err := s.all([]string{field}, "is required by the destination ("+reasonOf(c)+")"); err != nil {
				return err
			}
		}
	}
	return nil
}

// locations selects one field of each location that the connector requires.
func (s *selector) locations() error {
	for _, p := range s.spec.Projections {
		c := s.by[p.Field]
		if c == nil || c.Type != located {
			continue
		}
		best := ""
		for _, q := range s.spec.Projections {
			if q.Ptr != p.Ptr || !s.usable(q.Field) || slices.Contains(s.want.Exclude, q.Field) {
				continue
			}
			if s.selected[q.Field] {
				best = q.Field
				break
			}
			if best == "" || !q.Explicit {
				best = q.Field
			}
		}
		if best == "" {
			return usererr.New(nil, "the location %q is excluded, but the destination requires it: %s", p.Ptr, reasonOf(c))
		}
		if err := s.all([]string{best}, "is required by the destination ("+reasonOf(c)+")"); err != nil {
			return err
		}
	}
	return nil
}

// others selects optional fields as deep as the user wants. A field that does not fit what exists in the destination is an error:
// to leave it out quietly would freeze a column.
func (s *selector) others() error {
	for _, p := range s.spec.Projections {
		c := s.by[p.Field]
		switch {
		case s.selected[p.Field] || slices.Contains(s.want.Exclude, p.Field) || p.Ptr == "" || !s.byDefault(p):
		case c != nil && c.Type > forbidden:
			how := map[bool]string{true: "no longer fits", false: "does not fit"}[s.last[p.Field]]
			return usererr.New(nil, "the field %q %s the destination: %s%s", p.Field, how, reasonOf(c), remedy(c))
		case !refuses(c) && s.collision(p.Field) == "" && !s.locationTaken(p):
			s.take(p.Field)
		}
	}
	return nil
}

// byDefault tells whether an optional field is taken by itself: down to the wanted depth, and of the metadata only what
// kind of change it was.
func (s *selector) byDefault(p *flowpb.Projection) bool {
	switch {
	case s.want.Depth == 0 || p.Ptr == "/_meta":
		return false
	case p.Ptr == "/_meta/op" || s.want.Depth < 0 || p.Explicit:
		return true
	}
	return len(jsonscan.SplitPointer(p.Ptr)) <= s.want.Depth
}

// locationTaken tells whether a field of the same location is selected already under a name that somebody chose.
func (s *selector) locationTaken(p *flowpb.Projection) bool {
	for _, q := range s.spec.Projections {
		if q != p && q.Ptr == p.Ptr && s.selected[q.Field] {
			return true
		}
	}
	return false
}

func (s *selector) fold(field string) string {
	if c := s.by[field]; c != nil && c.FoldedField != "" {
		return c.FoldedField
	}
	if s.answer.CaseInsensitiveFields {
		return strings.ToLower(field)
	}
	return field
}

// collision returns the selected field that the destination would spell the same way; "" if there is none.
func (s *selector) collision(field string) string {
	if other := s.folded[s.fold(field)]; other != field {
		return other
	}
	return ""
}

func (s *selector) take(field string) {
	s.selected[field] = true
	s.folded[s.fold(field)] = field
}

func (s *selector) result(keys []string) *flowpb.FieldSelection {
	out := &flowpb.FieldSelection{Keys: keys, FieldConfigJsonMap: map[string][]byte{}}
	for _, field := range slices.Sorted(maps.Keys(s.selected)) {
		switch {
		case slices.Contains(keys, field):
		case specs.Projection(s.spec, field).Ptr == "" && out.Document == "":
			out.Document = field
		default:
			out.Values = append(out.Values, field)
		}
	}
	for field, config := range s.want.Require {
		out.FieldConfigJsonMap[field] = config
	}
	return out
}
