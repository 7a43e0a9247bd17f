// Package pipeline reads pipeline files: YAML in the shape of Flow's catalog, with captures, collections and
// materializations. It is strict, since a misspelt name that is ignored costs its author a day: every error names the
// file and the line.
package pipeline

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
)

// A Pipeline is what one file (and the files it refers to) says, checked for everything that can be checked without
// asking a connector.
type Pipeline struct {
	File             string // as given
	Captures         []*Capture
	Collections      map[string]*Collection
	Materializations []*Materialization
	Retention        Retention // of the log
	Kafka            *Kafka    // that is the log; nil for the embedded one
	// Paused are the materializations that are disabled, which nothing runs; those above have the bindings of theirs that are.
	Paused []*Materialization
}

// Find is a materialization of the file, also one that is disabled; nil if there is none of this name.
func (p *Pipeline) Find(materialization string) *Materialization {
	for _, m := range slices.Concat(p.Materializations, p.Paused) {
		if m.Name == materialization {
			return m
		}
	}
	return nil
}

// Retention is how much the log keeps. The zero value is everything.
type Retention struct {
	Time  time.Duration // since the commit; zero is without limit
	Bytes int64         // of documents, in all collections together; zero is without limit
	// DropUnread also drops what a materialization has not read yet, which has to be filled anew then. Otherwise that is kept beyond
	// the limits.
	DropUnread bool
}

// Limited tells whether anything is ever dropped.
func (r *Retention) Limited() bool { return r.Time > 0 || r.Bytes > 0 }

// Endpoint is how a connector is started and configured.
type Endpoint struct {
	Image   string            // of a container; exclusive with Command
	Command []string          // of a local process; Command[0] is a path, or a name to be found on PATH
	Env     map[string]string // added to the process' environment
	Codec   frame.Codec       // of a local process; images say it themselves, unless AskCodec
	Config  json.RawMessage   // the connector's own configuration: may hold secrets, never log it
	Label   string            // what messages call it; "" is the program's or image's name
	// AskCodec has an image asked by its environment to speak Codec, whatever its label says. The image must be here.
	AskCodec bool

	adapter []string // of an endpoint that is to be adapted
}

// Capture reads a system into collections.
type Capture struct {
	Name     string
	Endpoint Endpoint
	Interval time.Duration // the least time between two starts of a connector that ends by itself
	Bindings []CaptureBinding
	Shards   int    // that run side by side, at least one; more than one only with a log on Kafka
	At       string `json:"-"` // file:line
}

// CaptureBinding is one stream of a capture.
type CaptureBinding struct {
	Resource json.RawMessage
	Target   string // a collection
	Backfill uint32 // raise it to capture the stream anew
}

// Collection is a keyed set of documents.
type Collection struct {
	Name        string
	Key         []string // JSON pointers
	Schema      json.RawMessage
	Projections map[string]string // field to JSON pointer, for fields that are not called like their location
	// Depth is the greatest depth in which a materialization takes fields by itself, see Fields. Fields below it are not inferred.
	Depth int
	At    string `json:"-"`
}

// Materialization writes collections into a system.
type Materialization struct {
	Name     string
	Endpoint Endpoint
	Bindings []MaterializationBinding
	Paused   []MaterializationBinding // those that are disabled
	Shards   int                      // as of a capture
	At       string                   `json:"-"`
}

// MaterializationBinding is one collection going into one resource.
type MaterializationBinding struct {
	Resource json.RawMessage
	Source   string // a collection
	Fields   Fields
	Backfill uint32 // raise it to materialize the collection anew
	Priority int32
	At       string `json:"-"`
}

// Fields is what the user wants of a binding's fields.
type Fields struct {
	// Depth is how deep optional fields are taken by themselves: 0 none, 1 the top level. Below zero it is without
	// limit.
	Depth   int
	Require map[string]json.RawMessage // field to its configuration, handed to the connector
	Exclude []string
	GroupBy []string // key fields, if not the collection's key
}

// Options are what Load takes from its surroundings.
type Options struct {
	// Getenv looks up the ${NAME} that stand in endpoint configurations; ok is false for one that is not set.
	Getenv func(name string) (value string, ok bool)
	// Airbyte is the command that is a connector for sources of Airbyte (see [Endpoint.AdaptAirbyte]); without it there can be none.
	Airbyte []string
}

// Kafka is a log that is kept in the topics of a Kafka cluster.
type Kafka struct {
	Brokers     []endpoint.Address
	Credentials kafkalogin.Credentials
	TLS         endpoint.TLS
	Prefix      string // what the names of its topics begin with
	// Partitions and Replication are those of topics that are made; a replication of zero is the brokers' own.
	Partitions, Replication int
	MaxDocument             int64         // bytes that a document may have
	TransactionTimeout      time.Duration // how long the cluster lets a transaction be open
	Compact                 []string      // collections whose topics keep only the last document of each key
	// SessionTimeout is after how long the cluster gives the tasks of a process that is not heard of to others.
	SessionTimeout time.Duration
	Adopt          bool   // topics that exist may be used
	At             string // file:line
}

// String is the cluster, as messages name it.
func (k *Kafka) String() string {
	var hosts []string
	for _, b := range k.Brokers {
		hosts = append(hosts, b.String())
	}
	return "kafka://" + strings.Join(hosts, ",")
}
