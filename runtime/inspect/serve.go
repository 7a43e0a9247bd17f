package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/wal"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// socketName is that of the socket in the data folder by which other processes ask the one that has the log open. Nobody but the
// folder's owner gets there.
const socketName = "log.sock"

// failure is the trailer that says why documents end early.
const failure = "Sluice-Failure"

// Server answers questions about a log that this process has open.
type Server struct {
	log    Log
	server *http.Server
	socket string
	done   chan struct{}

	mu     sync.RWMutex // held by whoever reads the log
	closed bool
}

// Serve answers questions about the log of a data folder until it is closed, which must be before the log is.
func Serve(ctx context.Context, dir string, log wal.Engine, logger *logrus.Logger) (*Server, error) {
	s := &Server{log: &folder{log}, socket: filepath.Join(dir, socketName), done: make(chan struct{})}
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a process that was killed
		return nil, fmt.Errorf("removing an old socket: %w", err)
	}
	address, release, err := reachable(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", address)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", s.socket, err)
	}
	if l, ok := listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // by an address that leads nowhere then
	}
	if err := os.Chmod(s.socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("making %s private: %w", s.socket, err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/report", s.guarded(s.report))
	mux.HandleFunc("/documents", s.guarded(s.documents))
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.WithError(err).Warn("the log cannot be looked at any more while this runs")
		}
	}()
	return s, nil
}

// Close ends what is being answered, and returns when nobody reads the log any more.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.done
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return errors.Join(err, os.Remove(s.socket))
}

// guarded keeps the log open while a request is answered.
func (s *Server) guarded(answer func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		if s.closed {
			return // nobody listens
		}
		if err := answer(w, r); err != nil {
			http.Error(w, usererr.Message(err), http.StatusBadRequest)
		}
	}
}

func (s *Server) report(w http.ResponseWriter, r *http.Request) error {
	report, err := s.log.Report(r.Context())
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(report)
}

// documents streams. An error before the first of them is an error's answer, a later one stands in the trailer.
func (s *Server) documents(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		return err
	}
	out := &counter{out: w}
	w.Header().Set("Trailer", failure)
	if err = s.log.Documents(r.Context(), q, out); err == nil || out.written == 0 {
		return err
	}
	w.Header().Set(failure, usererr.Message(err))
	return nil
}

// counter notes how much was written, and why no more could be.
type counter struct {
	out     io.Writer
	written int
	err     error
}

func (c *counter) Write(p []byte) (n int, err error) {
	n, err = c.out.Write(p)
	c.written += n
	c.err = err
	return n, err
}

func (q Query) values() url.Values {
	return url.Values{
		"collection": {q.Collection}, "limit": {strconv.Itoa(q.Limit)},
		"from": {q.From.Format(time.RFC3339Nano)}, "to": {q.To.Format(time.RFC3339Nano)},
	}
}

func parseQuery(v url.Values) (q Query, err error) {
	q.Collection = v.Get("collection")
	var errs [3]error
	q.Limit, errs[0] = strconv.Atoi(v.Get("limit"))
	q.From, errs[1] = time.Parse(time.RFC3339Nano, v.Get("from"))
	q.To, errs[2] = time.Parse(time.RFC3339Nano, v.Get("to"))
	return q, errors.Join(errs[:]...)
}
