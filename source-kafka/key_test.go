package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/testkit/session"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-kafka/internal/codec"
)

// A document that lacks a part of its collection's key, or has something there that cannot identify it, is a bad message.
func TestDocumentsHaveTheirKey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		keyFormat  string
		pointers   []string
		key, value string // empty for none
		want       string // what is wrong, or nothing
		side       codec.Side
	}{
		{"", []string{"/id"}, "", `{"id":1}`, "", 0},
		{"", []string{"/id"}, "", `{"id":"a"}`, "", 0},
		{"", []string{"/id"}, "", `{"id":false}`, "", 0},
		{"", []string{"/id"}, "", `{"ID":1}`, "it has nothing at /id, where the key of the collection is", codec.Value},
		{"", []string{"/id"}, "", `{"id":null}`, "it has null at /id", codec.Value},
		{"", []string{"/id"}, "", `{"id":1.5}`, "it has a number that is no integer at /id", codec.Value},
		{"", []string{"/id"}, "", `{"id":[1]}`, "it has an object or a list at /id", codec.Value},
		{"", []string{"/id"}, "", `7`, "it has nothing at /id", codec.Value},
		{"", []string{"/id"}, "k", "", "it is a tombstone", codec.Value},
		{"", []string{"/a/b", "/_meta/partition"}, "", `{"a":{"b":1}}`, "", 0},
		{"", []string{"/a/b", "/c"}, "", `{"a":{"b":1}}`, "it has nothing at /c", codec.Value},
		{"", []string{"/_key"}, "k", "", "", 0},
		{"", []string{"/_key"}, "", `{}`, "it has no key", codec.Key},
		{"json", []string{"/_key/id"}, `{"id":1}`, "", "", 0},
		{"json", []string{"/_key/id"}, `{"no":1}`, "", "it has nothing at /_key/id", codec.Key},
		{"json", []string{"/_key"}, `{"id":1}`, "", "it has an object or a list at /_key", codec.Key},
		{"json", []string{"/_key/id", "/n"}, `{"id":1}`, `{"n":2}`, "", 0},
		{"json", []string{"/_key/id", "/n"}, `{"id":1}`, `{"n":null}`, "it has null at /n", codec.Value},
	} {
		d, err := newDocuments(resource{Topic: "t", KeyFormat: c.keyFormat}, c.pointers, nil)
		require.NoError(t, err)
		rec := &kgo.Record{Topic: "t"}
		if c.key != "" {
			rec.Key = []byte(c.key)
		}
		if c.value != "" {
			rec.Value = []byte(c.value)
		}
		for range 2 { // what is proven of one record must not be believed of the next
			_, err = d.append(t.Context(), []byte("x"), rec)
			if c.want == "" {
				require.NoError(t, err, "%v", c)
				continue
			}
			var bad *codec.BadMessage
			require.ErrorAs(t, err, &bad, "%v", c)
			require.Contains(t, bad.Reason, c.want)
			require.Equal(t, c.side, bad.Side)
		}
	}
}

// hookedSource is the connector, whose log is heard.
type hookedSource struct {
	source
	hook *logtest.Hook
}

func (s hookedSource) Open(ctx context.Context, env capture.Env, cfg config, bindings []*binding) (capture.Reader, error) {
	env.Log.Logger.AddHook(s.hook)
	return s.source.Open(ctx, env, cfg, bindings)
}

// A key in the values is followed, where that can be true; and records without it are what onBadMessage says.
func TestKeysInValues(t *testing.T) {
	t.Parallel()
	b := shared(t)
	plain, compacted := b.topic(2), b.topic(1, "cleanup.policy", "compact")
	b.produce(
		&kgo.Record{Topic: plain, Value: []byte(`{"n":1}`)}, &kgo.Record{Topic: plain, Value: []byte(`{"m":1}`)}, &kgo.Record{Topic: plain, Value: []byte(`{"n":2}`)},
		&kgo.Record{Topic: compacted, Key: []byte("k"), Value: []byte(`{"n":1}`)},
	)
	said := &logtest.Hook{}
	start := func(topic, policy string, key, ofResource []string) *run {
		cfg := b.config(topic)
		cfg.OnBadMessage = policy
		s := session.Start(t, capture.New(hookedSource{hook: said}), frame.Proto)
		task := s.Task(cfg)
		binding := task.Bindings[0]
		binding.Collection.Key = key
		if ofResource != nil {
			var err error
			binding.ResourceConfigJson, err = json.Marshal(resource{Topic: topic, Key: ofResource})
			require.NoError(t, err)
		}
		s.AskOpen(task, nil)
		return &run{Session: s, t: t, state: json.RawMessage("{}")}
	}
	refused := func(r *run) string {
		t.Helper()
		require.Error(t, r.Opened())
		return usererr.Message(r.Wait())
	}
	n := []string{"/n"}
	r := start(plain, badSkip, n, n)
	require.NoError(t, r.Opened())
	r.until(2)
	requireNumbers(t, r.docs, 1, 2)
	require.True(t, slices.ContainsFunc(said.AllEntries(), func(e *logrus.Entry) bool {
		return e.Level == logrus.WarnLevel && e.Data["topic"] == plain && strings.Contains(e.Message, "the topic has several partitions")
	}))
	require.NoError(t, r.Stop())

	r = start(plain, badFail, n, nil)
	require.NoError(t, r.Opened())
	require.Contains(t, usererr.Message(r.fails()), "its value is bad: it has nothing at /n, where the key of the collection is")

	require.Contains(t, refused(start(compacted, badFail, n, nil)), fmt.Sprintf("Topic %s is compacted", compacted))
	require.Contains(t, refused(start(plain, badFail, n, []string{"/m"})), "The key of the collection ")
	require.ErrorContains(t, resource{Topic: "t", Key: []string{"id"}}.Validate(), `The key "id" of topic t is no JSON pointer`)
}
