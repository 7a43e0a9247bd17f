package infer

import (
	"reflect"

	"github.com/sluicedata/sluice/runtime/schema"
)

// Scope is where a schema leaves something to be learned, to know later what was never looked at. nil is nowhere.
type Scope struct {
	Depth  int               `json:"depth,omitempty"` // of the document only
	Typed  bool              `json:"typed,omitempty"` // types are declared
	Closed bool              `json:"closed,omitempty"`
	Named  map[string]*Scope `json:"named,omitempty"` // declared members
}

// ScopeOf is the scope of a schema.
func ScopeOf(written *schema.Shape, depth int) *Scope {
	s := scopeOf(written)
	if s != nil {
		s.Depth = limit(depth)
	}
	return s
}

func scopeOf(written *schema.Shape) *Scope {
	if !written.Infer {
		return nil
	}
	s := &Scope{Typed: written.Types != schema.Any, Closed: written.Closed}
	for name, p := range written.Props {
		if s.Named == nil {
			s.Named = map[string]*Scope{}
		}
		s.Named[name] = scopeOf(p.Shape)
	}
	return s
}

// Equal tells whether two scopes are the same.
func (s *Scope) Equal(o *Scope) bool { return reflect.DeepEqual(s, o) }

// Within tells whether everything that s leaves to be learned, o left as well.
func (s *Scope) Within(o *Scope) bool {
	switch {
	case s == nil:
		return true
	case o == nil || s.Depth > o.Depth || o.Typed && !s.Typed || o.Closed && !s.Closed:
		return false
	}
	for name, old := range o.Named {
		if now, named := s.Named[name]; !named || !now.Within(old) {
			return false
		}
	}
	// Members that were not named were learned, unless no others were allowed.
	for name, now := range s.Named {
		if _, named := o.Named[name]; !named && o.Closed && now != nil {
			return false
		}
	}
	return true
}
