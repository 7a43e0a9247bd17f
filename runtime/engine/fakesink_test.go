package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// fakeSink is a destination in one file, replaced by rename: it commits rows and checkpoint together (atomic), or stages
// rows in files of their own and applies them when they are acknowledged (staged).
type fakeSink struct {
	*fake
	staged   bool
	spec     *flowpb.MaterializationSpec
	db       fakeDB
	pending  map[string]fakeTable // stores of the transaction
	deltas   map[string][]json.RawMessage
	keys     []fakeKey
	stagedAs string // staged, committed by the runtime or about to be, and not applied
}

type fakeKey struct {
	binding uint32
	key     string
}

type (
	fakeTable map[string]json.RawMessage // key → document
	fakeDB    struct {
		Checkpoint []byte                       `json:"checkpoint"`
		Tables     map[string]fakeTable         `json:"tables"`
		Deltas     map[string][]json.RawMessage `json:"deltas"`
		Applied    map[string]bool              `json:"applied"`
		Fields     map[string][]string          `json:"fields"`
		Lost       bool                         `json:"lost"` // a document had a field that its table has not
	}
	fakeStage struct {
		Tables map[string]fakeTable         `json:"tables"`
		Deltas map[string][]json.RawMessage `json:"deltas"`
	}
)

func dbFile(dir string) string { return filepath.Join(dir, "db.json") }

