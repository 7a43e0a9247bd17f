// Package registry reads schemas from a Schema Registry over its HTTP API (Confluent's, which Redpanda, Karapace and Apicurio
// speak as well), and keeps what it read: a schema id never changes its meaning.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// ErrNotFound is the registry's clear answer that it has no such schema, subject or version.
var ErrNotFound = errors.New("the schema registry does not have it")

// Options say where the registry is. URLs is required.
type Options struct {
	// URLs are the addresses of one registry, tried in order until one answers: https://host:8081.
	URLs []string
	// User and Password are sent by HTTP's basic authentication unless both are empty.
	User     string
	Password schema.Secret
	// TLS is how https is verified; nil takes the system's authorities.
	TLS *tls.Config
	// Context is the registry's namespace of subjects and ids: ".staging"; empty means the default one.
	Context string
	// Timeout bounds one request; 0 means 30 s.
	Timeout time.Duration
	// Retry bounds how often a request is sent, and the pauses between; the zero value means 5 times, from 200 ms to 3 s.
	Retry retry.Backoff
}

// protected refuses to send a password in the clear to another machine.
func (o Options) protected() error {
	if o.Password.IsZero() {
		return nil
	}
	for _, address := range o.URLs {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "http" {
			continue
		}
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return usererr.New(nil, "The password would be sent to the schema registry at %s in the clear. "+
				"Use its https address in schemaRegistry.endpoint.", u.Redacted())
		}
	}
	return nil
}

// Client reads one registry. It may be used from any goroutine and holds every schema that was asked for; Close releases its
// connections.
type Client struct {
	api     *sr.Client
	http    *http.Transport
	address string
	retry   retry.Backoff
	context string

	mu    sync.Mutex
	byID  map[int]*entry
	byRef map[string]*entry // GUID or subject/version
}

// entry is one schema, being read by its first caller while others wait for ready.
type entry struct {
	ready  chan struct{}
	schema *Schema
	err    error
}

