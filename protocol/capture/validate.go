package capturepb

import (
	"errors"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
)

// Check validates the request (the name Validate belongs to a field): it carries exactly one message, and of it what a capture relies on.
// Errors begin with the way to the field in the names of the JSON codec.
func (x *Request) Check() error {
	name, err := flowpb.CheckOne(x)
	if err != nil {
		return err
	}
	switch {
	case x.GetDiscover() != nil:
		err = flowpb.CheckJSON("config", x.GetDiscover().GetConfigJson())
	case x.GetValidate() != nil:
		err = x.GetValidate().Validate()
	case x.GetApply() != nil:
		err = x.GetApply().Validate()
	case x.GetOpen() != nil:
		err = x.GetOpen().Validate()
	case x.GetAcknowledge() != nil && x.GetAcknowledge().GetCheckpoints() == 0:
		err = fieldpath.In("checkpoints", errors.New("has to be at least 1"))
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

// InlineCollections does for the request what CaptureSpec.InlineCollections does for a spec, and for the previous version
// of the task, too.
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
	return fieldpath.In("lastCapture", x.GetLastCapture().InlineCollections())
}

// Validate checks the capture and the state.
func (x *Request_Apply) Validate() error {
	if err := x.GetCapture().Validate(); err != nil {
		return fieldpath.In("capture", err)
	}
	return flowpb.CheckOptionalJSON("state", x.GetStateJson())
}

// Validate checks the capture, the range and the state.
func (x *Request_Open) Validate() error {
	if err := x.GetCapture().Validate(); err != nil {
		return fieldpath.In("capture", err)
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
		err = fieldpath.In("apply.capture", x.GetApply().GetCapture().InlineCollections())
		if err == nil {
			err = fieldpath.In("apply.lastCapture", x.GetApply().GetLastCapture().InlineCollections())
		}
	case x.GetOpen() != nil:
		err = fieldpath.In("open.capture", x.GetOpen().GetCapture().InlineCollections())
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
		err = x.GetSpec().Validate()
	case x.GetDiscovered() != nil:
		err = x.GetDiscovered().Validate()
	case x.GetValidated() != nil:
		err = x.GetValidated().Validate()
	case x.GetApplied() != nil:
		err = fieldpath.In("state", x.GetApplied().GetState().Validate())
	case x.GetCaptured() != nil && len(x.GetCaptured().GetDocJson()) == 0:
		err = fieldpath.In("doc", flowpb.ErrMissing)
	case x.GetCheckpoint() != nil:
		err = fieldpath.In("state", x.GetCheckpoint().GetState().Validate())
	case x.GetSourcedSchema() != nil:
		err = flowpb.CheckJSON("documentSchema", x.GetSourcedSchema().GetSchemaJson())
	}
	return fieldpath.In(name, err)
}

// Validate checks the protocol's number, the schemas and the pointers.
func (x *Response_Spec) Validate() error {
	err := flowpb.ValidateConnectorSpec(x.GetProtocol(), x.GetConfigSchemaJson(), x.GetResourceConfigSchemaJson())
	if err != nil {
		return err
	}
	for i, pointer := range x.GetResourcePathPointers() {
		if err := flowpb.CheckPointer(pointer); err != nil {
			return fieldpath.InAt("resourcePathPointers", i, err)
		}
	}
	return nil
}

// Validate checks that every binding has a name, a resource and a schema. A key may be missing: then people choose one.
func (x *Response_Discovered) Validate() error {
	for i, b := range x.GetBindings() {
		if err := b.validate(); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
	}
	return nil
}

func (x *Response_Discovered_Binding) validate() error {
	if x.GetRecommendedName() == "" {
		return fieldpath.In("recommendedName", flowpb.ErrMissing)
	}
	if err := flowpb.CheckJSON("resourceConfig", x.GetResourceConfigJson()); err != nil {
		return err
	}
	if err := flowpb.CheckJSON("documentSchema", x.GetDocumentSchemaJson()); err != nil {
		return err
	}
	for i, pointer := range x.GetKey() {
		if err := flowpb.CheckPointer(pointer); err != nil {
			return fieldpath.InAt("key", i, err)
		}
	}
	return nil
}

// Validate checks that every binding has a resource path.
func (x *Response_Validated) Validate() error {
	for i, b := range x.GetBindings() {
		if err := flowpb.CheckPath(b.GetResourcePath()); err != nil {
			return fieldpath.InAt("bindings", i, err)
		}
	}
	return nil
}
