package wal

// Mark is a place in a block between two documents.
type Mark struct{ count, size int }

// Mark returns the place behind the last document.
func (b *Block) Mark() Mark { return Mark{b.Count, len(b.docs)} }

// Empty tells whether nothing stands before the mark.
func (m Mark) Empty() bool { return m.count == 0 }

// Count is the number of documents before the mark.
func (m Mark) Count() int { return m.count }

// Size is the number of bytes before the mark.
func (m Mark) Size() int { return m.size }

// Before returns the documents before the mark as a block, which aliases this one.
func (b *Block) Before(m Mark) *Block {
	return &Block{Sealed: b.Sealed, Schema: b.Schema, Count: m.count, docs: b.docs[:m.size:m.size], origins: b.origins}
}

// Drop removes the documents before the mark.
func (b *Block) Drop(m Mark) {
	rest := b.docs[m.size:]
	if len(rest) == 0 {
		b.Reset()
		return
	}
	b.docs = b.docs[:copy(b.docs, rest)]
	b.Count -= m.count
	kept := b.origins[:0]
	for i, o := range b.origins {
		if i+1 == len(b.origins) || b.origins[i+1].first > m.count { // else all of its documents are gone
			kept = append(kept, origin{max(o.first-m.count, 0), o.name})
		}
	}
	b.origins = kept
}
