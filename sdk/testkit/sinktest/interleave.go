package sinktest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
)

// Interleavings runs two instances of a materialization against each other in every order of their steps: each opens, stores a
// transaction, starts to commit it and waits for the end of the commit. Both work on the same log, with rows so large that they
// do not wait in the connector. Whatever the order, everything of the log has to be stored once, an instance may fail only if the
// other one opened after it, and then it must say so. It is for destinations that keep the position.
func Interleavings(t *testing.T, c Case, codec frame.Codec) {
	t.Helper()
	s := suite{c: c, codec: codec, suffix: "_" + fmt.Sprint(codec)}
	r := s.runtime(t, c.Config, "interleaved", s.binding(basic("acme/t"), "twice", false), s.binding(basic("acme/t"), "twice_changes", true))
	r.Batch = 50
	r.MustApply()
	won := map[string]int{}
	all := orders("aaaabbbb")
	all = all[:len(all)/2] // the others begin with b, and are the same with other names
	for i, order := range all {
		row := change(i, "x", `"note":"`+strings.Repeat("large ", 180_000)+`"`)
		r.Log = append(r.Log, Change{0, row}, Change{0, change(-1, "x", fmt.Sprintf(`"size":%d`, i))}, Change{1, change(i, "x", `"size":1`)})
		a, b := &instance{name: "a", Runtime: *r}, &instance{name: "b", Runtime: *r}
		a.other, b.other = b, a
		for _, who := range order {
			if who == 'a' {
				a.step(t, order)
			} else {
				b.step(t, order)
			}
		}
		for _, x := range []*instance{a, b} {
			if x.err == nil {
				won[x.name]++
			}
			x.session.p.Kill()
		}
	}
	require.Positive(t, won["a"])
	require.Len(t, all, won["b"], "who opens last is never locked out")
	require.Less(t, won["a"], len(all), "somebody has to lose")
	require.NoError(t, r.Run())
	r.RequireTable(t, 0, s.table("twice"), false)
	r.RequireTable(t, 1, s.table("twice_changes"), false)
}

// orders are the different arrangements of letters.
func orders(letters string) []string {
	if letters == "" {
		return []string{""}
	}
	var out []string
	for i, l := range letters {
		if strings.ContainsRune(letters[:i], l) {
			continue
		}
		for _, rest := range orders(letters[:i] + letters[i+1:]) {
			out = append(out, string(l)+rest)
		}
	}
	return out
}

// instance is one of the two.
type instance struct {
	Runtime
	name    string
	session *session
	other   *instance
	taken   int // steps
	end     int // of the log that its transaction stores
	err     error
	// overtaken says that the other instance opened after this one.
	overtaken bool
}

func (x *instance) step(t *testing.T, order string) {
	t.Helper()
	x.taken++
	if x.err != nil {
		return
	}
	idle := x.taken > 1 && x.end == 0 // everything was stored already
	switch {
	case x.taken == 1:
		p := Start(t, x.c, x.Codec)
		x.session = &session{Runtime: &x.Runtime, p: p}
		x.err = x.Open(p)
		if x.other.session != nil {
			x.other.overtaken = true
		}
		if x.Position < len(x.Log) {
			x.end = len(x.Log)
		}
	case idle:
	case x.taken == 2:
		if x.err = x.session.acknowledge(); x.err == nil {
			changes := x.Log[x.Position:x.end]
			if x.err = x.session.load(changes); x.err == nil {
				x.err = x.session.store(changes)
			}
		}
	case x.taken == 3:
		x.err = x.session.commit(x.end)
	default:
		x.err = x.session.acknowledge()
	}
	if x.err == nil {
		return
	}
	x.err = x.session.p.reason(x.err)
	require.True(t, x.overtaken, "%s fails in step %d of %s, and nobody took over: %v", x.name, x.taken, order, x.err)
	require.ErrorContains(t, x.err, "nother instance took over", "%s in step %d of %s", x.name, x.taken, order)
}
