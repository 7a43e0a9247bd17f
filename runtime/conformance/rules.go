package conformance

import (
	"fmt"
	"strings"
)

// Severity says how bad it is to break a rule.
type Severity string

const (
	// Error is a rule whose breach loses, repeats or leaks something, or keeps runtimes from using the connector.
	Error Severity = "error"
	// Warning is a rule whose breach makes the connector harder to use.
	Warning Severity = "warning"
)

// Kind is what a connector does.
type Kind string

// The kinds of connectors; a rule of Any is for both.
const (
	Any         Kind = "any"
	Capture     Kind = "capture"
	Materialize Kind = "materialize"
)

// Rule is something that a connector must do.
type Rule struct {
	ID       string
	Of       Kind
	Severity Severity
	Title    string // what holds
	Fix      string // what to do where it does not
}

// Rules are all rules, in the order in which they are checked.
func Rules() []Rule {
	return []Rule{
		{"frame", Any, Error, "Spec is answered in every codec with one message, and the end of the input is a clean end", "Write only frames to standard output (print to standard error), answer each request once, and exit with code 0 when the input ends."},
		{"codecs-agree", Any, Error, "the answer is the same in every codec", "Encode the same message in both codecs: JSON is the Protobuf message with lowerCamelCase names, and raw JSON in the fields called *_json."},
		{"lenient", Any, Error, "unknown fields, nulls and old spellings of names are understood", "Ignore fields that are not known, take null for absent, and accept snake_case names beside lowerCamelCase ones."},
		{"cut-frame", Any, Error, "a request that is cut off ends the connector with an error", "Treat an input that ends within a frame as an error with a reason and a non-zero exit code."},
		{"huge-frame", Any, Error, "a length nobody means does not make the connector allocate it", "Check a frame's length, or grow the buffer only as bytes arrive; end with an error at the end of the input."},
		{"wrong-order", Any, Error, "a request that may not come now ends the connector with an error", "Refuse requests that are out of order with a reason and a non-zero exit code, and never wait for ever."},
		{"spec-protocol", Any, Error, "the protocol is 3032023", "Answer Spec with protocol 3032023."},
		{"spec-schema", Any, Error, "the schemas of configuration and resource are JSON schemas of objects, and the given configuration fits", "Generate the schema from the type that the configuration is read into."},
		{"spec-secrets", Any, Error, "passwords, tokens and keys are marked as secrets", "Mark the property with \"secret\": true, so that it is encrypted and never shown."},
		{"spec-described", Any, Warning, "every property has a title and a description", "Give each property of both schemas a title and a sentence to the user."},
		{"spec-documentation", Any, Warning, "there is a documentation URL", "Set documentationUrl to the page that explains the set-up."},
		{"spec-resource", Any, Error, "the resource schema says which property names the resource", "A capture lists resourcePathPointers, of properties that exist; a materialization marks one property with \"x-collection-name\": true."},
		{"exit-code", Any, Error, "a configuration that cannot be used ends the connector with a non-zero code and a reason in its log", "Exit with a code other than 0, and write what is wrong as the last line of the log, for people."},
		{"discover", Capture, Error, "what is discovered can be captured: schemas, keys, resources and names are sound", "Give each binding a name, a resource that fits the resource schema, a document schema, and a key whose locations that schema requires."},
		{"validate", Any, Error, "Validate answers about each binding, in order, with resource paths that are its own", "Answer one binding for each of the request, each with a resource path of non-empty parts; for a capture the one that its resource says."},
		{"constraints", Materialize, Error, "Validate has a constraint for every field, and accepts the key", "Answer a constraint with a reason for each projection, and for key fields one that can be selected."},
		{"apply", Any, Error, "Apply can be repeated", "Make Apply idempotent: what is there already is no error, and nothing is done twice."},
		{"documents", Capture, Error, "documents are objects that have their key and fit the schema that was discovered, or announced", "Widen the schema, announce a SourcedSchema before the document, or convert the value."},
		{"stop", Capture, Error, "SIGTERM ends a capture behind a checkpoint, with code 0", "Stop reading at SIGTERM, finish or drop the transaction, and exit with code 0 directly after a Checkpoint."},
		{"state", Capture, Error, "each checkpoint's state is a JSON object that reduces to an object", "Send states as JSON objects; a merge patch (RFC 7396) deletes members by null."},
		{"resume", Capture, Error, "from the state of any checkpoint comes exactly what one run gives", "Put everything into the state that is needed to go on behind the documents before that checkpoint, and nothing from behind it."},
		{"resume-once", Capture, Error, "what came before a checkpoint does not come again after it", "Advance the position in the state with the documents that the checkpoint covers."},
		{"killed", Capture, Error, "a capture that is killed at any step goes on from its last checkpoint without loss", "Keep nothing that matters outside of the state, and free what a killed process may still hold."},
		{"acknowledgements", Capture, Error, "acknowledgements are taken one by one, several at once, and never; without them the end of the input ends nothing", "Count Acknowledge.checkpoints, read the input beside the output, and do not wait for acknowledgements to go on."},
		{"too-many-acks", Capture, Warning, "acknowledging more than was sent is an error", "Refuse an Acknowledge of checkpoints that were never sent: the runtime has lost count."},
		{"transactions", Materialize, Error, "transactions run in the protocol's order, and the end of the input behind Acknowledge is a clean end", "Answer Acknowledge, Flush and StartCommit once each, Loaded between Acknowledged and Flushed only, and exit with code 0 when the input ends."},
		{"load", Materialize, Error, "Load gives what was stored last, and nothing for keys that were never stored", "Answer Load with the document as of the last committed transaction; of a binding that cannot, say deltaUpdates."},
		{"many-loads", Materialize, Error, "thousands of loads do not block both sides", "Read requests and write responses from different threads, or hold loads until Flush."},
		{"exactly-once", Materialize, Error, "a materialization that is killed at any step goes on with every transaction stored once", "Commit the runtime's checkpoint with the rows, or stage rows and apply them again at the first Acknowledge, idempotently."},
		{"fence", Materialize, Error, "an older session cannot commit once a newer one was opened", "Lock out older sessions in Open, and check that in the transaction that commits (only where the destination keeps the checkpoint)."},
		{"slow-reader", Any, Error, "an output that nobody reads stops the connector, in bounded memory, and loses nothing", "Bound what waits for the output, and read from the source, or take requests, only as fast as it is taken."},
		{"deletes", Materialize, Error, "a deleted row is gone or marked as deleted, comes back when it is stored again, and may never have been there", "Remove the row of a Store with delete, or store its document as it is; never fail because there is no such row."},
		{"beliefs", Materialize, Error, "what is stored does not depend on whether the runtime believes that it is there (only with x-load-optional)", "Take Store.exists for a hint that may be wrong, also of deletions; or do not say x-load-optional."},
		{"delta-updates", Materialize, Error, "delta updates append every document, whatever its key, each once", "Answer deltaUpdates where the resource asks for it, and append each Store as a row of its own."},
		{"stored", Materialize, Error, "the destination holds what was committed, each row once, as somebody else sees it (--verify)", "Make rows visible with their transaction, all of them, and those of no other."},
		{"log-format", Any, Warning, "the log is JSON lines with a level and a message, when LOG_FORMAT is json", "Write one JSON object a line to standard error, with level, message and ts."},
		{"no-secrets", Any, Error, "no secret of the configuration is in a log line, a response or a state", "Never put the configuration, or a connection string, into a message."},
		{"memory", Any, Warning, "the connector stays below the limit of memory", "Bound buffers by bytes; the usual limit of a container is 1 GiB."},
	}
}

func ruleByID(id string) Rule {
	for _, r := range Rules() {
		if r.ID == id {
			return r
		}
	}
	return Rule{ID: id, Of: Any, Severity: Error}
}

// Table is the rules as a table in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| rule | for | severity | what holds | where it does not |\n|---|---|---|---|---|\n")
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.ID, r.Of, r.Severity, r.Title, r.Fix)
	}
	return b.String()
}
