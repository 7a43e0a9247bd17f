package registry

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// quick retries without long pauses.
var quick = retry.Backoff{Min: time.Millisecond, Max: time.Millisecond, Attempts: 3}

func client(t *testing.T, opts Options) *Client {
	opts.Retry = quick
	c, err := New(opts)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// register puts a schema into a registry and returns its id.
func register(t *testing.T, url, subject string, s sr.Schema) int {
	api, err := sr.NewClient(sr.URLs(url))
	require.NoError(t, err)
	answer, err := api.CreateSchema(t.Context(), subject, s)
	require.NoError(t, err)
	return answer.ID
}

func TestSchemasAreReadOnce(t *testing.T) {
	t.Parallel()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	var asked atomic.Int32
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false })
	base := register(t, fake.URL(), "base", sr.Schema{Schema: `{"type":"fixed","name":"F","size":1}`})
	id := register(t, fake.URL(), "top", sr.Schema{
		Schema:     `{"type":"record","name":"R","fields":[{"name":"f","type":"F"}]}`,
		References: []sr.SchemaReference{{Name: "F", Subject: "base", Version: 1}},
	})
	c := client(t, Options{URLs: []string{fake.URL()}})
	asked.Store(0)
	for range 3 {
		s, err := c.Schema(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, Avro, s.Type)
		require.Len(t, s.References, 1)
		require.Equal(t, base, s.References[0].Schema.ID)
		require.Equal(t, "F", s.References[0].Name)
	}
	require.EqualValues(t, 2, asked.Load(), "the schema, and what it refers to")
	all, err := c.Versions(t.Context(), "top")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, id, all[0].ID)
	names, err := c.Subjects(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"base", "top"}, names)

	_, err = c.Schema(t.Context(), 99)
	require.ErrorIs(t, err, ErrNotFound)
	require.False(t, IsUnavailable(err))
	_, err = c.Versions(t.Context(), "nobody")
	require.ErrorIs(t, err, ErrNotFound)
}

func TestDeletedVersionsAreStillRead(t *testing.T) {
	t.Parallel()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	first := register(t, fake.URL(), "s", sr.Schema{Schema: `{"type":"record","name":"R","fields":[]}`})
	api, err := sr.NewClient(sr.URLs(fake.URL()))
	require.NoError(t, err)
	_, err = api.DeleteSubject(t.Context(), "s", sr.SoftDelete)
	require.NoError(t, err)
	c := client(t, Options{URLs: []string{fake.URL()}})
	all, err := c.Versions(t.Context(), "s")
	require.NoError(t, err)
	require.Len(t, all, 1)
	require.Equal(t, first, all[0].ID)
}

// TestWhatTheRegistryAnswers holds the text that users see for everything that a registry, or what is there instead of it,
// can answer.
func TestWhatTheRegistryAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status      int
		body        string
		want        string // of Message, behind the address
		unavailable bool
		requests    int32
	}{
		"wrong password": {401, `{"error_code":401,"message":"Unauthorized"}`, " does not accept the user and password. Check schemaRegistry.username and schemaRegistry.password.", false, 1},
		"no right":       {403, `{"error_code":40301,"message":"denied"}`, " does not let this user read schemas. Give it the right to read the subjects of the captured topics.", false, 1},
		"other path":     {404, `<html>`, " does not know a path of the schema registry's API. Check schemaRegistry.endpoint, its path included: Apicurio, for example, has the API below /apis/ccompat/v7.", false, 1},
		"other API":      {404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, " does not know a path of the schema registry's API.", false, 1},
		"broken":         {500, `{"error_code":50001,"message":"store"}`, " cannot answer now (HTTP status 500).", true, 3},
		"starting":       {503, ``, " cannot answer now (HTTP status 503).", true, 3},
		"too fast":       {429, ``, " cannot answer now (HTTP status 429).", true, 3},
		"refused":        {422, `{"error_code":42201,"message":"no"}`, " refuses the request with HTTP status 422: no", false, 1},
		"a page":         {200, `<html>`, " cannot be understood. Check schemaRegistry.endpoint.", false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked.Add(1)
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			t.Cleanup(server.Close)
			err := client(t, Options{URLs: []string{server.URL}, User: "u", Password: schema.NewSecret("s3cret")}).Check(t.Context())
			require.Contains(t, usererr.Message(err), server.URL+c.want)
			require.NotContains(t, err.Error(), "s3cret")
			require.Equal(t, c.unavailable, IsUnavailable(err))
			require.Equal(t, c.requests, asked.Load())
		})
	}
}