func readDB(dir string) (fakeDB, error) {
	db := fakeDB{}
	text, err := os.ReadFile(dbFile(dir))
	if err == nil {
		err = json.Unmarshal(text, &db)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if db.Tables == nil {
		db.Tables, db.Deltas, db.Applied, db.Fields = map[string]fakeTable{}, map[string][]json.RawMessage{}, map[string]bool{}, map[string][]string{}
	}
	return db, err
}

func replaceFile(name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d", name, os.Getpid())
	if err := os.WriteFile(temporary, text, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, name)
}

func (f *fakeSink) save() error { return replaceFile(dbFile(f.config.Dir), f.db) }

func (f *fakeSink) respond(m *materializepb.Response) error {
	return errors.Join(f.out.Write(m), f.out.Flush())
}

func (f *fakeSink) run() error {
	for {
		var r materializepb.Request
		if err := f.in.Read(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var err error
		switch {
		case r.Spec != nil:
			err = f.respond(&materializepb.Response{Spec: &materializepb.Response_Spec{
				Protocol: specs.Protocol, ConfigSchemaJson: []byte("{}"), ResourceConfigSchemaJson: []byte("{}"), DocumentationUrl: "https://example.com",
			}})
		case r.Validate != nil:
			err = f.validate(r.Validate)
		case r.Apply != nil:
			err = f.apply(r.Apply)
		case r.Open != nil:
			return f.session(r.Open)
		}
		if err != nil {
			return err
		}
	}
}

func resourceOf(raw []byte) (r struct {
	Table string `json:"table"`
	Delta bool   `json:"delta"`
},
) {
	_ = json.Unmarshal(raw, &r)
	return r
}

func (f *fakeSink) validate(r *materializepb.Request_Validate) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := f.configure(r.ConfigJson); err != nil {
		return err
	}
	out := &materializepb.Response_Validated{}
	for _, b := range r.Bindings {
		resource := resourceOf(b.ResourceConfigJson)
		answer := &materializepb.Response_Validated_Binding{ResourcePath: []string{resource.Table}, DeltaUpdates: resource.Delta}
		for _, p := range b.Collection.Projections {
			c := &materializepb.Response_Validated_Constraint{Type: materializepb.Response_Validated_Constraint_FIELD_OPTIONAL, Reason: "it may be stored"}
			if p.IsPrimaryKey || p.Ptr == "" {
				c.Type, c.Reason = materializepb.Response_Validated_Constraint_LOCATION_REQUIRED, "it must be stored"
			}
			if f.config.Legacy {
				if answer.Constraints == nil {
					answer.Constraints = map[string]*materializepb.Response_Validated_Constraint{}
				}
				answer.Constraints[p.Field] = c
				continue
			}
			answer.ProjectionConstraints = append(answer.ProjectionConstraints, &materializepb.Response_Validated_ProjectionConstraint{Field: p.Field, Constraint: c})
		}
		out.Bindings = append(out.Bindings, answer)
	}
	return f.respond(&materializepb.Response{Validated: out})
}

func (f *fakeSink) apply(r *materializepb.Request_Apply) (err error) {
	if err := errors.Join(r.Validate(), f.configure(r.Materialization.ConfigJson)); err != nil {
		return err
	}
	if f.db, err = readDB(f.config.Dir); err != nil {
		return err
	}
	f.at("apply")
	var state map[string]string
	if err := json.Unmarshal(r.StateJson, &state); err != nil {
		return err
	}
	if name := state["staged"]; f.staged && name != "" {
		// Staged work of the old shape is finished first; the runtime calls again.
		if err := f.applyStage(name); err != nil {
			return err
		}
		return f.respond(&materializepb.Response{Applied: &materializepb.Response_Applied{State: &flowpb.ConnectorState{UpdatedJson: []byte(`{"staged":null}`), MergePatch: true}}})
	}
	for _, b := range r.Materialization.Bindings {
		table := b.ResourcePath[0]
		f.db.Fields[table] = slices.Concat(b.FieldSelection.Keys, b.FieldSelection.Values)
		old := (*flowpb.MaterializationSpec_Binding)(nil)
		for _, l := range r.LastMaterialization.GetBindings() {
			if l.ResourcePath[0] == table {
				old = l
			}
		}
		if old != nil && old.Backfill != b.Backfill {
			delete(f.db.Tables, table)
			delete(f.db.Deltas, table)
		}
	}
	return errors.Join(f.save(), f.respond(&materializepb.Response{Applied: &materializepb.Response_Applied{ActionDescription: "made tables"}}))
}

func (f *fakeSink) session(r *materializepb.Request_Open) (err error) {
	if err := errors.Join(r.Validate(), f.configure(r.Materialization.ConfigJson)); err != nil {
		return err
	}
	f.spec = r.Materialization
	if f.db, err = readDB(f.config.Dir); err != nil {
		return err
	}
	f.at("open")
	opened := &materializepb.Response_Opened{}
	if f.staged {
		var state map[string]string
		if err := json.Unmarshal(r.StateJson, &state); err != nil {
			return err
		}
		f.stagedAs = state["staged"]
	} else {
		opened.RuntimeCheckpoint = &flowpb.Checkpoint{}
		if err := proto.Unmarshal(f.db.Checkpoint, opened.RuntimeCheckpoint); err != nil {
			return err
		}
	}
	if err := f.respond(&materializepb.Response{Opened: opened}); err != nil {
		return err
	}
	f.begin()
	for {
		var r materializepb.Request
		if err := f.in.Read(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := f.request(&r); err != nil {
			return err
		}
	}
}

func (f *fakeSink) begin() {
	f.pending, f.deltas, f.keys = map[string]fakeTable{}, map[string][]json.RawMessage{}, nil
}

func (f *fakeSink) request(r *materializepb.Request) error {
	switch {
	case r.Acknowledge != nil:
		f.at("acknowledge")
		return f.acknowledge()
	case r.Load != nil:
		f.at("load")
		key, err := f.key(r.Load.KeyPacked, r.Load.KeyJson)
		f.keys = append(f.keys, fakeKey{r.Load.Binding, key})
		return err
	case r.Flush != nil:
		f.at("flush")
		for _, k := range f.keys {
			if doc, ok := f.db.Tables[f.table(k.binding)][k.key]; ok {
				if err := f.out.Write(&materializepb.Response{Loaded: &materializepb.Response_Loaded{Binding: k.binding, DocJson: doc}}); err != nil {
					return err
				}
				f.at("loaded")
			}
		}
		return f.respond(&materializepb.Response{Flushed: &materializepb.Response_Flushed{}})
	case r.Store != nil:
		f.at("store")
		return f.store(r.Store)
	case r.StartCommit != nil:
		f.at("startcommit")
		return f.commit(r.StartCommit)
	}
	return errors.New("an unknown request")
}

func (f *fakeSink) table(binding uint32) string { return f.spec.Bindings[binding].ResourcePath[0] }

// key checks that exactly the form of the codec is there, and makes one of both.
func (f *fakeSink) key(packed, array []byte) (string, error) {
	if f.codec == frame.JSON {
		if len(packed) > 0 || len(array) == 0 {
			return "", errors.New("the JSON codec has keys as JSON arrays")
		}
		return strings.Trim(string(array), "[] "), nil
	}
	if len(array) > 0 {
		return "", errors.New("the proto codec has keys packed")
	}
	values, err := tuple.Unpack(packed)
	return strings.Trim(fmt.Sprint(values), "[]"), err
}

func (f *fakeSink) store(r *materializepb.Request_Store) error {
	key, err := f.key(r.KeyPacked, r.KeyJson)
	if err != nil {
		return err
	}
	b := f.spec.Bindings[r.Binding]
	table := f.table(r.Binding)
	if err := f.checkValues(b, r); err != nil {
		return err
	}
	if bytes.Contains(r.DocJson, []byte(`"extra"`)) && !slices.Contains(b.FieldSelection.Values, "extra") {
		f.db.Lost = true
	}
	if b.DeltaUpdates {
		f.deltas[table] = append(f.deltas[table], bytes.Clone(r.DocJson))
		return nil
	}
	if _, has := f.db.Tables[table][key]; has != r.Exists {
		return fmt.Errorf("key %s of %s: exists is %v and should be %v", key, table, r.Exists, has)
	}
	if f.pending[table] == nil {
		f.pending[table] = fakeTable{}
	}
	if _, twice := f.pending[table][key]; twice {
		return fmt.Errorf("key %s of %s is stored twice in one transaction", key, table)
	}
	f.pending[table][key] = bytes.Clone(r.DocJson)
	if r.Delete {
		f.pending[table][key] = json.RawMessage("null")
	}
	return nil
}

func (f *fakeSink) checkValues(b *flowpb.MaterializationSpec_Binding, r *materializepb.Request_Store) error {
	var n int
	if f.codec == frame.JSON {
		var values []json.RawMessage
		if err := json.Unmarshal(r.ValuesJson, &values); err != nil {
			return err
		}
		n = len(values)
	} else {
		values, err := tuple.Unpack(r.ValuesPacked)
		if err != nil {
			return err
		}
		n = len(values)
	}
	if n != len(b.FieldSelection.Values) {
		return fmt.Errorf("%d values for %d fields", n, len(b.FieldSelection.Values))
	}
	return nil
}

func (f *fakeSink) merge(tables map[string]fakeTable, deltas map[string][]json.RawMessage) {
	for table, rows := range tables {
		if f.db.Tables[table] == nil {
			f.db.Tables[table] = fakeTable{}
		}
		for key, doc := range rows {
			if string(doc) == "null" {
				delete(f.db.Tables[table], key)
			} else {
				f.db.Tables[table][key] = doc
			}
		}
	}
	for table, docs := range deltas {
		f.db.Deltas[table] = append(f.db.Deltas[table], docs...)
	}
}

func (f *fakeSink) commit(r *materializepb.Request_StartCommit) error {
	started := &materializepb.Response_StartedCommit{}
	if f.staged {
		name := fmt.Sprintf("stage-%d-%d.json", os.Getpid(), f.passed["startcommit"])
		if err := replaceFile(filepath.Join(f.config.Dir, name), fakeStage{f.pending, f.deltas}); err != nil {
			return err
		}
		f.stagedAs = name
		started.State = &flowpb.ConnectorState{UpdatedJson: fmt.Appendf(nil, `{"staged":%q}`, name), MergePatch: true}
		f.begin()
		f.at("staged")
		return f.respond(&materializepb.Response{StartedCommit: started})
	}
	if f.config.Started {
		return errors.Join(f.respond(&materializepb.Response{StartedCommit: started}), errors.New("the commit failed"))
	}
	var err error
	if f.db.Checkpoint, err = proto.Marshal(r.RuntimeCheckpoint); err != nil {
		return err
	}
	f.merge(f.pending, f.deltas)
	f.begin()
	f.at("committing")
	if err := f.save(); err != nil {
		return err
	}
	f.at("committed")
	if err := f.respond(&materializepb.Response{StartedCommit: started}); err != nil {
		return err
	}
	f.at("startedcommit")
	return nil
}

// acknowledge applies what was staged: again if it was done before a crash, without harm.
func (f *fakeSink) acknowledge() error {
	answer := &materializepb.Response_Acknowledged{}
	if f.stagedAs != "" {
		if err := f.applyStage(f.stagedAs); err != nil {
			return err
		}
		f.at("applied")
		f.stagedAs = ""
		answer.State = &flowpb.ConnectorState{UpdatedJson: []byte(`{"staged":null}`), MergePatch: true}
	}
	return f.respond(&materializepb.Response{Acknowledged: answer})
}

func (f *fakeSink) applyStage(name string) error {
	if f.db.Applied[name] {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(f.config.Dir, name))
	if err != nil {
		return err
	}
	var stage fakeStage
	if err := json.Unmarshal(text, &stage); err != nil {
		return err
	}
	f.merge(stage.Tables, stage.Deltas)
	f.db.Applied[name] = true
	return f.save()
}
