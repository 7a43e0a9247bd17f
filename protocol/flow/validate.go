package flowpb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
)

// The Validate methods check what a receiver of ours relies on, and no more: peers leave out a lot.
// ValidateStrict is the longer list of what peers rely on.

// Validate checks that the collection has a name, a key of JSON pointers and a schema.
func (x *CollectionSpec) Validate() error {
	switch {
	case x == nil:
		return ErrMissing
	case x.GetName() == "":
		return fieldpath.In("name", ErrMissing)
	case len(x.GetKey()) == 0:
		return fieldpath.In("key", ErrMissing)
	}
	for i, pointer := range x.GetKey() {
		if err := CheckPointer(pointer); err != nil {
			return fieldpath.InAt("key", i, err)
		}
	}
	for i, p := range x.GetProjections() {
		if p.GetField() == "" {
			return fieldpath.InAt("projections", i, fieldpath.In("field", ErrMissing))
		}
	}
	if err := CheckOptionalJSON("readSchema", x.GetReadSchemaJson()); err != nil {
		return err
	}
	return CheckJSON("writeSchema", x.GetWriteSchemaJson())
}

// Validate checks the name, the configuration, and of each active binding the resource, the collection and that its state
// key is its own. Inactive bindings are not looked at.
func (x *CaptureSpec) Validate() error {
	if x == nil {
		return ErrMissing
	}
	if err := validateTask(x.GetName(), x.GetConfigJson(), x.GetLinkedCollections()); err != nil {
		return err
	}
	keys := Unique{}
	for i, b := range x.GetBindings() {
		if err := b.validate(x.GetLinkedCollections()); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
		if err := keys.Add("bindings", i, b.GetStateKey()); err != nil {
			return err
		}
	}
	return nil
}

func (x *CaptureSpec_Binding) validate(linked []*CollectionSpec) error {
	if err := validateBinding(x.GetResourceConfigJson(), x.GetResourcePath(), x.GetStateKey()); err != nil {
		return err
	}
	_, err := LinkedCollection(linked, x.GetCollection(), x.GetCollectionIndex())
	return err
}

// Validate checks what CaptureSpec.Validate checks, and that each active binding's selected fields exist.
func (x *MaterializationSpec) Validate() error {
	if x == nil {
		return ErrMissing
	}
	if err := validateTask(x.GetName(), x.GetConfigJson(), x.GetLinkedCollections()); err != nil {
		return err
	}
	keys := Unique{}
	for i, b := range x.GetBindings() {
		if err := b.validate(x.GetLinkedCollections()); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
		if err := keys.Add("bindings", i, b.GetStateKey()); err != nil {
			return err
		}
	}
	return nil
}

func (x *MaterializationSpec_Binding) validate(linked []*CollectionSpec) error {
	if err := validateBinding(x.GetResourceConfigJson(), x.GetResourcePath(), x.GetStateKey()); err != nil {
		return err
	}
	collection, err := LinkedCollection(linked, x.GetCollection(), x.GetCollectionIndex())
	if err != nil {
		return err
	}
	return fieldpath.In("fieldSelection", x.GetFieldSelection().validate(collection))
}

func validateTask(name string, config []byte, linked []*CollectionSpec) error {
	if name == "" {
		return fieldpath.In("name", ErrMissing)
	}
	for i, c := range linked {
		if err := c.Validate(); err != nil {
			return fieldpath.InAt("linkedCollections", i, err)
		}
	}
	return CheckJSON("config", config)
}

func validateBinding(resource []byte, path []string, stateKey string) error {
	if err := CheckJSON("resourceConfig", resource); err != nil {
		return err
	}
	if err := CheckPath(path); err != nil {
		return err
	}
	if stateKey == "" {
		return fieldpath.In("stateKey", ErrMissing)
	}
	return nil
}

func (x *FieldSelection) validate(c *CollectionSpec) error {
	if x == nil {
		return ErrMissing
	}
	if len(x.GetKeys()) == 0 {
		return fieldpath.In("keys", ErrMissing)
	}
	fields := make(map[string]bool, len(c.GetProjections()))
	for _, p := range c.GetProjections() {
		fields[p.GetField()] = true
	}
	unknown := func(field string) error {
		return fmt.Errorf("%q is not a projection of the collection %q", field, c.GetName())
	}
	for i, f := range x.GetKeys() {
		if !fields[f] {
			return fieldpath.InAt("keys", i, unknown(f))
		}
	}
	for i, f := range x.GetValues() {
		if !fields[f] {
			return fieldpath.InAt("values", i, unknown(f))
		}
	}
	if f := x.GetDocument(); f != "" && !fields[f] {
		return fieldpath.In("document", unknown(f))
	}
	return nil
}

// Validate checks that the bounds are in order. A range that is not there is the full range.
func (x *RangeSpec) Validate() error {
	if x.GetKeyBegin() > x.GetKeyEnd() {
		return fmt.Errorf("keyBegin %08x is greater than keyEnd %08x", x.GetKeyBegin(), x.GetKeyEnd())
	}
	if x.GetRClockBegin() > x.GetRClockEnd() {
		return fmt.Errorf("rClockBegin %08x is greater than rClockEnd %08x", x.GetRClockBegin(), x.GetRClockEnd())
	}
	return nil
}

// Validate checks that there is a JSON value to merge into the state, or to replace it with. A state that is not there is valid.
func (x *ConnectorState) Validate() error {
	if x == nil {
		return nil
	}
	return CheckJSON("updated", x.GetUpdatedJson())
}

// ValidateConnectorSpec checks what the Spec responses of captures and materializations have in common.
func ValidateConnectorSpec(protocol uint32, config, resource []byte) error {
	if protocol != ProtocolVersion {
		return fieldpath.In("protocol", fmt.Errorf("is %d, but has to be %d", protocol, ProtocolVersion))
	}
	if err := CheckJSON("configSchema", config); err != nil {
		return err
	}
	return CheckJSON("resourceConfigSchema", resource)
}

// LinkedCollection returns the collection of a binding, checked, whichever way it is given: inline, or as an index into the linked
// collections of the task, which are checked once for all by the caller. Both at once are refused.
func LinkedCollection(linked []*CollectionSpec, inline *CollectionSpec, index uint32) (*CollectionSpec, error) {
	switch {
	case len(linked) == 0 && index != 0:
		return nil, fieldpath.In("collectionIndex", errors.New("there are no linked collections"))
	case len(linked) == 0:
		return inline, fieldpath.In("collection", inline.Validate())
	case inline != nil:
		return nil, fieldpath.In("collection", errors.New("is given inline although there are linked collections"))
	case uint64(index) >= uint64(len(linked)):
		return nil, fieldpath.In("collectionIndex", fmt.Errorf("is %d, but there are %d linked collections", index, len(linked)))
	}
	return linked[index], nil
}

// CheckPatches checks a list of state patches: nothing, or a JSON array.
func CheckPatches(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	if err := CheckJSON("statePatches", text); err != nil {
		return err
	}
	if !strings.HasPrefix(strings.TrimLeft(string(text[:min(len(text), 64)]), " \t\r\n"), "[") {
		return fieldpath.In("statePatches", errors.New("is not an array"))
	}
	return nil
}
