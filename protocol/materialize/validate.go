package materializepb

import (
	"errors"
	"fmt"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
)

// Check validates the request (the name Validate belongs to a field): it carries exactly one message, and of it what a materialization relies on.
// Errors begin with the way to the field in the names of the JSON codec.
func (x *Request) Check() error {
	name, err := flowpb.CheckOne(x)
	if err != nil {
		return err
	}
	switch {
	case x.GetValidate() != nil:
		err = x.GetValidate().Validate()
	case x.GetApply() != nil:
		err = x.GetApply().Validate()
	case x.GetOpen() != nil:
		err = x.GetOpen().Validate()
	case x.GetLoad() != nil && len(x.GetLoad().GetKeyPacked()) == 0 && len(x.GetLoad().GetKeyJson()) == 0,
		x.GetStore() != nil && len(x.GetStore().GetKeyPacked()) == 0 && len(x.GetStore().GetKeyJson()) == 0:
		err = fieldpath.In("key", errors.New("missing, packed and as JSON"))
	case x.GetFlush() != nil:
		err = flowpb.CheckPatches(x.GetFlush().GetStatePatchesJson())
	case x.GetStartCommit() != nil:
		err = flowpb.CheckPatches(x.GetStartCommit().GetStatePatchesJson())
	case x.GetAcknowledge() != nil:
		err = flowpb.CheckPatches(x.GetAcknowledge().GetStatePatchesJson())
	}
	return fieldpath.In(name, err)
}

// Validate checks name, configuration and bindings; the previous version of the task is not looked at.
func (x *Request_Validate) Validate() error {
	if x.GetName() == "" {
		return fieldpath.In("name", flowpb.ErrMissing)
	}
	if err := flowpb.CheckJSON("config", x.GetConfigJson()); err != nil {
		return err
	}
	linked := x.GetLinkedCollections()
	for i, c := range linked {
		if err := c.Validate(); err != nil {
			return fieldpath.InAt("linkedCollections", i, err)
		}
	}
	for i, b := range x.GetBindings() {
		if err := flowpb.CheckJSON("resourceConfig", b.GetResourceConfigJson()); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
		if _, err := flowpb.LinkedCollection(linked, b.GetCollection(), b.GetCollectionIndex()); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
	}
	return nil
}

// InlineCollections does for the request what MaterializationSpec.InlineCollections does for a spec, and for the previous
// version of the task, too.
func (x *Request_Validate) InlineCollections() error {
	linked := x.GetLinkedCollections()
	for i, b := range x.GetBindings() {
		if len(linked) == 0 {
			break
		}
		c, err := flowpb.LinkedCollection(linked, b.GetCollection(), b.GetCollectionIndex())
		if err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
		b.Collection, b.CollectionIndex = c, 0
	}
	x.LinkedCollections = nil
	return fieldpath.In("lastMaterialization", x.GetLastMaterialization().InlineCollections())
}

// Validate checks the materialization and the state.
func (x *Request_Apply) Validate() error {
	if err := x.GetMaterialization().Validate(); err != nil {
		return fieldpath.In("materialization", err)
	}
	return flowpb.CheckOptionalJSON("state", x.GetStateJson())
}

// Validate checks the materialization, the range and the state.
func (x *Request_Open) Validate() error {
	if err := x.GetMaterialization().Validate(); err != nil {
		return fieldpath.In("materialization", err)
	}
	if err := x.GetRange().Validate(); err != nil {
		return fieldpath.In("range", err)
	}
	return flowpb.CheckOptionalJSON("state", x.GetStateJson())
}

// InlineCollections calls InlineCollections of every spec in the request.
func (x *Request) InlineCollections() error {
	var err error
	switch {
	case x.GetValidate() != nil:
		err = fieldpath.In("validate", x.GetValidate().InlineCollections())
	case x.GetApply() != nil:
		err = fieldpath.In("apply.materialization", x.GetApply().GetMaterialization().InlineCollections())
		if err == nil {
			err = fieldpath.In("apply.lastMaterialization", x.GetApply().GetLastMaterialization().InlineCollections())
		}
	case x.GetOpen() != nil:
		err = fieldpath.In("open.materialization", x.GetOpen().GetMaterialization().InlineCollections())
	}
	return err
}

// Check validates the response: it carries exactly one message, and of it what a runtime relies on. A document is only
// checked to be there.
func (x *Response) Check() error {
	name, err := flowpb.CheckOne(x)
	if err != nil {
		return err
	}
	switch {
	case x.GetSpec() != nil:
		s := x.GetSpec()
		err = flowpb.ValidateConnectorSpec(s.GetProtocol(), s.GetConfigSchemaJson(), s.GetResourceConfigSchemaJson())
	case x.GetValidated() != nil:
		err = x.GetValidated().Validate()
	case x.GetApplied() != nil:
		err = fieldpath.In("state", x.GetApplied().GetState().Validate())
	case x.GetLoaded() != nil && len(x.GetLoaded().GetDocJson()) == 0:
		err = fieldpath.In("doc", flowpb.ErrMissing)
	case x.GetFlushed() != nil:
		err = fieldpath.In("state", x.GetFlushed().GetState().Validate())
	case x.GetStartedCommit() != nil:
		err = fieldpath.In("state", x.GetStartedCommit().GetState().Validate())
	case x.GetAcknowledged() != nil:
		err = fieldpath.In("state", x.GetAcknowledged().GetState().Validate())
	}
	return fieldpath.In(name, err)
}

// Validate checks that every binding has a resource path, and constraints of kinds that are known.
func (x *Response_Validated) Validate() error {
	for i, b := range x.GetBindings() {
		if err := b.validate(); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
	}
	return nil
}

func (x *Response_Validated_Binding) validate() error {
	if err := flowpb.CheckPath(x.GetResourcePath()); err != nil {
		return err
	}
	for field, c := range x.GetConstraints() {
		if err := c.validate(); err != nil {
			return fieldpath.In(fmt.Sprintf("constraints.%q", field), err)
		}
	}
	for i, p := range x.GetProjectionConstraints() {
		if p.GetField() == "" {
			return fieldpath.InAt("projectionConstraints", i, fieldpath.In("field", flowpb.ErrMissing))
		}
		if err := p.GetConstraint().validate(); err != nil {
			return fieldpath.InAt("projectionConstraints", i, fieldpath.In("constraint", err))
		}
	}
	return nil
}

func (x *Response_Validated_Constraint) validate() error {
	t := x.GetType()
	_, known := Response_Validated_Constraint_Type_name[int32(t)]
	if t == Response_Validated_Constraint_INVALID || !known {
		return fieldpath.In("type", errors.New("missing or unknown"))
	}
	return nil
}
