package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/materialize-s3-parquet/internal/parquet"
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

// Constrain chooses by what a column can hold.
func (sink) Constrain(_ config, _ materialize.Target, f materialize.Field) materialize.Constraint {
	return parquet.Constrain(f)
}

// Check implements materialize.Checker.
func (sink) Check(ctx context.Context, _ materialize.Env, cfg config, proposals []*materialize.Proposal[resource]) error {
	at, err := openPlace(ctx, cfg)
	if err != nil {
		return err
	}
	problems := []error{at.probe(ctx)}
	for _, p := range proposals {
		for _, text := range p.Resource.PartitionBy {
			if part := parsePartition(text); part.pattern == "" {
				problems = append(problems, requirePartition(p, part.name))
			} else {
				problems = append(problems, freePartition(p, part.name))
			}
		}
	}
	return usererr.Join("The destination is not ready:", problems)
}

// requirePartition has a field selected that a table is partitioned by.
func requirePartition(p *materialize.Proposal[resource], name string) error {
	for i, f := range p.Fields {
		if f.Name != name {
			continue
		}
		if slices.Contains(f.Types, "object") || slices.Contains(f.Types, "array") {
			return usererr.New(nil, "Table %q cannot be partitioned by field %q: its values can be objects or arrays.", p.Resource.Path, name)
		}
		if p.Constraints[i].Choice < materialize.Required {
			p.Constraints[i].Choice, p.Constraints[i].Reason = materialize.Required, "The table is partitioned by it."
		}
		return nil
	}
	return missingPartition(p.Resource.Path, name)
}

// freePartition makes sure that a part of the time does not have the name of a field: readers would take it for the field's value.
func freePartition(p *materialize.Proposal[resource], name string) error {
	for _, f := range p.Fields {
		if strings.EqualFold(f.Name, name) {
			return usererr.New(nil, "Table %q cannot be partitioned by the time under the name %q: its collection has a field %q, and readers would see the time in its place. Choose another name in partitionBy.", p.Resource.Path, name, f.Name)
		}
	}
	return nil
}

func missingPartition(path, name string) error {
	return usererr.New(nil, "Table %q is to be partitioned by %q, which is no selected field of its collection. Correct partitionBy, or select the field. A part of the time is written as %s=%%Y-%%m-%%d.", path, name, name)
}

// Apply makes sure that tables which begin have their folders for themselves: files that are there already would be read
// together with ours. Nothing else has to be prepared, and what is replaced or removed stays.
func (sink) Apply(ctx context.Context, env materialize.Env, cfg config, changes []materialize.Change[resource]) (string, error) {
	at, err := openPlace(ctx, cfg)
	if err != nil {
		return "", err
	}
	names := newNamer(cfg, env.Task, env.Range)
	var problems []error
	var summary []string
	for _, ch := range changes {
		if ch.Kind != materialize.Create && ch.Kind != materialize.Replace {
			continue
		}
		folder := names.tableFolder(ch.Binding.Resource.Path, ch.Binding.Backfill, time.Time{})
		summary = append(summary, fmt.Sprintf("%s begins in %s/v%04d.", ch.Binding.Resource.Path, ch.Binding.Resource.Path, ch.Binding.Backfill))
		if expandPattern(names.prefix, time.Time{}) != names.literal() {
			continue // every time has folders of its own
		}
		taken, err := at.find(ctx, folder)
		switch {
		case err != nil:
			return "", err
		case taken != "":
			problems = append(problems, usererr.New(nil, "Table %q is to begin in the folder %s of %s, but there are files already, such as %s. Choose another path or prefix, increase the binding's backfill counter, or move the files away.",
				ch.Binding.Resource.Path, folder, at.url(), taken))
		}
	}
	return strings.Join(summary, " "), usererr.Join("The folders cannot be used as they are:", problems)
}

// Open starts a session, or finishes staged work before Apply.
func (sink) Open(ctx context.Context, env materialize.Env, cfg config, bindings []*materialize.Binding[resource]) (*materialize.Transactor, error) {
	at, err := openPlace(ctx, cfg)
	if err != nil {
		return nil, err
	}
	columns, err := newFormat(cfg, bindings)
	if err != nil {
		return nil, err
	}
	s := &store{
		cfg: cfg, place: at, format: columns, names: newNamer(cfg, env.Task, env.Range), log: env.Log, now: time.Now,
	}
	for _, b := range bindings {
		t, err := newTable(b)
		if err != nil {
			return nil, err
		}
		s.tables = append(s.tables, t)
	}
	t := materialize.Staged(s)
	t.Interval = time.Duration(cfg.UploadInterval)
	return t, nil
}
