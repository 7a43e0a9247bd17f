package main

import (
	"context"
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-mysql/internal/binlog"
)

// query takes a statement of the log.
func (s *stream) query(ctx context.Context, h binlog.Header, body []byte) error {
	q, err := binlog.ParseQuery(body, h.Type == binlog.QueryCompressed)
	if err != nil {
		return err
	}
	text := string(q.Statement)
	first, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	t := &s.txn
	switch word := strings.ToUpper(first); {
	case !t.open:
		return nil // MariaDB's statements that are no transactions
	case word == "BEGIN":
		t.begun = true
		return nil
	case word == "COMMIT":
		return s.endTransaction(h)
	case word == "ROLLBACK":
		if t.touched {
			return s.errRolledBack()
		}
		if strings.HasPrefix(strings.ToUpper(rest), "TO") {
			return nil
		}
		return s.endTransaction(h)
	case word == "SAVEPOINT" || word == "RELEASE":
		return nil
	case word == "XA":
		return s.distributed(ctx, h, strings.ToUpper(rest))
	}
	if !t.halfway {
		st := s.fold(parseStatement(text, string(q.Schema)))
		st.values = st.values || st.narrows && !q.Strict
		if err := s.statement(ctx, st); err != nil {
			return err
		}
	}
	if !t.begun {
		return s.endTransaction(h)
	}
	return nil
}

func (s *stream) errRolledBack() error {
	return usererr.New(nil, "A transaction that changed captured tables was rolled back in part, and the log has it (at %s): it changed tables with other engines than InnoDB as well. Such transactions cannot be captured.", s.at)
}

// statement takes what a statement does to tables.
func (s *stream) statement(ctx context.Context, st statement) error {
	switch st.verb {
	case "INSERT":
		return s.changedByStatement(st)
	case "TRUNCATE":
		for _, id := range st.tables {
			s.truncated(id)
		}
	case "DROP":
		for _, id := range st.tables {
			s.dropped(id, "The table "+id.String()+" was dropped.")
		}
	case "DROP DATABASE":
		for id := range s.tables {
			if id.Schema == st.tables[0].Schema {
				s.dropped(id, "The table "+id.String()+" was dropped with its database.")
			}
		}
	case "RENAME":
		return s.renamed(ctx, st)
	case "ALTER":
		return s.alteredBy(ctx, st)
	case "CREATE":
		if t := s.tables[st.tables[0]]; t != nil && !t.gone && st.unless {
			return nil // programs do this whenever they start
		}
		if st.empty {
			s.dropped(st.tables[0], "The table "+st.tables[0].String()+" was replaced.")
		}
		_, err := s.appeared(ctx, st.tables[0])
		return err
	}
	return nil
}

// loadedByStatement takes a LOAD DATA that the log has as a statement, with the file's contents beside it.
func (s *stream) loadedByStatement(body []byte) error {
	q, err := binlog.ParseLoadQuery(body)
	if err != nil {
		return err
	}
	return s.changedByStatement(s.fold(parseStatement(string(q.Statement), string(q.Schema))))
}

// changedByStatement refuses changes of rows that the log has as statements.
func (s *stream) changedByStatement(st statement) error {
	schemas := map[string]bool{}
	for id := range s.tables {
		schemas[id.Schema] = true
	}
	if len(st.tables) == 1 && !schemas[st.tables[0].Schema] {
		return nil
	}
	what := "a table"
	if len(st.tables) == 1 {
		if s.tables[st.tables[0]] == nil && slices.Contains(systemSchemas, st.tables[0].Schema) {
			return nil
		}
		what = "table " + st.tables[0].String()
	}
	return usererr.New(nil, "The log has a change of %s as a statement (at %s), not as rows: a session had another binlog_format than ROW. Which rows it changed cannot be told. "+
		"Keep sessions from changing it, then backfill all tables.", what, s.at)
}

func (s *stream) truncated(id cdc.TableID) {
	t := s.tables[id]
	if t == nil {
		return
	}
	if t.join != nil {
		s.leaveOut(t)
	}
	s.txn.touched = true
	s.queue = append(s.queue, cdc.Event{Op: cdc.Truncate, Table: id, Txn: s.txn.id, Mark: cdc.Mark(s.at.String()), CommitTime: s.txn.commit})
}

// refilled takes a table to which rows came without a word for each in the log. They are read, whatever becomes of those that went. Without a
// key they cannot be told from the table's other rows, all of which would come once more: then the table is given up.
func (s *stream) refilled(id cdc.TableID) {
	t := s.tables[id]
	if t == nil || t.gone {
		return
	}
	s.txn.touched = true
	switch {
	case t.join != nil:
		s.leaveOut(t) // and found by the pass
	case t.table.Unread:
		s.d.log.WithField("table", id.String()).WithField("at", s.at.String()).
			Warn("rows came to the table without a word for each in the log (a partition or a tablespace that was exchanged, converted or imported); only changes are captured of it, so they are not")
	case len(t.table.Key) == 0:
		s.forget(id)
		s.settled(t)
		delete(s.tables, id)
		s.queue = append(s.queue, cdc.Event{Op: cdc.Drop, Table: id, Txn: s.txn.id, Halt: true, Err: usererr.New(nil, "Rows came to table %s without a word for each in the log (at %s): "+
			"a partition or a tablespace was exchanged, converted or imported. The table has no key, so they cannot be told from its other rows, and it is not captured any more. "+
			"Backfill it into an empty collection; with a primary key, such rows are read and all goes on.", id, s.at)})
	default:
		s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: id, Txn: s.txn.id, Shape: t.table, Rescan: true})
	}
}

