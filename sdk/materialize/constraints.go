package materialize

import (
	"fmt"
	"slices"

	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// Choice is what a destination thinks of a field.
type Choice uint8

// The choices, from welcome to impossible.
const (
	// Optional: the field can be stored if the user asks for it.
	Optional Choice = iota
	// Recommended: the field can be stored, and is unless the user excludes it.
	Recommended
	// Required: the field must be stored, under this name.
	Required
	// LocationRequired: the field's location must be stored, under this or another field's name.
	LocationRequired
	// Forbidden: the field can never be stored.
	Forbidden
	// Incompatible: the field cannot be stored in what exists, but could if the binding were backfilled.
	Incompatible
)

// Constraint is a destination's answer about one field.
type Constraint struct {
	Choice Choice
	// Reason is shown to people.
	Reason string
	// Folded is the name that the destination gives to the field. Of several fields with the same folded name only
	// one can be selected. Empty means the field's own name.
	Folded string
}

// ownWireType maps choices onto the protocol's constraint types. Recommended is the deprecated "location
// recommended": newer runtimes read it as optional and choose by themselves, older ones select by it.
func (c Choice) wire() materializepb.Response_Validated_Constraint_Type {
	switch c {
	case Recommended:
		return materializepb.Response_Validated_Constraint_LOCATION_RECOMMENDED
	case Required:
		return materializepb.Response_Validated_Constraint_FIELD_REQUIRED
	case LocationRequired:
		return materializepb.Response_Validated_Constraint_LOCATION_REQUIRED
	case Forbidden:
		return materializepb.Response_Validated_Constraint_FIELD_FORBIDDEN
	case Incompatible:
		return materializepb.Response_Validated_Constraint_INCOMPATIBLE
	default:
		return materializepb.Response_Validated_Constraint_FIELD_OPTIONAL
	}
}

// constrain asks the sink about every field, makes the key obligatory and settles collisions of folded names.
func constrain(fields []Field, ask func(Field) Constraint) []Constraint {
	out := make([]Constraint, len(fields))
	for i, f := range fields {
		c := ask(f)
		if c.Folded == "" {
			c.Folded = f.Name
		}
		if f.Key && c.Choice <= Recommended {
			c.Choice = LocationRequired
			c.Reason = "The key identifies the row."
		}
		out[i] = c
	}
	settleCollisions(fields, out)
	return out
}

// settleCollisions lets one field of each folded name stand. Runtimes since May 2026 could choose by the folded name
// that they are told; older ones know nothing of it, so all but one are forbidden. The key wins, then the field whose
// name needed no folding, then the first.
func settleCollisions(fields []Field, cs []Constraint) {
	winner := map[string]int{}
	rank := func(i int) int {
		switch {
		case cs[i].Choice >= Forbidden:
			return 0
		case fields[i].Key:
			return 3
		case cs[i].Folded == fields[i].Name:
			return 2
		default:
			return 1
		}
	}
	for i := range fields {
		w, taken := winner[cs[i].Folded]
		if !taken || rank(i) > rank(w) {
			winner[cs[i].Folded] = i
		}
	}
	for i := range fields {
		w := winner[cs[i].Folded]
		if w == i || cs[i].Choice >= Forbidden {
			continue
		}
		cs[i].Choice = Forbidden
		cs[i].Reason = fmt.Sprintf("It would be stored as %q, and so would the field %q. Rename one of the two.", cs[i].Folded, fields[w].Name)
	}
}

// wireConstraints writes constraints in both forms of the protocol, the list and the older map, so that every runtime
// finds the one that it knows.
func wireConstraints(fields []Field, cs []Constraint, into *materializepb.Response_Validated_Binding) {
	into.Constraints = make(map[string]*materializepb.Response_Validated_Constraint, len(fields))
	for i, f := range fields {
		c := &materializepb.Response_Validated_Constraint{
			Type:        cs[i].Choice.wire(),
			Reason:      reasonOf(cs[i]),
			FoldedField: cs[i].Folded,
		}
		into.Constraints[f.Name] = c
		into.ProjectionConstraints = append(into.ProjectionConstraints,
			&materializepb.Response_Validated_ProjectionConstraint{Field: f.Name, Constraint: c})
	}
}

func reasonOf(c Constraint) string {
	if c.Reason != "" {
		return c.Reason
	}
	switch c.Choice {
	case Recommended, Optional:
		return "This field can be stored."
	case Required, LocationRequired:
		return "This field must be stored."
	default:
		return "This field cannot be stored."
	}
}

// checkSelection reports what is wrong with the fields that a runtime selected against the constraints.
func checkSelection(selected []Field, folded func(Field) Constraint) error {
	names := map[string]string{}
	for _, f := range selected {
		c := folded(f)
		name := c.Folded
		if name == "" {
			name = f.Name
		}
		if c.Choice == Forbidden {
			return fmt.Errorf("field %q is selected, but cannot be stored: %s", f.Name, reasonOf(c))
		}
		if other, taken := names[name]; taken {
			return fmt.Errorf("fields %q and %q are both selected, but would both be stored as %q", other, f.Name, name)
		}
		names[name] = f.Name
	}
	return nil
}

// tighten is a helper for Check: it replaces the constraint of one field where the new choice is stricter.
func (p *Proposal[R]) tighten(i int, c Constraint) {
	if c.Choice > p.Constraints[i].Choice {
		c.Folded = p.Constraints[i].Folded
		p.Constraints[i] = c
	}
}

// Refuse marks a field as incompatible with what exists in the destination; a field that is forbidden stays so. It
// reports whether the proposal has a field of that name.
func (p *Proposal[R]) Refuse(field, reason string) bool {
	i := slices.IndexFunc(p.Fields, func(f Field) bool { return f.Name == field })
	if i < 0 {
		return false
	}
	if p.Constraints[i].Choice != Forbidden {
		p.tighten(i, Constraint{Choice: Incompatible, Reason: reason})
	}
	return true
}
