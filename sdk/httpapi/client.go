// Package httpapi asks HTTP APIs that answer in JSON, for sources that poll them. It knows no API in particular: paths, queries and answers are the
// source's.
package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	// MaxAnswer bounds an answer, in bytes.
	MaxAnswer = 256 << 20
	// maxWait is the longest that an API may ask us to wait.
	maxWait = 5 * time.Minute
)

// Client asks one API. Its fields are set before use; its methods may be called by many goroutines.
type Client struct {
	// URL is where the API begins, such as https://api.example.com/v1.
	URL string
	// Token is sent as a bearer token, if there is one. It is in no error.
	Token schema.Secret
	// HTTP does the asking; nil is a client that gives up after a minute. However it is set up, a redirect from https to http is an error, and the token
	// does not follow a redirect to another host or port.
	HTTP *http.Client
	// Retry says how often and after what time it is asked again where that may help: the API cannot be reached, is overloaded (429), or fails (5xx).
	// Its zero value asks five times within half a minute. A wait that the API names (Retry-After) counts if it is longer.
	Retry retry.Backoff
}

// CheckURL is for Validate: it says what is wrong with where an API begins.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil:
		return usererr.New(nil, "The address of the API at %s has a login in it. Addresses are shown in messages: leave the login out.", u.Host)
	case err != nil && strings.Contains(text, "@"): // it may have a login, so it is not shown
		return usererr.New(nil, "The address of the API is not one. Write it like https://api.example.com/v1, without a login.")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return usererr.New(nil, "The address %q is not one. Write it like https://api.example.com/v1.", text)
	}
	return nil
}

// Get asks for a path, which begins with a slash, with a query, and decodes the answer into what answer points to. Values of the query that
// are empty are left out. Errors are for people, and name the path without the query.
func (c *Client) Get(ctx context.Context, path string, query url.Values, answer any) error {
	address := c.URL + path
	given := url.Values{}
	for name, values := range query {
		if len(values) > 0 && values[0] != "" {
			given[name] = values
		}
	}
	if len(given) > 0 {
		address += "?" + given.Encode()
	}
	backoff := c.Retry
	if backoff == (retry.Backoff{}) {
		backoff = retry.Backoff{Min: time.Second, Max: 15 * time.Second, Attempts: 5}
	}
	for attempt := 1; ; attempt++ {
		wait, err := c.get(ctx, address, path, answer)
		if err == nil || wait < 0 || attempt == backoff.Attempts {
			return err
		}
		t := time.NewTimer(max(wait, backoff.Delay(attempt, rand.Float64())))
		select {
		case <-ctx.Done():
			t.Stop()
			return err
		case <-t.C:
		}
	}
}

// get asks once. Below zero, wait says that asking again does not help.
func (c *Client) get(ctx context.Context, address, path string, answer any) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return -1, usererr.New(err, "The API cannot be asked for %q at the address %q. Check url.", path, c.URL)
	}
	req.Header.Set("Accept", "application/json")
	if token := c.Token.Reveal(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := c.client()
	res, err := client.Do(req)
	if err != nil && ctx.Err() != nil {
		client.CloseIdleConnections() // the one that was being made would be kept, by nobody's wish
	}
	if down, ok := errors.AsType[*downgradeError](err); ok {
		// The cause names the whole address, which may have a secret in its query.
		return -1, usererr.New(nil, "The API at %s sends us on to %s without encryption, where anybody on the way could read what is sent. "+
			"Nothing was sent there. Check url: it may be an old address of the API.", c.URL, down.to)
	}
	if err != nil {
		return 0, usererr.New(err, "The API at %s cannot be reached. Check url, and that this machine may connect there.", c.URL)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		err := usererr.New(nil, "The API at %s answers %s to %q. Check url and token.", c.URL, res.Status, path)
		if res.StatusCode != http.StatusTooManyRequests && res.StatusCode < http.StatusInternalServerError {
			return -1, err
		}
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After"))
		return time.Duration(min(max(seconds, 0), int(maxWait/time.Second))) * time.Second, err
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, MaxAnswer+1))
	if err == nil && len(text) > MaxAnswer {
		return -1, usererr.New(nil, "The API at %s answers more than %d MiB to %q. Ask for smaller pages.", c.URL, MaxAnswer>>20, path)
	}
	if err != nil {
		return 0, usererr.New(err, "The API at %s broke off its answer to %q.", c.URL, path)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		if _, ok := errors.AsType[*json.SyntaxError](err); ok {
			return -1, usererr.New(err, "The API at %s answers %q with something that is not JSON. Check url.", c.URL, path)
		}
		return -1, usererr.New(err, "The API at %s answers %q with JSON of another form than expected: %v.", c.URL, path, err)
	}
	return 0, nil
}

// client is what asks once: [Client.HTTP], as careful with redirects as carefully says.
func (c *Client) client() *http.Client {
	if c.HTTP == nil {
		return &http.Client{Timeout: time.Minute, CheckRedirect: carefully(nil)}
	}
	careful := *c.HTTP // which is its owner's, and may be used by others
	careful.CheckRedirect = carefully(c.HTTP.CheckRedirect)
	return &careful
}

// maxRedirects is how often net/http lets itself be sent on if nobody says otherwise.
const maxRedirects = 10

// downgradeError says that an API sends those who ask it with encryption on to where there is none.
type downgradeError struct{ to string }

func (e *downgradeError) Error() string { return "redirected to " + e.to + " without encryption" }

// carefully is a policy for redirects: never from https to http, not even on the same host; and what is secret goes nowhere but where it was
// meant to go, which is one host and port. (net/http keeps secret headers for other ports and schemes of a host and for its subdomains:
// https://pkg.go.dev/net/http#Client.) What more says, which may be nil, counts besides.
func carefully(more func(*http.Request, []*http.Request) error) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		home := via[0].URL
		if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return &downgradeError{req.URL.Host}
		}
		away := !sameService(req.URL, home)
		for _, before := range via { // net/http starts from the first request's headers each time
			away = away || !sameService(before.URL, home)
		}
		if away {
			for _, name := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
				req.Header.Del(name)
			}
		}
		if more != nil {
			return more(req, via)
		}
		if len(via) >= maxRedirects {
			return errors.New("the API sends us on and on")
		}
		return nil
	}
}

// sameService tells whether two addresses are of one host and port. A host that sends us from its http to its https, at their usual ports,
// is the same.
func sameService(u, home *url.URL) bool {
	if u.Scheme == home.Scheme {
		return u.Host == home.Host
	}
	return u.Scheme == "https" && u.Hostname() == home.Hostname() && (u.Port() == "" || u.Port() == "443") && (home.Port() == "" || home.Port() == "80")
}
