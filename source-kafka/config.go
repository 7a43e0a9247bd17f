package main

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-kafka/internal/registry"
)

// config is what users write.
type config struct {
	BootstrapServers string         `json:"bootstrapServers" title:"Bootstrap Servers" desc:"Some of the cluster's brokers, as host:port, separated by commas. The others are learned from them." order:"0"`
	Credentials      credentials    `json:"credentials,omitzero" title:"Credentials" desc:"How to log in." order:"1"`
	TLS              tlsConfig      `json:"tls,omitzero" title:"TLS" desc:"How connections are protected." order:"2"`
	SchemaRegistry   registryConfig `json:"schemaRegistry,omitzero" title:"Schema Registry" desc:"Where the schemas of Avro, Protobuf and JSON Schema records are, if they are in a registry." order:"3"`
	Topics           selection      `json:"topics,omitzero" title:"Topics" desc:"Which topics are discovered." order:"4"`
	StartAt          string         `json:"startAt" title:"Start At" desc:"Where the capture of a topic begins: earliest, latest, or a time such as 2025-03-01T00:00:00Z. Partitions that are added later are always read from their beginning." default:"earliest" order:"5"`
	OnOffsetLoss     string         `json:"onOffsetLoss" title:"On Offset Loss" desc:"What follows when records are gone that were not captured yet, because the topic keeps them for too short a time, was truncated, or was deleted and created again: earliest goes on with the first record that is there, after saying how many were lost; fail ends the capture." default:"earliest" enum:"earliest,fail" order:"6"`
	OnBadMessage     string         `json:"onBadMessage" title:"On Bad Message" desc:"What becomes of a record that cannot be decoded: fail ends the capture; skip leaves it out and says so in the log; deadletter captures its bytes and what is wrong with them." default:"fail" enum:"fail,skip,deadletter" order:"7"`
	Advanced         advanced       `json:"advanced,omitzero" title:"Advanced Options" desc:"Options that most captures leave alone." advanced:"true" order:"8"`
}

type (
	credentials = kafkalogin.Credentials
	tlsConfig   = kafkalogin.TLS
)

type registryConfig struct {
	Endpoint string        `json:"endpoint,omitempty" title:"Endpoint" desc:"The registry's address, such as https://registry.example.com. Empty means that there is none." order:"0"`
	Username string        `json:"username,omitempty" title:"User" desc:"The user, or the API key, if the registry wants one." order:"1"`
	Password schema.Secret `json:"password,omitzero" title:"Password" desc:"The user's password, or the API key's secret." secret:"true" order:"2"`
	RootCert string        `json:"rootCert,omitempty" title:"Root Certificate" desc:"The certificate of the authority that signed the registry's certificate, as PEM text. Empty means the authorities this machine trusts." multiline:"true" order:"3"`
}

type selection struct {
	Include []string `json:"include,omitempty" title:"Include" desc:"The only topics that are discovered; * stands for any characters, ? for one. Empty means all but the cluster's own." order:"0"`
	Exclude []string `json:"exclude,omitempty" title:"Exclude" desc:"Topics that are not discovered." order:"1"`
}

type advanced struct {
	FetchMaxBytes   int    `json:"fetchMaxBytes,omitempty" title:"Fetch Size" desc:"How many bytes of records, compressed, one answer of a broker should have at most. Less is asked for where they unpack to more than twice that. Zero means 4194304, 4 MiB." order:"0"`
	CheckpointEvery string `json:"checkpointEvery,omitempty" title:"Checkpoint Interval" desc:"How long records are gathered for one checkpoint, at most, as long as they come faster than that. Empty means 100ms." order:"1"`
	MetadataEvery   string `json:"metadataEvery,omitempty" title:"Metadata Interval" desc:"How often the cluster is asked for new partitions, and for topics that were deleted or created again. Empty means 30s." order:"2"`
	StatusEvery     string `json:"statusEvery,omitempty" title:"Status Interval" desc:"How often the capture says in its log how far it is. Empty means 1m." order:"3"`
	ReadTimeout     string `json:"readTimeout,omitempty" title:"Read Timeout" desc:"How long no broker may answer before the capture ends and is started again. Empty means 2m." order:"4"`
	SkipSamples     bool   `json:"skipSamples,omitempty" title:"Skip Samples" desc:"Discovery reads no records. Otherwise it reads a few of the newest of each topic, to find schemas whose subjects do not name the topic, and the members of JSON without a schema." order:"5"`
}

