package flowpb

import "github.com/sluicedata/sluice/protocol/internal/fieldpath"

// InlineCollections turns the indirect form, in which bindings name their collections by an index, into the form
// in which each binding carries its own. Afterwards bindings that shared an index share the collection, which must not be changed.
// Specs in the inline form stay as they are; the two forms mixed are refused. It is what a receiver calls before it looks at bindings,
// also in specs of earlier versions of a task, which may be in the other form. A nil spec is fine.
func (x *CaptureSpec) InlineCollections() error {
	if len(x.GetLinkedCollections()) == 0 {
		return nil
	}
	for _, list := range []struct {
		name     string
		bindings []*CaptureSpec_Binding
	}{{"bindings", x.GetBindings()}, {"inactiveBindings", x.GetInactiveBindings()}} {
		for i, b := range list.bindings {
			c, err := LinkedCollection(x.GetLinkedCollections(), b.GetCollection(), b.GetCollectionIndex())
			if err != nil {
				return fieldpath.InAt(list.name, i, err)
			}
			b.Collection, b.CollectionIndex = c, 0
		}
	}
	x.LinkedCollections = nil
	return nil
}

// InlineCollections is CaptureSpec.InlineCollections for materializations.
func (x *MaterializationSpec) InlineCollections() error {
	if len(x.GetLinkedCollections()) == 0 {
		return nil
	}
	for _, list := range []struct {
		name     string
		bindings []*MaterializationSpec_Binding
	}{{"bindings", x.GetBindings()}, {"inactiveBindings", x.GetInactiveBindings()}} {
		for i, b := range list.bindings {
			c, err := LinkedCollection(x.GetLinkedCollections(), b.GetCollection(), b.GetCollectionIndex())
			if err != nil {
				return fieldpath.InAt(list.name, i, err)
			}
			b.Collection, b.CollectionIndex = c, 0
		}
	}
	x.LinkedCollections = nil
	return nil
}
