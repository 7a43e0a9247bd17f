package process

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// serveProfiles serves Go's profiles on a loopback address until the function that it returns is called.
func serveProfiles(log *logrus.Logger, addr string) (stop func(), err error) {
	host, _, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err != nil || (host != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return nil, usererr.New(err,
			"The environment variable SLUICE_PPROF is %q; it must be a port of this machine, such as 127.0.0.1:6060.", addr)
	}
	listener, err := net.Listen("tcp", addr) //nolint:noctx // lives as long as the process
	if err != nil {
		return nil, fmt.Errorf("listening for profiles: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.WithField("err", err.Error()).Warn("profiles are no longer served")
		}
	}()
	log.WithField("address", listener.Addr().String()).Info("serving profiles")
	return func() { _ = server.Close(); <-done }, nil
}
