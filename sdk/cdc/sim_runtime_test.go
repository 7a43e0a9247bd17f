package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/capture"
)

// simTx is a capture transaction.
type simTx struct {
	s      *sim
	saved  map[capture.Target]bool
	size   int
	shared any
	forget []string
	acks   []func(context.Context) error
	buf    []byte
}

func (tx *simTx) Append(b capture.Target, enc func([]byte) ([]byte, error)) error {
	doc, err := enc(tx.buf[:0])
	if err != nil {
		return err
	}
	tx.buf = doc
	return tx.AppendDoc(b, doc)
}

func (tx *simTx) AppendDoc(b capture.Target, doc []byte) error {
	tx.size += len(doc)
	tx.saved[b] = true
	return tx.s.apply(b, doc)
}

func (tx *simTx) Size() int                               { return tx.size }
func (tx *simTx) Schema(capture.Target, json.RawMessage)  {}
func (tx *simTx) Save(b capture.Target)                   { tx.saved[b] = true }
func (tx *simTx) SetShared(v any)                         { tx.shared = v }
func (tx *simTx) Forget(key string)                       { tx.forget = append(tx.forget, key) }
func (tx *simTx) OnAck(f func(ctx context.Context) error) { tx.acks = append(tx.acks, f) }

// apply reduces one document into the output.
func (s *sim) apply(target capture.Target, doc []byte) error {
	i := slices.IndexFunc(s.live, func(b *capture.Binding[Resource, TableState]) bool { return capture.Target(b) == target })
	var sb *simBinding
	for _, b := range s.bindings {
		if b.id == s.live[i].Resource.Table() {
			sb = b
		}
	}
	s.trace("      %s <- %s", sb.id, doc)
	s.emitted++
	d, err := parseDoc(doc)
	if err != nil {
		return err
	}
	for _, column := range slices.AppendSeq(slices.Collect(maps.Keys(d.vals)), maps.Keys(d.before)) {
		if !sb.has(column) {
			return fmt.Errorf("column %s of %s must not leave: %s", column, sb.id, doc)
		}
	}
	patch := d.op == "u" && d.snapshot
	if patch && s.mutation == mutatePatch {
		return nil
	}
	if sb.key == nil {
		return s.applyKeyless(sb, d)
	}
	parts := make([]string, len(sb.key))
	for i, k := range sb.key {
		parts[i] = d.vals[k]
	}
	key := strings.Join(parts, "|")
	before := sb.out.docs[key]
	next := &simDoc{vals: d.vals, omitted: d.omitted, v: d.v, deleted: d.op == "d", count: 1}
	if before != nil {
		next.count += before.count
		next.outdated = before.outdated && !next.deleted && lacks(d.vals, before.vals)
		if patch {
			next.v = before.v
		} else if d.v < before.v || d.v == before.v && !d.snapshot {
			return fmt.Errorf("key %s of %s goes back in time, from version %d to %s", key, sb.id, before.v, doc)
		}
		if !before.deleted && !s.shadow.tables[sb.id].ghost(key, before.v) && !s.db.reborn(sb.id, before.v, d.v) && !next.deleted {
			next.vals = with(before.vals, func(m map[string]string) {
				maps.Copy(m, d.vals)
			})
			next.omitted = maps.Clone(before.omitted)
			maps.Copy(next.omitted, d.omitted)
		}
	} else if patch {
		next.v = 0
	}
	s.journal = append(s.journal, journalEntry{sb.out, key, before})
	sb.out.docs[key] = next
	return nil
}

func (s *sim) applyKeyless(sb *simBinding, d parsed) error {
	key := d.op + strconv.Itoa(d.v)
	if d.op != "d" {
		key = "row" + strconv.Itoa(d.v)
	}
	before := sb.out.docs[key]
	next := &simDoc{vals: d.vals, v: d.v, count: 1}
	if before != nil {
		next.count += before.count
		if t := s.db.tables[sb.id]; (t == nil || t.rewrites == 0) && s.slot.lost == 0 {
			return fmt.Errorf("version %d of a row of %s, which has no key, comes twice", d.v, sb.id)
		}
	}
	s.journal = append(s.journal, journalEntry{sb.out, key, before})
	sb.out.docs[key] = next
	v, ended := d.before["v"].(string)
	if d.op == "d" {
		v, ended = d.vals["v"], true
	}
	if ended {
		key := "end" + v
		s.journal = append(s.journal, journalEntry{sb.out, key, sb.out.docs[key]})
		sb.out.docs[key] = &simDoc{count: 1}
	}
	return nil
}

