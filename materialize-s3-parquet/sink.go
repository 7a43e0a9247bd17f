package main

import (
	"context"
	"strings"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// sink implements materialize.Sink. It holds nothing: every call opens the destination for itself.
type sink struct{}

func (sink) Spec() materialize.Spec {
	return materialize.Spec{
		Title:   "Parquet in S3",
		DocsURL: "https://github.com/sluicedata/sluice/blob/main/docs/connectors/materialize-s3-parquet.md",
	}
}

// Target is the resource's path. Files cannot be updated, so every change is appended.
func (sink) Target(_ config, r resource) materialize.Target {
	return materialize.Target{Path: []string{r.Path}, Delta: true}
}

func (sink) Constrain(_ config, _ materialize.Target, f materialize.Field) materialize.Constraint {
	switch {
	case f.Pointer == "":
		return materialize.Constraint{Reason: "The whole document can be stored, but need not be: its fields are."}
	case len(f.Types) == 0:
		return materialize.Constraint{Choice: materialize.Forbidden, Reason: "No value of this field has been seen yet, so its type is not known."}
	case welcome(f.Pointer):
		return materialize.Constraint{Choice: materialize.Recommended}
	}
	return materialize.Constraint{}
}

// welcome says which fields are stored unless the user decides otherwise: the members of the document, and of what
// captures add about the change its kind and its place in the source.
func welcome(pointer string) bool {
	return pointer == "/_meta/op" || strings.HasPrefix(pointer, "/_meta/source/") ||
		(strings.Count(pointer, "/") == 1 && pointer != "/_meta")
}

func (sink) Apply(context.Context, materialize.Env, config, []materialize.Change[resource]) (string, error) {
	return "", nil
}

func (sink) Open(context.Context, materialize.Env, config, []*materialize.Binding[resource]) (*materialize.Transactor, error) {
	return nil, usererr.New(nil, "This connector cannot write files yet.")
}
