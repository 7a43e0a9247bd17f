// Package live shows a running pipeline to whoever looks: a table that redraws itself on a terminal, log lines
// elsewhere, the status file, and metrics over HTTP.
package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/runtime/status"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// Display shows a board.
type Display struct {
	Board    *status.Board
	Pipeline string
	DataDir  string
	Screen   *Screen // nil on anything but a terminal
	Logger   *logrus.Logger
	// LogEvery is how often progress is logged when there is no screen; zero is 30 seconds.
	LogEvery time.Duration
}

// Run shows the board until the context is over, and then its last state.
func (d *Display) Run(ctx context.Context) {
	if d.LogEvery == 0 {
		d.LogEvery = 30 * time.Second
	}
	sampler := d.Board.Sampler()
	started, logged := time.Now(), time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ended := false; ; {
		now := time.Now()
		snapshot := &status.Snapshot{
			PID: os.Getpid(), Pipeline: d.Pipeline, Started: started, Updated: now, Ended: ended, Tasks: sampler.Sample(),
		}
		if err := status.WriteFile(d.DataDir, snapshot); err != nil {
			d.Logger.WithError(err).Debug("the status file could not be written")
		}
		switch {
		case d.Screen != nil:
			d.Screen.Draw(status.Table(snapshot, now, d.Screen.Width))
		case ended || now.Sub(logged) >= d.LogEvery:
			logged = now
			d.log(snapshot)
		}
		if ended {
			return
		}
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		}
	}
}

// log writes a line for each binding that has done something.
func (d *Display) log(s *status.Snapshot) {
	for _, t := range s.Tasks {
		for _, b := range t.Bindings {
			d.Logger.WithFields(logrus.Fields{
				"task": t.Name, "kind": t.Kind, "state": t.State, "binding": b.Name, "phase": b.Phase, "documents": b.Documents,
				"bytes": b.Bytes, "rate": int(b.Rate + 0.5), "lagSeconds": b.LagSeconds, "lagBytes": b.LagBytes,
			}).Info("progress")
		}
	}
}

// Screen draws lines at the bottom of a terminal, and lets log lines pass above them. It is safe for use by many
// goroutines.
type Screen struct {
	Out   io.Writer
	Width int

	mu    sync.Mutex
	lines []string
}

// Draw replaces the lines.
func (s *Screen) Draw(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.erase(&b)
	s.lines = lines
	s.paint(&b)
	_, _ = s.Out.Write(b.Bytes()) // a terminal that is gone is noticed by the process
}

// Write puts text (log lines) above the drawn lines.
func (s *Screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	s.erase(&b)
	b.Write(text)
	s.paint(&b)
	if _, err := s.Out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// erase moves to the first drawn line and clears from there.
func (s *Screen) erase(b *bytes.Buffer) {
	if len(s.lines) > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r\x1b[J", len(s.lines))
	}
}

func (s *Screen) paint(b *bytes.Buffer) {
	for _, line := range s.lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
}

// Metrics serves a board to Prometheus, and to those who ask whether the pipeline is alive (/healthz) and ready (/readyz), until the context is over. It returns when the address is taken and served, or
// with an error for people.
func Metrics(ctx context.Context, addr string, board *status.Board, logger *logrus.Logger) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return usererr.New(err, "cannot serve metrics on %s: %v", addr, errors.Unwrap(err))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(status.NewCollector(board), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { healthy(w, board) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { ready(w, board) })
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.WithError(err).Error("the metrics server ended")
		}
	}()
	logger.WithField("address", "http://"+listener.Addr().String()+"/metrics").Info("serving metrics")
	return nil
}

// healthy answers once every task could be looked at: a lock that somebody keeps for ever lets the question time out. Tasks that fail are
// no reason to start the process again: it does that with the tasks.
func healthy(w http.ResponseWriter, board *status.Board) {
	board.Snapshot()
	answer(w, http.StatusOK, "alive")
}

// ready says whether every connector has its session open, or waits for its next sweep; else which have not. A process that shares a pipeline is ready without
// any task: it takes what others leave.
func ready(w http.ResponseWriter, board *status.Board) {
	tasks := board.Snapshot()
	if len(tasks) == 0 && !board.Shared() {
		answer(w, http.StatusServiceUnavailable, "not ready: the pipeline is starting")
		return
	}
	var missing []string
	for _, t := range tasks {
		if t.State != status.Running && t.State != status.Waiting {
			missing = append(missing, fmt.Sprintf("the %s %s is %s", t.Kind, t.Name, t.State))
		}
	}
	if len(missing) > 0 {
		answer(w, http.StatusServiceUnavailable, "not ready: "+strings.Join(missing, "; "))
		return
	}
	answer(w, http.StatusOK, "ready")
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // who asked may have gone
}
