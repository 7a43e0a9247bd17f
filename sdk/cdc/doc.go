// Package cdc captures SQL databases: the rows that tables have, and every change of them, without ever stopping the log.
// It is one engine for several databases, each behind a [Driver]; [New] makes a source of a capture of it.
//
// # The algorithm
//
// One goroutine, the reader, follows the log and emits every change of every bound table, from the first moment on and
// whatever else goes on. It never waits for anything but the log. Beside it, workers read the tables chunk by chunk, each
// chunk in one snapshot, on connections of their own, and encode what they read. The reader emits finished chunks between
// the log's transactions. The idea is that of Netflix's DBLog (watermark-based capture, Andreakis and Papapanagiotou 2019);
// three things differ: nothing is written to the source, chunks are read in parallel, and what a chunk may say is decided
// by visibility and not by places in the log.
//
//	        the log   ───T1───────T2──────T3───────T4────────────T5─────▶ reader ─▶ documents
//	                                    │                   ▲
//	worker: snapshot and rows of a chunk├──────────┤        │
//	                                  sees T1, T3  └ high ──┘ fence: now the chunk is emitted,
//	                                  not T2                  but not the rows that T2 changed
//
// The reader does the following.
//
//  1. It emits every change as it comes, and returns a capture transaction at a commit, never inside a source transaction.
//  2. A worker reads a chunk ([Driver.Scan]) and notes two things: which transactions its snapshot sees, and the log's insert
//     position after the snapshot was taken (high). The reader asks for a fence at high.
//  3. While a table is in backfill, the reader notes in the table's window which keys the emitted transactions changed, as far
//     as there may be a chunk that does not see them.
//  4. When the fence comes, the chunk is emitted, except for rows whose key was changed by an emitted transaction that the
//     chunk's snapshot does not see. The progress of the range is saved in the same capture transaction.
//
// # Why it is right
//
// The claim: at every checkpoint, the documents emitted so far, reduced by key, hold for every key that has been backfilled
// what the table held at that position in the log; and no document is older than one of the same key before it.
//
// Two facts about the server are all that is needed. Visible implies logged: a transaction's commit is in the log before any
// snapshot sees it. And per key, the order of the log is the order of visibility: a transaction that changes a key waits for
// the one before it until that has become visible or was rolled back. Nothing else may be assumed: a commit may be in the
// log, durable and emitted while no snapshot sees it for hours (it waits for a standby), and it may be visible before it is
// durable (asynchronous commit).
//
// Take a row of key k in a chunk with snapshot S, and look at the moment the chunk is emitted.
//
//   - Every transaction that S sees was committed in the log before high, so the stream has delivered it. Nothing in the chunk
//     is ahead of the log; and as the stream delivers only what is durable, nothing in it can be lost by a crash.
//   - If an emitted transaction that S does not see changed k, the row is older than that transaction's document: had they
//     come in the other order, the later one would have waited for the earlier one to be visible. The row is left out.
//   - If there is none, the row is what the last emitted transaction left: every emitted change of k is in S. Changes that are
//     not emitted yet come later in the log, and later in the output.
//
// The window only has to hold what some chunk may not see. Once one snapshot has seen a transaction, every snapshot taken
// later sees it, so a transaction is forgotten when the last known snapshot, and that from before the start of every scan in
// progress, have seen it.
//
// # What the log leaves out
//
// An update may come without values that did not change ([Row.Omitted]). Readers keep the value they have. So a chunk's row
// which is left out still has to give the columns that none of the changes has brought: the reader emits a patch of these.
// Where the value is in no row of any chunk, the row is read by key ([KeyScanner]), under the same rules as a chunk; such a
// key is a hole. There are two kinds. A row that appears under a key (a change of the key) without all of its values: what a
// chunk holds under this key is another row. And, where a plan's ranges are places and not keys ([Plan.Fixed]), an update
// that moves its row from a page that is still to be read to one that was: no chunk would ever bring the value.
//
// # When the log is lost
//
// A server may give a log up, or somebody may remove it or read it in our place. Nothing can be skipped then, so every table
// is captured anew (ErrPositionLost), after the runtime has kept a checkpoint that forgets the position and what was read of all of them at once.
// The claim above holds again for every key that is backfilled since. Keys that ended in the part that is lost stay in the
// output: no document says so. A table of which only changes are captured cannot be healed this way, and ends the capture.
//
// # Memory and state
//
// A window that grows too large forgets which keys were changed and keeps only by whom; chunks that do not see these
// transactions are read again, smaller. With too many transactions it forgets all, and the driver is asked what is in
// progress now: whatever was emitted before is visible by then, or in that list. The state names, for every table in backfill,
// the ranges that are left, the transactions that every later chunk must see (emitted, not known to be visible: the window
// itself does not survive a restart), and the holes. Where a list would grow too long it is replaced by a mark that makes the
// next session ask the driver, or read the table again.
//
// # Proof by simulation
//
// TestSimulation runs all of this, without goroutines or time, against a database in memory that keeps log order, visibility
// and durability apart, and crashes it and the connector at random; TestMutations breaks the algorithm on purpose and expects
// the simulation to notice. sdk/testkit/cdctest is the same for real servers.
//
// docs/writing-a-cdc-driver.md says how to write a driver; docs/decisions/0007-chunks-and-visibility.md what was decided
// against, and why.
package cdc
