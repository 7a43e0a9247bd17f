package schema

// Bounds of integers that were seen beyond 64 bits. Destinations choose a type of more digits for bounds like these.
const (
	bigBound = 9e37
	maxInt64 = 1 << 63
)

// SetBig notes that integers beyond 64 bits are among the values.
func (s *Shape) SetBig() {
	low, high := -bigBound, bigBound
	s.Min, s.Max = &low, &high
}

// Big tells whether the bounds allow integers beyond 64 bits.
func (s *Shape) Big() bool {
	return s.Types&(Integer|Number) != 0 && (s.Max != nil && *s.Max >= maxInt64 || s.Min != nil && *s.Min < -maxInt64)
}

// Widen is Union for what was learned of the values of one place: integers beyond 64 bits on one side count.
func Widen(a, b *Shape) *Shape {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	u := Union(a, b)
	if (a.Big() || b.Big()) && u.Types&Integer != 0 {
		u.SetBig()
	}
	for name, p := range u.Props {
		x, inA := a.Props[name]
		y, inB := b.Props[name]
		if inA && inB {
			u.Props[name] = Property{Shape: Widen(x.Shape, y.Shape), Required: p.Required}
		}
	}
	return u
}

// Refine is the shape of documents of a schema, of what sources announced, and of what was learned from documents; the last two may
// be nil. What the schema says stands, widened by what is announced. Where it says that it is to be inferred
// (x-infer-schema), members that it does not name and types that it does not give are those that were announced and learned. A
// member without a type that was not met yet is left out: its type will be known with the first document that has it.
func Refine(written, sourced, learned *Shape) *Shape {
	if s := refine(written, sourced, learned); s != nil {
		return s
	}
	return written
}

func refine(written, sourced, learned *Shape) *Shape {
	s := written
	if sourced != nil {
		s = Union(written, sourced)
	}
	if !written.Infer {
		return s
	}
	both := Widen(sourced, learned)
	if written.Types == anyType {
		if both == nil || both.Types == 0 {
			return nil
		}
		known := *both
		known.Title, known.Description = orElse(written.Title, both.Title), orElse(written.Description, both.Description)
		known.Reduce, known.Default = written.Reduce, written.Default
		s = &known
	}
	if s.Types&Object == 0 {
		return s
	}
	out := *s
	out.Props = map[string]Property{}
	if both != nil {
		for name, p := range both.Props {
			out.Props[name] = Property{Shape: p.Shape}
		}
	}
	for name, p := range written.Props {
		at := refine(p.Shape, propOf(sourced, name), propOf(learned, name))
		if at == nil {
			delete(out.Props, name)
			continue
		}
		required := p.Required
		if sourced != nil {
			required = required && sourced.Props[name].Required
		}
		out.Props[name] = Property{Shape: at, Required: required}
	}
	return &out
}

func propOf(s *Shape, name string) *Shape {
	if s == nil {
		return nil
	}
	return s.Props[name].Shape // nil if there is none
}
