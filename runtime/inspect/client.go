package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// client asks the process that has the log open.
type client struct {
	dir  string
	http *http.Client
}

// dial finds the process that uses a data folder; inUse is how it is known that there is one.
func dial(dir string, inUse error) (Log, error) {
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) {
		address, release, err := reachable(dir)
		if err != nil {
			return nil, err
		}
		defer release()
		var d net.Dialer
		return d.DialContext(ctx, "unix", address)
	}
	conn, err := connect(context.Background(), "", "")
	if err != nil {
		return nil, usererr.New(errors.Join(inUse, err), "another process has the log in %s open and does not answer. If it is a sluice run that is starting or stopping, or another "+
			"sluice log, try again; if it is an older version of sluice, stop it first", dir)
	}
	if err := conn.Close(); err != nil {
		return nil, fmt.Errorf("closing a connection: %w", err)
	}
	return &client{dir: dir, http: &http.Client{Transport: &http.Transport{DialContext: connect, DisableKeepAlives: true}}}, nil
}

// Close implements Log.
func (c *client) Close() error { return nil }

// Report implements Log.
func (c *client) Report(ctx context.Context) (*Report, error) {
	report := &Report{}
	err := c.get(ctx, "report", func(r *http.Response) error {
		if err := json.NewDecoder(r.Body).Decode(report); err != nil {
			return c.broken(err)
		}
		return nil
	})
	return report, err
}

// Documents implements Log.
func (c *client) Documents(ctx context.Context, q Query, out io.Writer) error {
	return c.get(ctx, "documents?"+q.values().Encode(), func(r *http.Response) error {
		to := &counter{out: out}
		if _, err := io.Copy(to, r.Body); to.err != nil {
			return fmt.Errorf("writing documents: %w", to.err)
		} else if err != nil {
			return c.broken(err)
		}
		if why := r.Trailer.Get(failure); why != "" {
			return usererr.New(nil, "%s", why)
		}
		return nil
	})
}

func (c *client) get(ctx context.Context, path string, read func(*http.Response) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sluice/"+path, nil)
	if err != nil {
		return fmt.Errorf("asking for the log: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return c.broken(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		why, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
		return usererr.New(err, "%s", strings.TrimSpace(string(why)))
	}
	return read(response)
}

// broken is an answer that ended early.
func (c *client) broken(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return usererr.New(err, "the sluice that runs in %s stopped while it was asked for the log: ask again", c.dir)
}

// longest is the longest path that a socket's address has room for, everywhere.
const longest = 100

// reachable is an address of the folder's socket that is short enough, valid until release is called.
func reachable(dir string) (address string, release func(), err error) {
	address = filepath.Join(dir, socketName)
	if len(address) <= longest {
		return address, func() {}, nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return "", nil, fmt.Errorf("opening the data folder: %w", err)
	}
	// Elsewhere than on Linux this leads nowhere, and the error says so.
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), socketName), func() { _ = folder.Close() }, nil
}