func TestRegistriesThatCannotBeReached(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	err := client(t, Options{URLs: []string{closed.URL}}).Check(t.Context())
	require.Equal(t, "The schema registry at "+closed.URL+" does not answer. Check schemaRegistry.endpoint, "+
		"and that this machine may connect to it.", usererr.Message(err))
	require.True(t, IsUnavailable(err))

	err = client(t, Options{URLs: []string{"http://registry.invalid:8081"}}).Check(t.Context())
	require.Contains(t, usererr.Message(err), `The name of the schema registry's host, "registry.invalid", is not known here.`)

	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	err = client(t, Options{URLs: []string{secure.URL}}).Check(t.Context())
	require.Contains(t, usererr.Message(err), "is not signed by an authority that is trusted here. Set schemaRegistry.rootCert")
	require.False(t, IsUnavailable(err))

	_, err = New(Options{})
	require.EqualError(t, err, "The schema registry has no address. Set schemaRegistry.endpoint, like https://registry:8081.")
}

func TestPasswordsAreNotSentInTheClear(t *testing.T) {
	t.Parallel()
	_, err := New(Options{URLs: []string{"http://registry.example.com:8081"}, User: "u", Password: schema.NewSecret("s3cret")})
	require.EqualError(t, err, "The password would be sent to the schema registry at http://registry.example.com:8081 in the clear. "+
		"Use its https address in schemaRegistry.endpoint.")
	for _, address := range []string{"https://registry.example.com", "http://localhost:8081", "http://[::1]:8081"} {
		_, err := New(Options{URLs: []string{address}, User: "u", Password: schema.NewSecret("s3cret")})
		require.NoError(t, err, address)
	}
}

func TestSubjectsOfContexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		context, subject, plain string
		ok                      bool
	}{
		{"", "orders-value", "orders-value", true},
		{"", ":.staging:orders-value", "orders-value", false},
		{"", ":.:orders-value", "orders-value", true},
		{".staging", ":.staging:orders-value", "orders-value", true},
		{".staging", "orders-value", "orders-value", true},
		{".staging", ":.other:orders-value", "orders-value", false},
	} {
		plain, ok := client(t, Options{URLs: []string{"http://localhost"}, Context: c.context}).InContext(c.subject)
		require.Equal(t, c.ok, ok, "%q in %q", c.subject, c.context)
		require.Equal(t, c.plain, plain)
	}
}

func TestLoginAndContext(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "u" || password != "p" || r.URL.Path != "/base/contexts/.staging/subjects" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`["s"]`))
	}))
	t.Cleanup(server.Close)
	c := client(t, Options{URLs: []string{server.URL + "/base/"}, User: "u", Password: schema.NewSecret("p"), Context: ".staging"})
	names, err := c.Subjects(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"s"}, names)
}

func TestTheSecondAddressAnswers(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	require.NoError(t, client(t, Options{URLs: []string{closed.URL, fake.URL()}}).Check(t.Context()))
}

// TestOneRequestForManyCallers: a schema is asked for once, and who gives up does not take it from the others.
func TestOneRequestForManyCallers(t *testing.T) {
	t.Parallel()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	id := register(t, fake.URL(), "s", sr.Schema{Schema: `"int"`})
	c := client(t, Options{URLs: []string{fake.URL()}})
	var asked atomic.Int32
	first, release := make(chan struct{}), make(chan struct{})
	fake.Intercept(func(http.ResponseWriter, *http.Request) bool {
		if asked.Add(1) == 1 {
			close(first)
			<-release
		}
		return false
	})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.Schema(ctx, id)
		gone <- err
	}()
	<-first
	answers := make(chan error, 8)
	for range cap(answers) {
		go func() {
			_, err := c.Schema(t.Context(), id)
			answers <- err
		}()
	}
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	close(release)
	for range cap(answers) {
		require.NoError(t, <-answers)
	}
	require.EqualValues(t, 2, asked.Load())
}
