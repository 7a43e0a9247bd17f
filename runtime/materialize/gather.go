package materialize

import (
	"context"
	"slices"
	"time"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// gather reads what the log has for this transaction, and asks the connector for what it has stored of the same keys.
// The transaction closes when there is something in it and the connector has acknowledged the last one: so it
// is short when little happens, and takes in what arrived meanwhile when the destination is slow. It is left empty
// when the task stops, or when the next documents need a new session; so it is when one of these happens before the last
// transaction is acknowledged, if the connector has not been asked about any key yet.
//
// A session that streams only learns here that there is something to read, and reads it when it stores.
func (s *session) gather(ctx context.Context) error {
	if err := s.takeUp(isDone(ctx)); err != nil {
		return err
	}
	for {
		changed := s.task.Log.Changed()
		stopping := isDone(ctx)
		if !stopping {
			if err := s.outdated(); err != nil {
				return err
			}
			if err := s.look(ctx); err != nil {
				return err
			}
		}
		if err := s.host.Push(); err != nil {
			return err
		}
		full := s.txn.bytes >= s.task.MaxTransactionBytes || s.evolved || stopping
		switch {
		case s.txn.empty() && full:
			return nil
		case !s.acknowledged && !s.asked && (s.evolved || stopping):
			// A connector may hold Acknowledged back for long, to let documents gather. What was gathered is read again by
			// the next session: the connector has not heard of it.
			s.txn.reset()
			return nil
		case s.txn.empty() || !s.acknowledged:
			if full {
				changed = nil // there is no more room: only the acknowledgement counts
			}
			if err := s.waitFor(ctx, changed); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// outdated ends the session of the first shard when a collection has a newer version, although none of its own documents may need that: other
// shards' do, and wait for it.
func (s *session) outdated() error {
	if s.task.Shard.Whole() || !s.task.Shard.Leads() {
		return nil
	}
	for _, b := range s.bindings {
		version, err := s.task.Collections.Current(b.source)
		if err != nil {
			return err
		}
		s.evolved = s.evolved || version.Number > b.version.Number
	}
	return nil
}

func isDone(ctx context.Context) bool { return ctx.Err() != nil }

// waitFor waits until the log has changed, a response arrived or the task stops.
func (s *session) waitFor(ctx context.Context, changed <-chan struct{}) error {
	stopping := ctx.Done()
	if changed == nil {
		stopping = nil
	}
	remind := time.NewTicker(s.task.Timeouts.Remind)
	defer remind.Stop()
	began := time.Now()
	for {
		select {
		case <-changed:
		case <-stopping:
		case e := <-s.host.Events(): // the receiver lets nothing else through here
			return s.onAcknowledged(e.State)
		case <-s.host.Done():
			return s.host.Err()
		case <-remind.C:
			if !s.acknowledged {
				s.task.Logger.WithFields(map[string]any{"waiting": "Acknowledged", "took": time.Since(began).Round(time.Second).String()}).Info("waiting for the connector, which is not done with the last transaction or lets documents gather")
			}
			continue
		}
		return nil
	}
}

// maxReaders bounds how many journals are read at once, since each holds a block in memory.
const maxReaders = 16

// feed is one journal being read on behalf of one binding, with its next block at hand.
type feed struct {
	binding *binding
	source  string // name in the positions
	head    wal.Head
	reader  wal.Reader
	block   wal.Block
	next    int64 // offset behind block
}

// look takes what the log has into the transaction, or notes that it has something.
func (s *session) look(ctx context.Context) error {
	if s.streams {
		s.txn.begun = s.txn.begun || !s.evolved && len(s.waiting()) > 0
		return nil
	}
	return s.readAll(ctx, s.txn, s.task.MaxTransactionBytes, func(b *binding, doc []byte) error {
		e, err := s.txn.add(b, doc)
		if err != nil || e == nil || !e.wantsLoad() {
			return err
		}
		return s.load(e)
	})
}

// readAhead begins to read what the log has for the next transaction, while this one is stored and committed: otherwise destination and
// runtime would work in turns. What it returns waits for the end of that, or gives it up.
//
// Loads wait until the protocol allows them.
func (s *session) readAhead(ctx context.Context) (settle func(giveUp bool) error) {
	if s.streams || s.evolved || isDone(ctx) {
		return func(bool) error { return nil }
	}
	reading, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- s.readAll(reading, s.ahead, s.task.MaxTransactionBytes, func(b *binding, doc []byte) error {
			e, err := s.ahead.add(b, doc)
			if err == nil && e != nil && e.wantsLoad() {
				s.loads = append(s.loads, e)
			}
			return err
		})
	}()
	return func(giveUp bool) error {
		if giveUp {
			cancel()
		}
		defer cancel()
		return <-done
	}
}

// takeUp sends the Loads of what was read ahead. If the session is about to end, the next one reads that again.
func (s *session) takeUp(stopping bool) error {
	defer func() { clear(s.loads); s.loads = s.loads[:0] }()
	if stopping || s.evolved {
		s.txn.reset()
		return nil
	}
	for _, e := range s.loads {
		if err := s.load(e); err != nil {
			return err
		}
	}
	return nil
}

// readAll hands over the documents of every binding up to the heads of its journals, or as far as the transaction has room.
// The heads are taken before the first document, so that a transaction which takes all takes whole commits of a capture.
// One that cannot takes the oldest blocks of all journals first: no binding runs ahead of the others, and none starves.
// A document may be kept; it is not changed afterwards.
func (s *session) readAll(ctx context.Context, into *transaction, limit int, each func(b *binding, doc []byte) error) (err error) {
	if s.evolved || into.bytes >= limit {
		return nil
	}
	feeds := s.waiting()
	defer func() {
		for _, f := range feeds {
			if f.reader == nil {
				continue
			}
			if closeErr := f.reader.Close(); err == nil {
				err = closeErr
			}
		}
	}()
	for len(feeds) > 0 && into.bytes < limit && ctx.Err() == nil {
		if feeds, err = s.fill(into, feeds); err != nil || len(feeds) == 0 {
			return err
		}
		oldest := feeds[0]
		for _, f := range feeds[:min(len(feeds), maxReaders)] {
			if f.binding.priority == oldest.binding.priority && f.block.Sealed.Before(oldest.block.Sealed) {
				oldest = f
			}
		}
		if oldest.block.Schema > oldest.binding.version.Number {
			s.task.needs = map[string]uint32{oldest.binding.source: oldest.block.Schema}
			s.evolved = true
			return nil
		}
		if err := s.take(into, oldest, each); err != nil {
			return err
		}
	}
	return nil
}

// waiting lists the journals that have something to read, beginning with another binding each time.
func (s *session) waiting() []*feed {
	var feeds []*feed
	s.turn++
	for i := range s.bindings {
		b := s.bindings[(i+s.turn)%len(s.bindings)]
		for _, h := range s.task.heads(b.source) {
			name := sourceName(h.Journal, b.stateKey)
			if b.known[name] < h.Offset {
				feeds = append(feeds, &feed{binding: b, source: name, head: h})
			}
		}
	}
	slices.SortStableFunc(feeds, func(x, y *feed) int { return int(y.binding.priority) - int(x.binding.priority) })
	return feeds
}

// fill reads the next block of every feed that is being read and has none, and drops feeds that are read to their end.
func (s *session) fill(into *transaction, feeds []*feed) ([]*feed, error) {
	for i := 0; i < min(len(feeds), maxReaders); {
		f := feeds[i]
		if f.next != 0 {
			i++
			continue
		}
		var err error
		if f.reader == nil {
			if f.reader, err = s.task.Log.Reader(f.head.Journal, f.binding.known[f.source], f.head.Offset); err != nil {
				return feeds, err
			}
		}
		var ok bool
		if f.block, f.next, ok, err = f.reader.Next(); err != nil {
			return feeds, err
		}
		if ok {
			i++
			continue
		}
		if err := f.reader.Close(); err != nil {
			return feeds, err
		}
		if f.next > f.binding.known[f.source] { // what stood there was compacted away
			into.read[f.source], f.binding.known[f.source] = f.next, f.next
		}
		feeds = slices.Delete(feeds, i, i+1)
	}
	return feeds, nil
}

// take hands over a feed's block, which is part of the transaction then.
func (s *session) take(into *transaction, f *feed, each func(b *binding, doc []byte) error) error {
	b := f.binding
	if err := f.block.Docs(func(doc []byte) error { return each(b, doc) }); err != nil {
		return err
	}
	into.bytes += f.block.Size()
	into.read[f.source], b.known[f.source] = f.next, f.next
	b.status.Behind(f.block.Sealed)
	f.next = 0
	return nil
}

// load asks for the stored document of a key. To know that a key is new by its order, and not to ask, as the protocol allows, is wrong
// for tables that had rows before.
func (s *session) load(e *entry) error {
	f := &s.frames
	s.asked = true
	f.load.Binding = e.binding.index
	if s.host.Codec() == frame.JSON {
		f.key = s.txn.appendKeyText(f.key[:0], e)
		f.load.KeyJson = f.key
	} else {
		f.key = append(f.key[:0], e.packed()...)
		f.load.KeyPacked = f.key
	}
	return s.host.Load(&f.load)
}

// store sends every key of the transaction once, and every document of delta updates. When the task stops, one that streams
// ends where it is.
func (s *session) store(ctx context.Context) error {
	if s.streams {
		return s.readAll(ctx, s.txn, streamedFactor*s.task.MaxTransactionBytes, s.storeStreamed)
	}
	for _, e := range s.txn.sorted() {
		if err := s.storeDoc(e.binding, e.doc, e.exists, e.deleted); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) storeStreamed(b *binding, doc []byte) error {
	s.txn.note(b, doc)
	return s.storeDoc(b, doc, false, false)
}

// storeDoc sends one row.
func (s *session) storeDoc(b *binding, doc []byte, exists, deleted bool) (err error) {
	f := &s.frames
	f.store.Binding, f.store.Exists, f.store.Delete, f.store.DocJson = b.index, exists, deleted, nil
	if b.document {
		f.store.DocJson = doc
	}
	if f.key, f.value, err = b.appendRow(f.key[:0], f.value[:0], s.host.Codec(), doc); err != nil {
		return usererr.New(err, "a document of the collection %s has a value that cannot be used: %v: %.200q", b.source, err, doc)
	}
	if s.host.Codec() == frame.JSON {
		f.store.KeyJson, f.store.ValuesJson = f.key, f.value
	} else {
		f.store.KeyPacked, f.store.ValuesPacked = f.key, f.value
	}
	return s.host.Store(&f.store)
}

// lag tells the board how much of the log waits for a binding, beyond what is being stored.
func (s *session) lag(b *binding) {
	var waiting int64
	for _, h := range s.task.heads(b.source) {
		waiting += s.task.Log.Behind(h.Journal, s.positions.get(h.Journal, b.stateKey))
	}
	b.status.Backlog(waiting)
	switch {
	case waiting == 0:
		b.status.Behind(time.Time{})
		b.status.Phase(status.Streaming)
	case waiting > int64(s.task.MaxTransactionBytes):
		b.status.Phase(status.Backfill)
	}
}

// report updates the board after a commit.
func (s *session) report() {
	s.task.Status.Checkpoint(1)
	for _, b := range s.bindings {
		if n := s.txn.perBind[b.index]; n.documents > 0 {
			b.status.Count(n.documents, n.bytes)
		}
		s.lag(b)
	}
}
