package materializepb

// FieldConstraints returns the binding's constraints by field, from both forms: the list, and the map that connectors sent
// before there was the list. UNSATISFIABLE is returned as INCOMPATIBLE, of which it is another name. A field without an entry
// may not be selected. The constraints of the list are shared with x, unless renamed.
func (x *Response_Validated_Binding) FieldConstraints() map[string][]*Response_Validated_Constraint {
	out := make(map[string][]*Response_Validated_Constraint, len(x.GetConstraints())+len(x.GetProjectionConstraints()))
	for field, c := range x.GetConstraints() {
		out[field] = append(out[field], c.renamed())
	}
	for _, p := range x.GetProjectionConstraints() {
		out[p.GetField()] = append(out[p.GetField()], p.GetConstraint().renamed())
	}
	return out
}

func (x *Response_Validated_Constraint) renamed() *Response_Validated_Constraint {
	if x.GetType() != Response_Validated_Constraint_UNSATISFIABLE {
		return x
	}
	return &Response_Validated_Constraint{
		Type:        Response_Validated_Constraint_INCOMPATIBLE,
		Reason:      x.GetReason(),
		FoldedField: x.GetFoldedField(),
	}
}