// New prepares a client and speaks to nobody.
func New(opts Options) (*Client, error) {
	if len(opts.URLs) == 0 {
		return nil, usererr.New(nil, "The schema registry has no address. Set schemaRegistry.endpoint, like https://registry:8081.")
	}
	if err := opts.protected(); err != nil {
		return nil, err
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.Retry == (retry.Backoff{}) {
		opts.Retry = retry.Backoff{Min: 200 * time.Millisecond, Max: 3 * time.Second, Attempts: 5}
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:     opts.TLS,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 4,
		ForceAttemptHTTP2:   true,
	}
	set := []sr.ClientOpt{
		sr.URLs(opts.URLs...),
		sr.HTTPClient(&http.Client{Transport: transport, Timeout: opts.Timeout}),
		sr.UserAgent("sluice"),
	}
	if opts.User != "" || opts.Password.Reveal() != "" {
		set = append(set, sr.BasicAuth(opts.User, opts.Password.Reveal()))
	}
	if opts.Context != "" {
		set = append(set, sr.DefaultSchemaContext(opts.Context))
	}
	api, err := sr.NewClient(set...)
	if err != nil {
		return nil, usererr.New(err, "The address of the schema registry, %q, cannot be used. It looks like https://registry:8081.", opts.URLs[0])
	}
	return &Client{
		api: api, http: transport, address: opts.URLs[0], retry: opts.Retry, context: opts.Context,
		byID: map[int]*entry{}, byRef: map[string]*entry{},
	}, nil
}

// Close releases idle connections. The client must not be used any more.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address is the registry's first address, for messages.
func (c *Client) Address() string { return c.address }

// InContext is a subject's name without its context, and whether that is the client's: registries list those of all.
func (c *Client) InContext(subject string) (string, bool) {
	rest, qualified := strings.CutPrefix(subject, ":.")
	if !qualified {
		return subject, true // of the default context, or of a registry that leaves the asked one out
	}
	name, plain, ok := strings.Cut(rest, ":")
	if !ok {
		return subject, false
	}
	return plain, "."+name == c.context || (name == "" && c.context == "")
}

// Check asks for the subjects, which needs the address, the certificate, the login and the right to read.
func (c *Client) Check(ctx context.Context) error {
	_, err := c.Subjects(ctx)
	return err
}

// Subjects are the names of all subjects that are not deleted.
func (c *Client) Subjects(ctx context.Context) ([]string, error) {
	var names []string
	err := c.call(ctx, func(ctx context.Context) (err error) {
		names, err = c.api.Subjects(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the registry's subjects: %w", err)
	}
	return names, nil
}

// Versions are the schemas of a subject, oldest first, with what they refer to. Deleted versions are among them: records
// that were written with them are still in the topic.
func (c *Client) Versions(ctx context.Context, subject string) ([]*Schema, error) {
	ctx = sr.WithParams(ctx, sr.ShowDeleted)
	var numbers []int
	err := c.call(ctx, func(ctx context.Context) (err error) {
		numbers, err = c.api.SubjectVersions(ctx, subject)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the versions of subject %q: %w", subject, err)
	}
	all := make([]*Schema, 0, len(numbers))
	for _, n := range numbers {
		s, err := c.version(ctx, subject, n, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Schema is the schema of an id, with what it refers to. It is read once; ErrNotFound is not remembered, since the registry
// that answered may be behind the one where it was registered.
func (c *Client) Schema(ctx context.Context, id int) (*Schema, error) {
	return fetch(ctx, c, c.byID, id, func(ctx context.Context) (*Schema, error) {
		var answer sr.Schema
		err := c.call(ctx, func(ctx context.Context) (err error) {
			answer, err = c.api.SchemaByID(ctx, id)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading schema %d: %w", id, err)
		}
		return c.resolve(ctx, &Schema{ID: id}, answer, nil)
	})
}

// SchemaByGUID is the schema of a GUID, as newer clients write it into a header of the record.
func (c *Client) SchemaByGUID(ctx context.Context, guid string) (*Schema, error) {
	return fetch(ctx, c, c.byRef, guid, func(ctx context.Context) (*Schema, error) {
		var answer sr.SubjectSchema
		err := c.call(ctx, func(ctx context.Context) (err error) {
			answer, err = c.api.SchemaByGUID(ctx, guid)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading schema %s: %w", guid, err)
		}
		return c.resolve(ctx, &Schema{ID: answer.ID, GUID: guid}, answer.Schema, nil)
	})
}

// version reads one version of a subject. path are the subjects on the way to it, to find circles.
func (c *Client) version(ctx context.Context, subject string, version int, path []string) (*Schema, error) {
	name := fmt.Sprintf("%s/%d", subject, version)
	if slices.Contains(path, name) {
		return nil, fmt.Errorf("reading subject %q version %d: its references lead back to it", subject, version)
	}
	return fetch(ctx, c, c.byRef, name, func(ctx context.Context) (*Schema, error) {
		var answer sr.SubjectSchema
		err := c.call(sr.WithParams(ctx, sr.ShowDeleted), func(ctx context.Context) (err error) {
			answer, err = c.api.SchemaByVersion(ctx, subject, version)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading subject %q version %d: %w", subject, version, err)
		}
		s := &Schema{ID: answer.ID, GUID: answer.GUID, Subject: subject, Version: answer.Version}
		return c.resolve(ctx, s, answer.Schema, append(path, name))
	})
}

// resolve fills s from the registry's answer and reads what it refers to.
func (c *Client) resolve(ctx context.Context, s *Schema, answer sr.Schema, path []string) (*Schema, error) {
	switch answer.Type {
	case sr.TypeAvro:
		s.Type = Avro
	case sr.TypeProtobuf:
		s.Type = Protobuf
	case sr.TypeJSON:
		s.Type = JSON
	default:
		return nil, fmt.Errorf("the registry calls the type of schema %d %v, which is none of Avro, Protobuf and JSON", s.ID, answer.Type)
	}
	s.Text = answer.Schema
	for _, ref := range answer.References {
		to, err := c.version(ctx, ref.Subject, ref.Version, path)
		if err != nil {
			return nil, err
		}
		s.References = append(s.References, Reference{Name: ref.Name, Schema: to})
	}
	return s, nil
}

// fetch returns what read gives for key, asking once however many callers there are. Failures are not kept.
func fetch[K comparable](
	ctx context.Context, c *Client, cache map[K]*entry, key K, read func(context.Context) (*Schema, error),
) (*Schema, error) {
	for {
		c.mu.Lock()
		e, ok := cache[key]
		if !ok {
			e = &entry{ready: make(chan struct{})}
			cache[key] = e
		}
		c.mu.Unlock()
		if !ok {
			e.schema, e.err = read(ctx)
			if e.err != nil {
				c.mu.Lock()
				delete(cache, key)
				c.mu.Unlock()
			}
			close(e.ready)
			return e.schema, e.err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.ready:
		}
		// The one who read may have been cancelled; that is no answer for us.
		if e.err == nil || !errors.Is(e.err, context.Canceled) {
			return e.schema, e.err
		}
	}
}

// call sends a request until it is answered, and gives its error a meaning.
func (c *Client) call(ctx context.Context, request func(context.Context) error) error {
	err := c.retry.Do(ctx, func(ctx context.Context) error { return c.meaning(ctx, request(ctx)) }, isUnavailable)
	return err
}
