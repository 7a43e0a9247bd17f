package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	testsession "github.com/sluicedata/sluice/sdk/testkit/session"
)

// captured is what a runtime has of a capture: the committed state, and every document in a short notation, as "u a 1 v=2".
type captured struct {
	t     testing.TB
	db    *database
	spec  *flowpb.CaptureSpec
	state json.RawMessage
	docs  []string
	hasty bool // to end a session as soon as all has come, in the midst of what else comes
}

// newCapture discovers all tables of a database, which have the columns id and v.
func newCapture(t testing.TB, db *database) *captured {
	t.Helper()
	s := testsession.Start(t, suiteDatabase{db}.Connector(), frame.Proto)
	c := &captured{t: t, db: db, spec: s.Task(db.cfg), state: json.RawMessage(`{}`)}
	s.CloseRequests()
	require.NoError(t, s.Wait())
	return c
}

// reach says where the capture connects to from now on.
func (c *captured) reach(db *database) {
	c.t.Helper()
	c.spec.ConfigJson = testsession.Config(c.t, db.cfg)
}

// run runs a session until all of the documents have come, in any order, and a moment longer; it returns how the session
// ended, if that was by itself.
func (c *captured) run(want ...string) error {
	c.t.Helper()
	c.docs = nil
	s := testsession.Start(c.t, suiteDatabase{c.db}.Connector(), frame.Proto)
	s.AskOpen(c.spec, c.state)
	if err := s.Opened(); err != nil {
		return s.Wait()
	}
	transactions, stop := make(chan *testsession.Transaction), make(chan struct{})
	defer close(stop)
	go func() {
		defer close(transactions)
		for {
			tx, err := s.Transaction()
			if err != nil {
				return
			}
			select {
			case transactions <- tx:
			case <-stop:
				return
			}
		}
	}()
	for deadline := time.Now().Add(patience); ; {
		require.True(c.t, time.Now().Before(deadline), "not captured: %v; but: %v", want, c.docs)
		wait := time.Second
		if c.has(want) {
			wait = 300 * time.Millisecond // for what should not come
		}
		select {
		case tx, ok := <-transactions:
			if !ok {
				return s.Wait()
			}
			c.commit(tx)
			s.Ack(1)
			if c.hasty && c.has(want) {
				s.Kill()
				return nil
			}
		case <-time.After(wait):
			if c.has(want) {
				s.Kill()
				return nil
			}
		}
	}
}

func (c *captured) has(want []string) bool {
	for _, doc := range want {
		if !slices.Contains(c.docs, doc) {
			return false
		}
	}
	return true
}

func (c *captured) commit(tx *testsession.Transaction) {
	c.t.Helper()
	for _, d := range tx.Documents {
		var doc struct {
			ID   int
			V    json.RawMessage
			Meta struct {
				Op     string
				Source struct {
					Table    string
					Snapshot bool
				}
			} `json:"_meta"`
		}
		require.NoError(c.t, json.Unmarshal(d.Doc, &doc))
		text := fmt.Sprintf("%s %s %d v=%s", doc.Meta.Op, doc.Meta.Source.Table, doc.ID, doc.V)
		if doc.Meta.Source.Snapshot {
			text = strings.Replace(text, "c ", "s ", 1)
		}
		c.docs = append(c.docs, text)
	}
	state, err := flowpb.MergePatch(c.state, tx.Patch)
	require.NoError(c.t, err)
	c.state = state
}
