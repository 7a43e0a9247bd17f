package cdc

import (
	"fmt"
	"slices"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// A pass is how a table without a key is read where its rows do not say who wrote them: all of it in one snapshot, that of the
// place in the log from which on the stream carries the table (Event.Once). No other snapshot fits that place, so a pass cannot
// be resumed. It need not be: from the Joined event on until its last row is emitted there is no checkpoint. A session that ends
// before that has emitted nothing that counts, and the next one begins a pass of its own, at another place. The log goes on being
// read and emitted meanwhile.
//
// One table at a time is read so; but the next one may join as soon as the worker has read the last row of the one before, or failed to,
// and so before the reader knows of that.

// passes begins the pass of a table that has joined.
func (r *reader) passes(t *table) {
	if t.state.Phase == Pending && !t.pass {
		r.passing, t.pass = append(r.passing, t), true
	}
}

// passEnded allows checkpoints again.
func (r *reader) passEnded(t *table) {
	if t.pass {
		t.pass = false
		r.passing = slices.DeleteFunc(r.passing, func(o *table) bool { return o == t })
	}
}

// tear notes that rows of a pass will not come.
func (t *table) tear() { t.torn = t.torn || t.pass }

// whole returns an error if a pass that is going on cannot be ended. Some of its rows may be emitted, so the session has to end.
func (r *reader) whole() error {
	i := slices.IndexFunc(r.passing, func(t *table) bool { return t.torn })
	if i < 0 {
		return nil
	}
	torn := r.passing[i]
	return usererr.New(torn.tornBy, "Table %s has no key, so it is read in one pass, and that was interrupted%s. Nothing of it was kept: "+
		"the capture goes on from its last checkpoint, and reads the table from the beginning, when it is started again.", torn.id, because(torn.tornBy))
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return fmt.Sprintf(" (%s)", usererr.Message(err))
}