// The choices of startAt, onOffsetLoss and onBadMessage.
const (
	startEarliest = "earliest"
	startLatest   = "latest"

	lossEarliest = "earliest"
	lossFail     = "fail"

	badFail       = "fail"
	badSkip       = "skip"
	badDeadletter = "deadletter"
)

const (
	defaultPort            = 9092
	defaultFetchMaxBytes   = 4 << 20
	defaultCheckpointEvery = 100 * time.Millisecond
	defaultMetadataEvery   = 30 * time.Second
	defaultStatusEvery     = time.Minute
	defaultReadTimeout     = 2 * time.Minute
)

// resource is what users write for one binding.
type resource struct {
	Topic       string   `json:"topic" title:"Topic" desc:"The topic's name." x-collection-name:"true" order:"0"`
	KeyFormat   string   `json:"keyFormat,omitempty" title:"Key Format" desc:"How keys of records are read. Empty means auto: by their schema in the registry, or as text if they have none." enum:",auto,json,avro,protobuf,json-schema,string,bytes,csv" order:"1"`
	ValueFormat string   `json:"valueFormat,omitempty" title:"Value Format" desc:"How values of records are read. Empty means auto: by their schema in the registry, or as JSON if they have none." enum:",auto,json,avro,protobuf,json-schema,string,bytes,csv" order:"2"`
	Key         []string `json:"key,omitempty" title:"Key" desc:"JSON pointers to what identifies a document, such as /_key/id or /order/id; the same as the collection's key. Empty means whatever the collection's key is." order:"3"`
}

// Validate checks what types cannot.
func (r resource) Validate() error {
	var errs []error
	if r.Topic == "" {
		errs = append(errs, usererr.New(nil, "Enter the topic's name."))
	}
	for _, ptr := range r.Key {
		if !strings.HasPrefix(ptr, "/") {
			errs = append(errs, usererr.New(nil, "The key %q of topic %s is no JSON pointer. Write it like /_key or /order/id.", ptr, r.Topic))
		}
	}
	return usererr.Join("The resource has these problems:", errs)
}

// Validate checks what types cannot. It reports every problem at once.
func (c config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	if _, err := c.brokers(); err != nil {
		errs = append(errs, err)
	}
	if _, err := parseStart(c.StartAt); err != nil {
		problem("The start %q is neither earliest, nor latest, nor a time such as 2025-03-01T00:00:00Z.", c.StartAt)
	}
	for _, choice := range []struct {
		name, value string
		of          []string
	}{
		{"onOffsetLoss", c.OnOffsetLoss, []string{lossEarliest, lossFail}},
		{"onBadMessage", c.OnBadMessage, []string{badFail, badSkip, badDeadletter}},
	} {
		if choice.value != "" && !slices.Contains(choice.of, choice.value) {
			problem("The choice %q of %s does not exist. Choose from %s.", choice.value, choice.name, strings.Join(choice.of, ", "))
		}
	}
	for _, glob := range slices.Concat(c.Topics.Include, c.Topics.Exclude) {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			problem("The pattern %q of topics cannot be used. Write a name in which * stands for any characters.", glob)
		}
	}
	errs = append(errs, c.Credentials.Problems()...)
	errs = append(errs, c.endpointTLS().Validate())
	errs = append(errs, c.SchemaRegistry.problems()...)
	return usererr.Join("The configuration has these problems:", append(errs, c.Advanced.problems()...))
}

