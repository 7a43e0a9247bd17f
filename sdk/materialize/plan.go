package materialize

import (
	"fmt"
	"slices"
	"strings"
)

// plan compares a specification with the one that was applied last. It knows nothing of the destination's real state;
// Sink.Apply compares with that.
func plan[R any](bindings, last []*Binding[R]) []Change[R] {
	var out []Change[R]
	for _, b := range bindings {
		out = append(out, change(b, find(last, b.Target.Path)))
	}
	for _, l := range last {
		if find(bindings, l.Target.Path) == nil {
			out = append(out, Change[R]{Kind: Remove, Binding: l, Last: l})
		}
	}
	return out
}

func find[R any](bs []*Binding[R], path []string) *Binding[R] {
	for _, b := range bs {
		if slices.Equal(b.Target.Path, path) {
			return b
		}
	}
	return nil
}

func change[R any](b, last *Binding[R]) Change[R] {
	c := Change[R]{Binding: b, Last: last}
	if last == nil {
		c.Kind = Create
		return c
	}
	now, then := b.Fields(), last.Fields()
	for _, f := range now {
		i := slices.IndexFunc(then, func(g Field) bool { return g.Name == f.Name })
		switch {
		case i < 0:
			c.Added = append(c.Added, f)
		case !f.sameShape(then[i]):
			c.Altered = append(c.Altered, f)
		}
	}
	for _, g := range then {
		if !slices.ContainsFunc(now, func(f Field) bool { return f.Name == g.Name }) {
			c.Removed = append(c.Removed, g)
		}
	}
	switch {
	case b.Backfill != last.Backfill:
		c.Kind = Replace
		c.Reason = fmt.Sprintf("its backfill counter went from %d to %d", last.Backfill, b.Backfill)
	case len(c.Added)+len(c.Altered)+len(c.Removed) > 0 || b.Target.Delta != last.Target.Delta || keyNames(b) != keyNames(last):
		c.Kind = Alter
	}
	return c
}

func keyNames[R any](b *Binding[R]) string {
	names := make([]string, len(b.Keys))
	for i, f := range b.Keys {
		names[i] = f.Name
	}
	return strings.Join(names, "\x00")
}
