package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/testkit/sinktest"
)

// version is a version of a person as the model has it; moments are in tenths of seconds, -1 for none.
type version struct {
	name, bio, grade string // as psql prints them
	from, to         int
	current          bool
}

// person is a change as a test makes it: members that are nil are absent from the document.
type person struct {
	id               int
	op               string
	name, bio, grade *string // as JSON
	at               int     // -1 if it is not known
}

func (p person) doc() string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":%d`, p.id)
	for _, m := range []struct {
		name  string
		value *string
	}{{"grade", p.grade}, {"name", p.name}, {"bio", p.bio}} {
		if m.value != nil {
			fmt.Fprintf(&b, `,%q:%s`, m.name, *m.value)
		}
	}
	fmt.Fprintf(&b, `,"_meta":{"op":%q,"source":{`, p.op)
	if p.at >= 0 {
		fmt.Fprintf(&b, `"ts_ms":%d`, p.at*100)
	}
	return b.String() + "}}}"
}

// model applies changes one after the other: what a history must be, whatever the transactions.
func model(changes []person) string {
	keys := map[int][]*version{}
	newest := -1
	for _, c := range changes {
		at := c.at
		versions := keys[c.id]
		var last *version
		if len(versions) > 0 {
			last = versions[len(versions)-1]
		}
		switch {
		case at >= 0:
			newest = max(newest, at)
		case last != nil:
			at = newest
		}
		alive := last != nil && last.current
		next := &version{grade: "7", from: at, to: -1, current: true}
		if alive {
			next.name, next.bio, next.grade = last.name, last.bio, last.grade
		}
		for _, m := range []struct {
			value *string
			into  *string
		}{{c.name, &next.name}, {c.bio, &next.bio}, {c.grade, &next.grade}} {
			if m.value != nil {
				*m.into = strings.ReplaceAll(strings.Trim(*m.value, `"`), "null", "")
			}
		}
		if last != nil {
			at = max(at, last.from, last.to)
			next.from = at
		}
		switch {
		case c.op == "d" && alive:
			last.to, last.current = at, false
		case c.op == "d", alive && last.name == next.name && last.bio == next.bio && last.grade == next.grade:
		default:
			if alive {
				last.to, last.current = at, false
			}
			keys[c.id] = append(versions, next)
		}
	}
	return printed(keys)
}

func printed(keys map[int][]*version) string {
	var lines []string
	for id := range 100 {
		for i, v := range keys[id] {
			moment := func(at int) string {
				if at < 0 {
					return ""
				}
				return fmt.Sprint(at)
			}
			current := "f"
			if v.current {
				current = "t"
			}
			lines = append(lines, fmt.Sprintf("%d|%s|%s|%s|%s|%s|%s|%d", id, v.name, v.bio, v.grade, moment(v.from), moment(v.to), current, i+1))
		}
	}
	return strings.Join(lines, "\n")
}

// randomChanges are changes of a few keys. Some leave members out, some change nothing, some come from a clock that went
// back, some are rows that a backfill read.
func randomChanges(r *rand.Rand, n int) []person {
	pick := func(values ...string) *string {
		if v := values[r.IntN(len(values))]; v != "" {
			return &v
		}
		return nil
	}
	now := 100
	var out []person
	for range n {
		now += r.IntN(4)
		c := person{id: r.IntN(4), op: []string{"c", "u", "u", "u", "d"}[r.IntN(5)], at: now}
		switch r.IntN(8) {
		case 0:
			c.at = now - r.IntN(50)
		case 1:
			if c.op != "d" { // a backfill does not read what is not there
				c.op, c.at = "c", -1
			}
		}
		if c.op != "d" {
			c.name, c.bio, c.grade = pick(`"Ada"`, `"Eve"`, "null"), pick(`"long"`, `"short"`, "null", ""), pick("1", "2", "", "")
		}
		if r.IntN(6) == 0 {
			c.name = nil
		}
		if i := len(out) - 1; i > 0 && r.IntN(5) == 0 { // the same again
			c = out[r.IntN(i)]
			c.at = now
		}
		out = append(out, c)
	}
	return out
}

// Random changes in transactions of random sizes, with a connector that is killed at random moments, come out as the model
// says, which knows of none of these.
func TestHistoryIsTheModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 4))
			db := newDatabase(t)
			r := newHistory(t, db, []frame.Codec{frame.Proto, frame.JSON}[seed%2], `{"table":"people","history":"scd2"}`)
			r.MustApply()
			changes := randomChanges(random, 60)
			for _, c := range changes {
				r.Log = append(r.Log, sinktest.Change{Doc: c.doc()})
			}
			kills := 3
			r.Step = func(p *sinktest.Peer, name string) {
				if name == "Acknowledged" {
					r.Batch = 1 + random.IntN(20)
				}
				if kills > 0 && random.IntN(40) == 0 {
					kills--
					p.Kill()
				}
			}
			for {
				err := r.Run()
				if err == nil {
					break
				}
				require.True(t, sinktest.ErrKilled(err), "%v", err)
			}
			require.Equal(t, model(changes), db.exec(t, versionsOf))
			require.Equal(t, "0", db.exec(t, `SELECT count(*) FROM people a JOIN people b ON a.id = b.id AND b.version_number = a.version_number + 1 WHERE a.valid_to IS NULL AND a.is_current`))

			// Everything once more, as after a backfill of the source: what is as it was makes no version.
			kills = 0
			var again []person
			for _, c := range slices.Backward(changes) {
				if !slices.ContainsFunc(again, func(o person) bool { return o.id == c.id }) {
					again = append(again, c)
				}
			}
			changes = append(changes, again...)
			for _, c := range again {
				r.Log = append(r.Log, sinktest.Change{Doc: c.doc()})
			}
			require.NoError(t, r.Run())
			require.Equal(t, model(changes), db.exec(t, versionsOf))
		})
	}
}
