package sinktest

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
	"github.com/sluicedata/sluice/sdk/tuple"
)

// outOfOrder breaks the protocol in every way that a runtime could: each must end in an error that names what was wrong,
// never in a hang or in a commit.
func (s suite) outOfOrder(t *testing.T) {
	r := s.runtime(t, s.c.Config, "order", s.binding(basic("acme/t"), "disorder", false), s.binding(basic("acme/t"), "disorder_history", true))
	r.MustApply()
	packed := tuple.AppendString(tuple.AppendInt(nil, 1), "x")
	values := tuple.AppendNil(tuple.AppendNil(tuple.AppendNil(nil)))
	ack := &materializepb.Request{Acknowledge: &materializepb.Request_Acknowledge{}}
	load := &materializepb.Request{Load: &materializepb.Request_Load{KeyPacked: packed}}
	flush := &materializepb.Request{Flush: &materializepb.Request_Flush{}}
	store := func(change func(*materializepb.Request_Store)) *materializepb.Request {
		m := &materializepb.Request_Store{KeyPacked: packed, ValuesPacked: values, DocJson: []byte(`{"id":1,"region":"x"}`)}
		if change != nil {
			change(m)
		}
		return &materializepb.Request{Store: m}
	}
	for _, c := range []struct {
		name     string
		requests []*materializepb.Request
		end      bool // the stream ends behind them
		text     string
		// authoritative says that only a destination that keeps the position can object.
		authoritative bool
		// loads says that only a destination that is asked for keys can object like this.
		loads bool
	}{
		{"load before acknowledge", []*materializepb.Request{load}, false, "expects Acknowledge", false, false},
		{"store while loading", []*materializepb.Request{ack, store(nil)}, false, "expects Load or Flush", false, false},
		{"load after flush", []*materializepb.Request{ack, nil, flush, load}, false, "expects Store or StartCommit", false, false},
		{"acknowledge twice", []*materializepb.Request{ack, nil, ack}, false, "expects Load or Flush", false, false},
		{"open twice", []*materializepb.Request{ack, nil, {Open: &materializepb.Request_Open{}}}, false, "sent Open", false, false},
		{"end inside loads", []*materializepb.Request{ack, load}, true, "ended inside a transaction", false, true},
		{"end inside stores", []*materializepb.Request{ack, nil, flush, store(nil)}, true, "ended inside a transaction", false, false},
		{"load of a binding that is not there", []*materializepb.Request{ack, {Load: &materializepb.Request_Load{Binding: 7, KeyPacked: packed}}}, false, "binding 7 does not exist", false, true},
		{"load of delta updates", []*materializepb.Request{ack, {Load: &materializepb.Request_Load{Binding: 1, KeyPacked: packed}}}, false, "delta updates", false, false},
		{"key too short", []*materializepb.Request{ack, {Load: &materializepb.Request_Load{KeyPacked: tuple.AppendInt(nil, 1)}}}, false, "1 elements, the selection has 2", false, true},
		{"values too many", []*materializepb.Request{ack, nil, flush, store(func(m *materializepb.Request_Store) { m.ValuesPacked = append(values, values...) })}, false, "6 elements, the selection has 3", false, false},
		{"broken tuple", []*materializepb.Request{ack, nil, flush, store(func(m *materializepb.Request_Store) { m.KeyPacked = []byte{0x99} })}, false, "unknown type code", false, false},
		{"commit without checkpoint", []*materializepb.Request{ack, nil, flush, store(nil), {StartCommit: &materializepb.Request_StartCommit{}}}, false, "no checkpoint", true, false},
	} {
		p := Start(t, s.c, s.codec)
		require.NoError(t, r.Open(p), c.name)
		if c.authoritative && !r.authoritative || s.c.AppendOnly && c.loads {
			continue
		}
		var err error
		for _, m := range c.requests {
			if m == nil {
				_, err = p.Next() // Acknowledged
			} else {
				err = p.Send(m)
			}
			if err != nil {
				break
			}
		}
		if c.end {
			p.CloseRequests()
		}
		for err == nil {
			_, err = p.Next()
		}
		require.ErrorContains(t, p.reason(err), c.text, c.name)
	}
	s.hostile(t, r)
}

// hostile sends what is no message at all.
func (s suite) hostile(t *testing.T, r *Runtime) {
	t.Helper()
	open, err := frame.Append(nil, s.codec, &materializepb.Request{Open: &materializepb.Request_Open{
		Materialization: r.Applied, Version: strconv.Itoa(r.version), Range: flowpb.FullRange(), StateJson: r.State,
	}})
	require.NoError(t, err)
	inputs := map[string][]byte{
		"cut":       open[:len(open)/2],
		"oversized": {0xff, 0xff, 0xff, 0xff, 1},
		"garbage":   []byte("\x02\x00\x00\x00\xff\xff"),
	}
	if s.codec == frame.JSON {
		inputs = map[string][]byte{"cut": open[:len(open)/2], "garbage": []byte("{\"open\":[}\n"), "not an object": []byte("7\n")}
	}
	for name, input := range inputs {
		p := Start(t, s.c, s.codec)
		_, _ = p.p.Stdin.Write(input)
		p.CloseRequests()
		_, err := p.Next()
		require.Error(t, err, name)
		require.NotErrorIs(t, p.reason(err), errEnded, "%s: the connector must say what was wrong", name)
	}
}