func (r registryConfig) problems() []error {
	if r.Endpoint == "" {
		if r.Username != "" || !r.Password.IsZero() || r.RootCert != "" {
			return []error{usererr.New(nil, "The schema registry has no address. Enter it in schemaRegistry.endpoint.")}
		}
		return nil
	}
	if u, err := url.Parse(r.Endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return []error{usererr.New(nil, "The schema registry's address %q is not one such as https://registry.example.com.", kafkalogin.Redacted(u, r.Endpoint))}
	} else if u.User != nil {
		return []error{usererr.New(nil, "The schema registry's address %q holds a login, and addresses are shown in logs. Enter it in schemaRegistry.username and schemaRegistry.password.", u.Redacted())}
	} else if !r.Password.IsZero() && !kafkalogin.Private(u) {
		return []error{usererr.New(nil, "The schema registry at %q would be sent the password in clear text. Use an address that begins with https://.", r.Endpoint)}
	}
	if err := r.tls().Validate(); err != nil {
		return []error{usererr.New(err, "The certificate in schemaRegistry.rootCert cannot be used: %s", usererr.Message(err))}
	}
	return nil
}

func (r registryConfig) tls() endpoint.TLS { return endpoint.TLS{RootCert: r.RootCert} }

// client is one of the registry; nil if there is none. It connects when it is first asked.
func (r registryConfig) client() (*registry.Client, error) {
	if r.Endpoint == "" {
		return nil, nil //nolint:nilnil // no registry
	}
	u, err := url.Parse(r.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("parsing the registry's address: %w", err)
	}
	settings, err := r.tls().Config(u.Hostname())
	if err != nil {
		return nil, err
	}
	return registry.New(registry.Options{URLs: []string{r.Endpoint}, User: r.Username, Password: r.Password, TLS: settings})
}

func (a advanced) problems() []error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	if a.FetchMaxBytes != 0 && (a.FetchMaxBytes < 1<<16 || a.FetchMaxBytes > 1<<28) {
		problem("The fetch size must be between 65536 and 268435456 bytes, not %d.", a.FetchMaxBytes)
	}
	for _, d := range []struct {
		name, value string
		least       time.Duration
	}{
		{"checkpoint interval", a.CheckpointEvery, 0},
		{"metadata interval", a.MetadataEvery, time.Second},
		{"status interval", a.StatusEvery, time.Second},
		{"read timeout", a.ReadTimeout, 5 * time.Second},
	} {
		if d.value == "" {
			continue
		}
		if v, err := time.ParseDuration(d.value); err != nil || v < d.least {
			problem("The %s %q is not a duration of at least %v. Write it like 30s or 2m.", d.name, d.value, d.least)
		}
	}
	return errs
}

// duration is a duration of a valid configuration.
func duration(s string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(s); err == nil {
		return d
	}
	return otherwise
}

// brokers are the bootstrap servers.
func (c config) brokers() ([]endpoint.Address, error) {
	var all []endpoint.Address
	var errs []error
	for one := range strings.SplitSeq(c.BootstrapServers, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		addr, err := endpoint.ParseAddress(one, defaultPort)
		errs = append(errs, err)
		all = append(all, addr)
	}
	if len(all) == 0 {
		errs = append(errs, usererr.New(nil, "Enter some of the cluster's brokers, such as broker1.example.com:9092,broker2.example.com:9092."))
	}
	return all, usererr.Join("The bootstrap servers have these problems:", errs)
}

// endpointTLS is how connections are protected. Without a word from the user that is verify-full, except that a cluster on
// this machine, for which nothing about certificates was said, is reached in plain text.
func (c config) endpointTLS() endpoint.TLS {
	all, err := c.brokers()
	if err != nil {
		all = nil
	}
	return c.TLS.Settings(all)
}

// start is where the capture of a topic begins.
type start struct {
	latest bool
	at     time.Time // zero for the beginning, and for latest
}

func parseStart(s string) (start, error) {
	switch s {
	case "", startEarliest:
		return start{}, nil
	case startLatest:
		return start{latest: true}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return start{}, fmt.Errorf("parsing the start %q: %w", s, err)
	}
	return start{at: at}, nil
}
