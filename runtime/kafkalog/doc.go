// Package kafkalog keeps the log in a Kafka cluster: the documents of each collection in a topic, a record for each, as any consumer
// can read them; and what the engine has to remember in one compacted topic beside them.
//
// # Topics
//
// A collection's topic is called like it, with dots for slashes, behind a prefix. A record's key is the collection's key as a JSON array in
// one form only (see keyer), by whose hash, the one of Kafka's own producers, the partition is chosen; so documents of a key are in order.
// Its value is the document, its time that of the beginning of the transaction, and its headers are op, binding, position, schema and capture.
//
// The state topic has a partition, and a record by name for whatever has to last: those of [wal.Store], how far each capture has committed each
// collection (heads), whose each task is (claims), and which topics are ours.
//
// # Commits
//
// Every task has a producer whose transactional id is its name. What a capture appends goes out at once, into its open transaction;
// at the commit follow the heads and the capture's state, and the transaction ends. So a transaction of any size takes no memory, and
// who reads committed records only sees all of it or nothing.
//
// # Who may write
//
// A process that starts takes every task over: it begins the task's producer, by which the cluster refuses the older one's, reads the state topic to
// its end, and writes a claim. Claims, in their order, decide whose a task is; the producer's epoch only enforces it. Whoever has lost its
// producer begins it anew, reads to the end again, and gives up ([wal.ErrFenced]) if the last claim is not its own.
//
// # Reading
//
// Heads are what captures have committed, as they say in the state topic, and are shown once the cluster shows all of a transaction
// to readers: whole commits only. Positions are offsets of partitions.
package kafkalog
