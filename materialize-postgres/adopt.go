package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/materialize"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// mayUse refuses tables that are not the task's own: what somebody else made is not written to unasked.
func (t *existing) mayUse(name tableName, task string, r resource) error {
	switch {
	case t.owner == task:
		return nil
	case t.meta:
		return usererr.New(nil, "Table %s is one of the connector's own, which keep the positions. Choose another name for the binding's table.", name)
	case t.owner != "":
		return usererr.New(nil, "Table %s belongs to materialization %q. Choose another table for the binding, or remove it there and drop the table.", name, t.owner)
	case t.relkind != "r" && t.relkind != "p":
		return usererr.New(nil, "There is already something called %s in the destination, and it is not a table. Choose another name for the binding's table.", name)
	case r.Adopt:
		return nil
	default:
		return usererr.New(nil, "Table %s exists already and was not created by this materialization. Choose another name for the binding's table, rename or drop the existing one, or set adopt to true on the binding to fill it.", name)
	}
}

// sameKey refuses a table in which rows would not be found by the collection's key.
func (t *existing) sameKey(name tableName, columns []string) error {
	want := t.primaryKey(columns)
	if want == nil || t.hasKey(want) {
		return nil
	}
	if t.owner == "" || t.adopted {
		return usererr.New(nil, "Table %s has neither a primary key nor a unique index on the collection's key (%[2]s), so its rows cannot be found. Run ALTER TABLE %[3]s ADD UNIQUE (%[4]s), or choose another table.",
			name, strings.Join(want, ", "), name.sql(), list(len(want), ", ", func(i int) string { return quote(want[i]) }))
	}
	return usererr.New(nil, "The primary key of %s is (%s), but the collection's key is (%s). Increase the binding's backfill counter to rebuild the table.",
		name, strings.Join(t.key, ", "), strings.Join(want, ", "))
}

// hasKey says whether the columns, in any order, are the primary key or those of a unique index. A table of our own that lost
// its primary key is not taken, whatever replaced it.
func (t *existing) hasKey(columns []string) bool {
	want := slices.Sorted(slices.Values(columns))
	if slices.Equal(slices.Sorted(slices.Values(t.key)), want) {
		return true
	}
	return (t.owner == "" || t.adopted) && slices.ContainsFunc(t.uniques, func(u []string) bool { return slices.Equal(slices.Sorted(slices.Values(u)), want) })
}

// adopt takes over a table that somebody else made, as asked for: its rows and columns stay, and what the collection has more
// is added.
func (a *applier) adopt(name tableName, t *existing, b *materialize.Binding[resource]) error {
	t.delta = b.Target.Delta
	if err := t.sameKey(name, keyColumns(b)); err != nil {
		return err
	}
	changed, err := a.alterations(name, t, b, false)
	if err != nil {
		return err
	}
	a.say("Adopted table %s with its rows.", name)
	a.alterTable(name, changed)
	a.noteNew(name, b, true, t.madeNow(b))
	return nil
}

// refill is replace for an adopted table, whose rows may be in no collection: they stay, and what the collection has is stored
// over them.
func (a *applier) refill(name tableName, t *existing, b *materialize.Binding[resource]) error {
	t.delta = b.Target.Delta
	if err := t.sameKey(name, keyColumns(b)); err != nil {
		return err
	}
	changed, err := a.alterations(name, t, b, false)
	if err != nil {
		return err
	}
	a.say("Kept the rows of the adopted table %s; backfill %d is stored over them.", name, b.Backfill)
	a.alterTable(name, changed)
	a.note(name, fmt.Sprintf("backfill = %d, load_all = true, delta_updates = %t, made = %s", b.Backfill, b.Target.Delta, jsonNames(t.madeNow(b))))
	return nil
}
