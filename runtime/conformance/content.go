package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// deletes deletes a row that is there and one that never was, and stores the first one again.
func (k *sink) deletes(ctx context.Context) error {
	switch {
	case k.task == nil || len(k.task.rows) == 0:
		return skipped("needs transactions")
	case k.task.delta():
		return skipped("its bindings take delta updates, in which a deletion is a document like others")
	}
	const there, never = 20_000, 20_001
	for i, change := range [][]row{{k.task.row(there, "c")}, {k.task.row(there, "d"), k.task.row(never, "d")}, {k.task.row(there, "c")}} {
		for n := range change {
			change[n].Note = fmt.Sprintf("deletes %d", i) // another one each time
		}
		if err := k.task.session(ctx, i, change...); err != nil {
			return err
		}
	}
	return nil
}

// session stores rows in a session of their own, the n-th, and looks at what the destination has then.
func (t *task) session(ctx context.Context, n int, rows ...row) error {
	s, err := t.open(ctx, n)
	if err != nil {
		return err
	}
	if err := t.write(ctx, s, "", rows...); err != nil {
		return s.fail(err)
	}
	if err := s.finish(ctx); err != nil {
		return err
	}
	return t.check(ctx, n)
}

// beliefs says of each row that is stored the contrary of whether it is there.
func (k *sink) beliefs(ctx context.Context) error {
	switch {
	case object(k.s.spec.ResourceConfigSchemaJson)["x-load-optional"] != true:
		return skipped("its resource schema does not say x-load-optional")
	case k.task == nil || len(k.task.rows) == 0:
		return skipped("needs transactions")
	}
	k.task.lies = true
	defer func() { k.task.lies = false }()
	for i, ops := range []string{"cc", "cd"} {
		if err := k.task.session(ctx, i, k.task.row(25_000, ops[:1]), k.task.row(25_001, ops[1:])); err != nil {
			return err
		}
	}
	return nil
}

// deltaUpdates has a table of delta updates: keys come several times in a transaction, nothing is loaded, and kills neither lose nor repeat.
func (k *sink) deltaUpdates(ctx context.Context) error {
	if k.task == nil {
		return skipped("needs apply")
	}
	request, err := k.request("delta")
	if err != nil {
		return err
	}
	property := deltaProperty(k.s.spec.ResourceConfigSchemaJson)
	switch {
	case property != "":
		resource := object(request.Bindings[0].ResourceConfigJson)
		resource[property] = true
		if request.Bindings[0].ResourceConfigJson, err = json.Marshal(resource); err != nil {
			return err
		}
	case !k.task.delta():
		return skipped("its resources have no property with x-delta-updates")
	}
	t := &task{k: k, name: "-delta", table: k.table("delta"), state: []byte("{}")}
	if t.spec, err = k.specify(ctx, t.name, request); err != nil {
		return err
	}
	if !t.delta() {
		return fmt.Errorf("the resource asks for delta updates by %s, and Validate answers without deltaUpdates", property)
	}
	if t.state, err = k.host(0, t.name).Apply(ctx, &materializepb.Request_Apply{Materialization: t.spec, StateJson: t.state}, nil); err != nil {
		return err
	}
	for i, kill := range []string{"", "Store", "StartCommit", "StartedCommit", "committed", ""} {
		s, err := t.open(ctx, i)
		if err != nil {
			return err
		}
		first, second, third := t.row(i, "c"), t.row(i, "u"), t.row(i, "d")
		first.Size, second.Size, third.Size = 100*i, 100*i+1, 100*i+2
		err = t.write(ctx, s, kill, first, second, third, t.row(1000+i, "c"))
		switch {
		case kill != "" && errors.Is(err, errKilled):
			_ = s.Close() // killed, as it should
		case err != nil || kill != "":
			return s.fail(errOr(err))
		default:
			if err := s.finish(ctx); err != nil {
				return err
			}
		}
	}
	if k.s.opts.Verify == "" {
		return nil
	}
	return t.verify(ctx)
}

// deltaProperty is the property of a resource that asks for delta updates; "" if there is none.
func deltaProperty(schema []byte) string {
	members, _ := object(schema)["properties"].(map[string]any)
	for name, p := range members {
		if property, _ := p.(map[string]any); property["x-delta-updates"] == true {
			return name
		}
	}
	return ""
}

// stored compares what the destination holds, as somebody else sees it, with all that was committed.
func (k *sink) stored(ctx context.Context) error {
	switch {
	case k.s.opts.Verify == "":
		return skipped("there is no command that prints what the destination holds (--verify)")
	case k.task == nil || len(k.task.rows) == 0:
		return skipped("needs transactions")
	}
	return k.task.verify(ctx)
}

// verify asks for the rows of the table until they are what was committed; the last transaction may take a moment to be visible.
func (t *task) verify(ctx context.Context) error {
	want := map[string]int{} // how often each row is to be there
	for _, r := range t.rows {
		if !t.delta() && !r.deleted() {
			want[r.line()]++
		}
	}
	if t.delta() {
		for _, r := range t.all {
			want[r.line()]++
		}
	}
	for deadline := time.Now().Add(t.k.s.opts.Quiet); ; pause(ctx, 200*time.Millisecond) {
		got, err := t.held(ctx)
		if err != nil {
			return err
		}
		if err = difference(want, got); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// line is what is compared of a row.
func (r row) line() string {
	return fmt.Sprintf("id %d, region %q, note %q, size %d", r.ID, r.Region, r.Note, r.Size)
}

func difference(want, got map[string]int) error {
	lines := maps.Clone(want)
	maps.Copy(lines, got)
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		if want[line] != got[line] {
			return fmt.Errorf("the destination has the row (%s) %d times, and it was committed %d times", line, got[line], want[line])
		}
	}
	return nil
}

// held is what the user's command says that the table holds. Rows that are marked as deleted are left out of tables with one row a key.
func (t *task) held(ctx context.Context) (map[string]int, error) {
	command := strings.ReplaceAll(t.k.s.opts.Verify, "{table}", t.table)
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("looking at the destination with %q: %w", command, err)
	}
	rows := map[string]int{}
	for line := range strings.Lines(string(out)) {
		var r struct {
			row
			Op string `json:"_meta/op"` // of a column
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("reading what %q printed, which is to be an object a line with id, region, note and size: %w", command, err)
		}
		if t.delta() || !r.deleted() && r.Op != "d" {
			rows[r.line()]++
		}
	}
	return rows, nil
}

// slowReader lets documents be loaded that nobody takes for a while.
func (k *sink) slowReader(ctx context.Context) error {
	switch {
	case k.task == nil || len(k.task.rows) == 0:
		return skipped("needs transactions")
	case k.task.delta():
		return skipped("its bindings take delta updates, of which nothing is loaded")
	}
	const many = 2000
	filler := strings.Repeat("filler ", 256) // so that a pipe does not hold all of it
	var rows []row
	for i := range many {
		r := k.task.row(30_000+i, "c")
		r.Note += filler
		rows = append(rows, r)
	}
	s, err := k.task.open(ctx, 0)
	if err != nil {
		return err
	}
	if err := k.task.write(ctx, s, "", rows...); err != nil {
		return s.fail(err)
	}
	var grown int64
	s.stall = func() { grown = k.s.unread(ctx, s.Process()) }
	if err := k.task.write(ctx, s, "", rows[:many]...); err != nil {
		return s.fail(err)
	}
	if grown > k.s.opts.Memory/4 {
		return s.fail(fmt.Errorf("%d MiB more were resident after nobody had read for %s", grown>>20, k.s.opts.Quiet))
	}
	return s.finish(ctx)
}
