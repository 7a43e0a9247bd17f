package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// gate stands before an object store and strikes at one request: before it goes through, or when it was answered and the
// answer is about to be passed on.
type gate struct {
	proxy *httputil.ReverseProxy

	mu     sync.Mutex
	count  int
	at     int // -1 for never
	after  bool
	strike func()
	seen   []string
}

func newGate(t *testing.T, store string) (*gate, string) {
	t.Helper()
	target, err := url.Parse(store)
	require.NoError(t, err)
	g := &gate{at: -1, proxy: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
		r.Out.Host = r.In.Host // the signature covers it
	}}}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, s.URL
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	now := g.count == g.at
	g.count++
	after, strike := g.after, g.strike
	g.seen = append(g.seen, r.Method+" "+r.URL.RawQuery)
	g.mu.Unlock()
	if now && !after {
		strike()
		return
	}
	if !now {
		g.proxy.ServeHTTP(w, r)
		return
	}
	g.proxy.ServeHTTP(httptest.NewRecorder(), r)
	strike()
}

// arm has the gate strike at the nth request from now on.
func (g *gate) arm(at int, after bool, strike func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count, g.at, g.after, g.strike, g.seen = 0, at, after, strike, nil
}

func (g *gate) requests() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

func partitioned() sinktest.Collection {
	return sinktest.Collection{Name: "acme/t", Columns: []sinktest.Column{
		{Name: "id", Types: []string{"integer"}, Key: true},
		{Name: "region", Types: []string{"string"}, Key: true},
		{Name: "size", Types: []string{"integer"}, May: true},
	}}
}

// TestKilledAtEveryRequest kills the connector at every request to the object store, before the store sees it and after the
// store has answered it. Whatever the moment, every row is there once, and nothing unfinished stays behind.
func TestKilledAtEveryRequest(t *testing.T) {
	t.Parallel()
	t.Run("uploads", func(t *testing.T) { t.Parallel(); killedAtEveryRequest(t, newBucketGround(t)) })
	t.Run("objects", func(t *testing.T) { t.Parallel(); killedAtEveryRequest(t, newObjectsGround(t)) })
}

func killedAtEveryRequest(t *testing.T, ground ground) {
	t.Helper()
	gate, endpoint := newGate(t, ground.s3.Endpoint())
	c := ground.sinkCase()
	c.Config = ground.config(func(c map[string]any) { c["endpoint"] = endpoint })

	run := func(name string, at int, after bool) int {
		r := sinktest.NewRuntime(t, c, frame.Proto, sinktest.Task{Name: "acme/" + name, Config: c.Config, Bindings: []sinktest.Binding{{
			Collection: partitioned(), Resource: json.RawMessage(fmt.Sprintf(`{"path":%q,"partitionBy":["region"]}`, name)),
		}}})
		r.Batch = 4
		for i := range 12 {
			r.Log = append(r.Log, sinktest.Change{Doc: fmt.Sprintf(`{"id":%d,"region":"r%d","size":%d}`, i, i%2, i)})
		}
		gate.arm(-1, false, nil)
		r.MustApply()
		current := make(chan *sinktest.Peer, 1)
		r.Step = func(p *sinktest.Peer, step string) {
			if step == "start" {
				select {
				case <-current:
				default:
				}
				current <- p
			}
		}
		gate.arm(at, after, func() {
			p := <-current
			p.KillOnly()
		})
		for attempt := 0; ; attempt++ {
			err := r.Run()
			if err == nil {
				break
			}
			require.True(t, sinktest.ErrKilled(err), "%s: %v", name, err)
			require.Less(t, attempt, 2, name)
		}
		n := gate.requests()
		r.RequireTable(t, 0, name, false)
		return n
	}
	total := run("undisturbed", -1, false)
	require.Greater(t, total, 20)
	for at := range total {
		for _, after := range []bool{false, true} {
			run(fmt.Sprintf("killed_at_%d_%v", at, after), at, after)
		}
	}
	// The session that finished the last transaction may have left what an earlier attempt at a later one had begun; nothing is
	// left of attempts at committed ones.
	if ground.s3.Kind() != server.MinIO { // which forgets an upload that it was interrupted at completing, until it is a day old
		require.Empty(t, ground.drafts(t))
	}
}