// checkpoint commits a capture transaction, checks what must be true then, and acknowledges now and then.
func (s *sim) checkpoint(tx *simTx) error {
	last := s.checkpoints[len(s.checkpoints)-1]
	if shared, ok := tx.shared.(*sharedState); ok && shared.Cursor == "" {
		s.outdate()
		if s.mutation == mutateLossKeeps {
			clear(tx.saved)
		}
	}
	c := &simCheckpoint{states: map[string]json.RawMessage{}, parsed: map[string]*TableState{}, shared: last.shared, journal: len(s.journal), acks: tx.acks}
	for k, v := range last.states {
		if !slices.Contains(tx.forget, k) {
			c.states[k], c.parsed[k] = v, last.parsed[k]
		}
	}
	for _, b := range s.live {
		if tx.saved[b] {
			raw, err := json.Marshal(b.State)
			if err != nil {
				return err
			}
			c.states[b.StateKey], c.parsed[b.StateKey] = raw, &TableState{}
			if err := json.Unmarshal(raw, c.parsed[b.StateKey]); err != nil {
				return err
			}
		}
	}
	if tx.shared != nil {
		raw, err := json.Marshal(tx.shared)
		if err != nil {
			return err
		}
		c.shared = raw
	}
	s.checkpoints = append(s.checkpoints, c)
	s.trace("checkpoint %s %s", c.shared, c.states)
	if err := errors.Join(s.check(c, false), s.checkProgress(c)); err != nil {
		return err
	}
	if s.rnd.IntN(4) == 0 {
		s.acknowledge(1 + s.rnd.IntN(len(s.checkpoints)-1))
		return s.checkProgress(c)
	}
	return nil
}

// checkProgress compares what the reader says of itself at a checkpoint with what is the case.
func (s *sim) checkProgress(c *simCheckpoint) error {
	v := s.reader.progress.look()
	var shared sharedState
	if err := json.Unmarshal(c.shared, &shared); err != nil {
		return err
	}
	tables := s.reader.count()
	tables.of = v.tables.of // discovery changes what is expected, which is not worth a word
	switch {
	case v.checkpointed != shared.Cursor || v.delivered != shared.Cursor || v.inTxn || v.open != (shared.Cursor != ""):
		return fmt.Errorf("the checkpoint is at %s, the progress says %+v", shared.Cursor, v)
	case v.owed != len(s.checkpoints)-1 || v.owed == 0 && v.acknowledged != shared.Cursor:
		return fmt.Errorf("%d checkpoints are not acknowledged, the progress says %+v", len(s.checkpoints)-1, v)
	case v.tables != tables:
		return fmt.Errorf("the tables are %+v, the progress says %+v", tables, v.tables)
	case v.documents != uint64(s.emitted-s.emittedBefore): //nolint:gosec // a count
		return fmt.Errorf("%d documents were emitted, the progress says %d", s.emitted-s.emittedBefore, v.documents)
	}
	return nil
}

// acknowledge makes checkpoints durable, up to the n-th.
func (s *sim) acknowledge(n int) {
	for _, c := range s.checkpoints[1 : n+1] {
		for _, f := range c.acks {
			_ = f(context.Background())
		}
	}
	s.checkpoints = s.checkpoints[n:]
	s.trace("runtime: acknowledged, the log may be forgotten up to %d", s.acked)
}

// rollback makes one of the checkpoints the last one, as if the runtime had got no further.
func (s *sim) rollback() {
	n := s.rnd.IntN(len(s.checkpoints))
	s.checkpoints = s.checkpoints[n : n+1]
	c := s.checkpoints[0]
	for _, e := range slices.Backward(s.journal[c.journal:]) {
		if e.before == nil {
			delete(e.out.docs, e.key)
		} else {
			e.out.docs[e.key] = e.before
		}
	}
	s.journal = s.journal[:c.journal]
	s.shadow = newShadow(s.opts.OnOversizedRow)
	s.trace("runtime: goes on from %s", c.shared)
}

// reconfigure changes the task now and then, while no session runs.
func (s *sim) reconfigure() {
	b := s.bindings[s.rnd.IntN(len(s.bindings))]
	switch n := s.rnd.IntN(20); {
	case b.disabled || n == 0:
		// It is captured anew, into an empty collection.
		b.backfill++
		b.disabled = false
		s.trace("-- %s is to be backfilled again", b.id)
	case n == 1 && len(s.live) > 1 && s.quiet.IsZero():
		b.disabled = true
		b.backfill++ // what it captured is checked no further
		s.trace("-- %s is disabled", b.id)
	case n < 5 && (b.exclude != nil || b.columns != nil):
		b.exclude, b.columns = nil, nil
		s.trace("-- all columns of %s are captured", b.id)
		return
	default:
		return
	}
	b.out = &simReduced{docs: map[string]*simDoc{}}
}
