package cdc

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// truncatedEvent marks the log line of a truncation.
const truncatedEvent = "tableTruncated"

// truncated follows the policy for a table that lost all its rows at once. Chunks must not bring them back.
func (r *reader) truncated(t *table, ev *Event) error {
	log := r.log.WithFields(logrus.Fields{
		"eventType": truncatedEvent, "table": t.id.String(), "cursor": string(ev.Mark), "txid": string(ev.Txn),
		"onTruncate": string(r.opts.OnTruncate),
	})
	if !ev.CommitTime.IsZero() {
		log = log.WithField("committed", ev.CommitTime.UTC().Format(time.RFC3339Nano))
	}
	if t.watching && r.matters(t, ev.Txn) {
		t.window.require([]TxnID{ev.Txn})
	}
	return r.emptied(t, log, "was truncated")
}

// emptied follows the policy for rows that left a table without a word for each.
func (r *reader) emptied(t *table, log *logrus.Entry, what string) error {
	switch {
	case t.state.Phase == Pending:
		// Nothing was backfilled yet: the backfill will find the table as it is now.
		log.Info("table " + what + " before its backfill")
	case r.opts.OnTruncate == TruncateStop:
		log.Warn("table " + what + ": stopping, as onTruncate says")
		return usererr.New(nil, "Table %s %s. The rows it had are still in the collection. To go on, set onTruncate to ignore or backfill, "+
			"or backfill all tables of the capture into empty collections.", t.id, what)
	case r.opts.OnTruncate == TruncateBackfill && !t.keyless && !t.changesOnly:
		log.Warn("table " + what + ": backfilling it again; rows that did not come back stay in the collection")
		r.backfill(t)
	default:
		log.Warn("table " + what + ": the rows it had stay in the collection; backfill the table into an empty collection to be rid of them")
	}
	return nil
}