// refit takes a table that may have got another engine, or begun or ended to keep its history.
func (s *stream) refit(ctx context.Context, id cdc.TableID) error {
	t := s.tables[id]
	if t == nil {
		return nil
	}
	var found []*table
	err := s.d.conns.with(ctx, func(q *session) (err error) {
		found, err = s.d.readTables(ctx, q, []cdc.TableID{id})
		return err
	})
	switch {
	case err != nil || len(found) == 0: // if it is gone by now, the log says so later
		return err
	case found[0].problem != nil && !t.gone:
		s.dropped(id, found[0].problem.Error())
	case found[0].problem == nil && t.gone:
		_, err = s.appeared(ctx, id)
	}
	return err
}

func (s *stream) dropped(id cdc.TableID, why string) {
	t := s.tables[id]
	if t == nil {
		return
	}
	s.txn.touched, t.gone = true, true
	if t.join != nil {
		s.leaveOut(t)
	}
	s.forget(id)
	s.settled(t)
	s.queue = append(s.queue, cdc.Event{Op: cdc.Drop, Table: id, Txn: s.txn.id, Err: usererr.New(nil, "%s", why)})
}

// forget has a table's description read anew.
func (s *stream) forget(id cdc.TableID) {
	if t := s.tables[id]; t != nil {
		t.layout, t.derived = nil, nil
	}
	s.unmap(id)
}

// unmap has a table described anew.
func (s *stream) unmap(id cdc.TableID) {
	if t := s.tables[id]; t != nil {
		t.last = nil
	}
	for n, m := range s.mapped {
		if m.table != nil && m.table.id == id {
			delete(s.mapped, n)
		}
	}
}

// renamed takes tables that got other names. Tools that alter tables online put a copy in a table's place, in one statement: the name
// then means another table, all of which is captured, without a moment in which there is none (hard case 41).
func (s *stream) renamed(ctx context.Context, st statement) error {
	why := map[cdc.TableID]string{}
	for i, id := range st.tables {
		why[id] = "The table " + id.String() + " was renamed to " + st.to[i].String() + "."
		if !slices.Contains(st.to, id) {
			s.dropped(id, why[id])
		}
	}
	for _, id := range st.to {
		there, err := s.appeared(ctx, id)
		if err != nil {
			return err
		}
		if !there && why[id] != "" {
			s.dropped(id, why[id])
		}
	}
	return nil
}

// appeared says that a table of this name came to be. It is another one than before, so all of it is captured. It reports false if
// it cannot be, or is gone by now.
func (s *stream) appeared(ctx context.Context, id cdc.TableID) (bool, error) {
	t := s.tables[id]
	if t == nil {
		return false, nil
	}
	found, err := s.d.Discover(ctx, id)
	if err != nil || len(found) == 0 {
		return false, err
	}
	next := *found[0]
	next.Selection, next.Unread = t.table.Selection, t.table.Unread
	next.Columns = slices.DeleteFunc(slices.Clone(next.Columns), func(c cdc.Column) bool { return !next.Selection.Has(c) })
	if len(t.table.Key) == 0 { // its rows are told apart by their places in the log: the core has to know that these are others
		next.Key = nil
		s.dropped(id, "The table "+id.String()+" was replaced.")
	}
	t.table, t.gone = &next, false
	s.joinAgain(t)
	s.forget(id)
	s.settled(t)
	s.txn.touched = true
	s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: id, Txn: s.txn.id, Shape: t.table, Rescan: true})
	return true, nil
}

// alteredBy takes an ALTER TABLE. What the table is like from here on, its next rows say; but they do not say that a column which
// they have is another one of the same name.
func (s *stream) alteredBy(ctx context.Context, st statement) error {
	id := st.tables[0]
	if len(st.to) > 0 && st.to[0] != id {
		st.verb = "RENAME"
		return s.renamed(ctx, st)
	}
	if err := s.movedRows(ctx, st); err != nil {
		return err
	}
	if st.engine {
		if err := s.refit(ctx, id); err != nil {
			return err
		}
	}
	t := s.tables[id]
	if t == nil || !st.columns {
		return nil
	}
	if t.join != nil {
		s.leaveOut(t)
	}
	was := t.derived
	if t.layout != nil {
		was = deriveFrom(t.layout)
	}
	after := was.apply(st)
	next := *t.table
	if next.Layout != layoutOwed {
		next.Layout = after.encode()
	}
	next.Columns = slices.DeleteFunc(slices.Clone(next.Columns), func(c cdc.Column) bool {
		return !slices.Contains(next.Key, c.Name) && slices.ContainsFunc(st.gone, func(name string) bool { return strings.EqualFold(name, c.Name) })
	})
	t.table = &next
	s.forget(id)
	t.derived = after
	s.txn.touched = true
	s.queue = append(s.queue, cdc.Event{Op: cdc.Shape, Table: id, Txn: s.txn.id, Shape: t.table, Look: true, Rescan: st.values})
	return nil
}

// movedRows takes an ALTER TABLE by which rows go or come as a whole.
func (s *stream) movedRows(ctx context.Context, st statement) error {
	for _, id := range st.taken {
		s.dropped(id, "The table "+id.String()+" became a partition of "+st.tables[0].String()+".")
	}
	for _, id := range append(st.swapped, st.tables[0]) {
		if st.empty {
			s.truncated(id)
		}
		if st.filled {
			s.refilled(id)
		}
	}
	for _, id := range st.made {
		if _, err := s.appeared(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
