package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/httpapi"
	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func client(t *testing.T, handle http.HandlerFunc) *httpapi.Client {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return &httpapi.Client{URL: server.URL, Token: schema.NewSecret("hunter2"), HTTP: server.Client(), Retry: retry.Backoff{Min: time.Millisecond, Attempts: 3}}
}

func TestGet(t *testing.T) {
	t.Parallel()
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hunter2" || r.URL.String() != "/list?after=a%26b" {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = w.Write([]byte(`["x"]`))
	})
	var got []string
	require.NoError(t, c.Get(t.Context(), "/list", url.Values{"after": {"a&b"}, "page": {""}}, &got))
	require.Equal(t, []string{"x"}, got)
}

// What may pass is asked again, a bounded number of times; what will not is not.
func TestRetry(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int64{http.StatusTooManyRequests: 3, http.StatusBadGateway: 3, http.StatusUnauthorized: 1, http.StatusNotFound: 1} {
		var asked atomic.Int64
		c := client(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.WriteHeader(status)
		})
		err := c.Get(t.Context(), "/list", url.Values{"key": {"s3cret"}}, nil)
		require.Regexp(t, `^The API at http://\S+ answers \d+ .* to "/list"\. Check url and token\.$`, usererr.Message(err))
		require.NotContains(t, err.Error(), "hunter2")
		require.Equal(t, want, asked.Load(), status)
	}
	var asked atomic.Int64
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = w.Write([]byte(`1`))
	})
	var n int
	began := time.Now()
	require.NoError(t, c.Get(t.Context(), "/", nil, &n))
	require.GreaterOrEqual(t, time.Since(began), time.Second, "the API said how long to wait")
	for _, wait := range []string{"-1", "soon"} { // is none
		asked.Store(0)
		c := client(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			w.Header().Set("Retry-After", wait)
			w.WriteHeader(http.StatusTooManyRequests)
		})
		require.Error(t, c.Get(t.Context(), "/", nil, &n))
		require.Equal(t, int64(3), asked.Load(), wait)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, c.Get(ctx, "/", nil, &n))
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "nowhere", "ftp://x", "http://"} {
		require.ErrorContains(t, httpapi.CheckURL(address), "is not one. Write it like https://api.example.com/v1.")
	}
	require.EqualError(t, httpapi.CheckURL("https://me:s3cret@example.com/x"),
		"The address of the API at example.com has a login in it. Addresses are shown in messages: leave the login out.")
	require.EqualError(t, httpapi.CheckURL("https://me:s3%cret@example.com/x"),
		"The address of the API is not one. Write it like https://api.example.com/v1, without a login.")
	require.NoError(t, httpapi.CheckURL("http://localhost:1/x"))
	answer := func(text string) error {
		var list []string
		return client(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }).Get(t.Context(), "/x", nil, &list)
	}
	require.Regexp(t, `^The API at \S+ answers "/x" with something that is not JSON\. Check url\.$`, usererr.Message(answer("<html>")))
	require.Regexp(t, `^The API at \S+ answers "/x" with JSON of another form than expected: json: cannot unmarshal object .*\.$`, usererr.Message(answer("{}")))
	gone := client(t, nil)
	gone.URL = "http://127.0.0.1:1"
	require.Equal(t, "The API at http://127.0.0.1:1 cannot be reached. Check url, and that this machine may connect there.", usererr.Message(gone.Get(t.Context(), "/", nil, nil)))
	gone.URL = "http://a b"
	require.Equal(t, `The API cannot be asked for "/" at the address "http://a b". Check url.`, usererr.Message(gone.Get(t.Context(), "/", nil, nil)))
}

// The token goes where it was meant to go, and nowhere else that the API sends us; without encryption nothing goes if it began with it.
func TestRedirects(t *testing.T) {
	t.Parallel()
	var seen sync.Map // of what the places were asked with, by path
	place := func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.URL.Path, r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(`"there"`))
	}
	plain := httptest.NewServer(http.HandlerFunc(place))
	t.Cleanup(plain.Close)
	other := httptest.NewTLSServer(http.HandlerFunc(place))
	t.Cleanup(other.Close)
	var to atomic.Value
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/list" {
			http.Redirect(w, r, to.Load().(string), http.StatusTemporaryRedirect)
			return
		}
		place(w, r)
	}))
	t.Cleanup(api.Close)
	ask := func(address string) (string, error) {
		to.Store(address)
		c := &httpapi.Client{URL: api.URL, Token: schema.NewSecret("hunter2"), HTTP: api.Client(), Retry: retry.Backoff{Min: time.Millisecond, Attempts: 3}}
		var answer string
		err := c.Get(t.Context(), "/list", nil, &answer)
		require.Nil(t, api.Client().CheckRedirect, "a client that is given is its owner's")
		return answer, err
	}

	for name, address := range map[string]string{
		"another port of the same host": plain.URL + "/down?key=s3cret", "the same host and port": "http://" + strings.TrimPrefix(api.URL, "https://") + "/down?key=s3cret",
	} {
		_, err := ask(address)
		u, parseErr := url.Parse(address)
		require.NoError(t, parseErr)
		require.Equal(t, "The API at "+api.URL+" sends us on to "+u.Host+" without encryption, where anybody on the way could read what is sent. "+
			"Nothing was sent there. Check url: it may be an old address of the API.", usererr.Message(err), name)
		require.NotContains(t, err.Error(), "s3cret")
	}
	_, asked := seen.Load("/down")
	require.False(t, asked, "nothing is sent without encryption")

	for path, want := range map[string]struct{ address, token string }{
		"/same":  {"/same", "Bearer hunter2"},
		"/other": {other.URL + "/other", ""},
	} {
		answer, err := ask(want.address)
		require.NoError(t, err, path)
		require.Equal(t, "there", answer)
		token, asked := seen.Load(path)
		require.True(t, asked, path)
		require.Equal(t, want.token, token, path)
	}
}

func TestEndlessRedirects(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, "/again", http.StatusFound)
	})
	c.Retry.Attempts = 1
	err := c.Get(t.Context(), "/x", nil, nil)
	require.ErrorContains(t, err, "the API sends us on and on")
	require.Equal(t, int64(10), asked.Load())
}
