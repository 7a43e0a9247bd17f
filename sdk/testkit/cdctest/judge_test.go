package cdctest

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/testkit/session"
)

// made is the history of key 1 in the tests: inserted, updated twice, deleted, inserted again with a large value, updated,
// truncated, inserted.
func made() *history {
	h := newHistory()
	for i, op := range []byte("cuudcutc") {
		big := "big 1"
		if i > 3 {
			big = "big 2"
		}
		note := "note " + strconv.Itoa(i+1)
		h.add("1", event{op: op, tx: int64(10 + i), note: &note, big: &big})
	}
	return h
}

// A document of the tests: what it is, which version it shows, and columns besides.
func paper(kind string, v int, columns string) json.RawMessage {
	op, source := kind, `{}`
	if kind == "s" || kind == "p" {
		op, source = map[string]string{"s": "c", "p": "u"}[kind], `{"snapshot": true}`
	}
	text := `{"id": 1`
	if v > 0 {
		text += `, "v": ` + strconv.Itoa(v) + `, "tx": ` + strconv.Itoa(v+9) + `, "note": "note ` + strconv.Itoa(v) + `"`
	}
	return json.RawMessage(text + columns + `, "_meta": {"op": "` + op + `", "source": ` + source + `}}`)
}

func TestJudge(t *testing.T) {
	t.Parallel()
	const one, two = `, "big": "big 1"`, `, "big": "big 2"`
	for name, c := range map[string]struct {
		keyless bool
		docs    []json.RawMessage
		want    string // in the last document's error; empty if all is well
	}{
		"all of it": {docs: []json.RawMessage{
			paper("c", 1, one), paper("u", 2, ""), paper("u", 3, one), paper("d", 0, ""), paper("c", 5, two), paper("u", 6, ""), paper("c", 8, two),
		}},
		"a backfill, then the log": {docs: []json.RawMessage{paper("s", 2, one), paper("u", 3, ""), paper("d", 0, "")}},
		"a backfill again":         {docs: []json.RawMessage{paper("s", 2, one), paper("s", 2, one), paper("u", 3, ""), paper("s", 3, one)}},
		"a part of a row":          {docs: []json.RawMessage{paper("u", 2, ""), paper("p", 0, one), paper("u", 3, "")}},
		"begins with a delete":     {docs: []json.RawMessage{paper("d", 0, ""), paper("c", 5, two)}},
		"whole rows in deletes":    {docs: []json.RawMessage{paper("u", 3, ""), paper("d", 3, one)}},

		"backwards":                        {docs: []json.RawMessage{paper("u", 3, ""), paper("u", 2, "")}, want: "goes back in time from version 3 to 2"},
		"twice":                            {docs: []json.RawMessage{paper("c", 1, one), paper("c", 1, one)}, want: "goes back in time"},
		"a gap":                            {docs: []json.RawMessage{paper("c", 1, one), paper("u", 3, "")}, want: "version 2 is missing"},
		"a backfill behind the log":        {docs: []json.RawMessage{paper("u", 3, ""), paper("s", 2, one)}, want: "a backfill brings version 2 after version 3"},
		"a backfill ahead of the log":      {docs: []json.RawMessage{paper("u", 2, ""), paper("s", 3, one)}, want: "a backfill brings version 3 after version 2"},
		"a gap behind a backfill":          {docs: []json.RawMessage{paper("s", 1, one), paper("u", 3, "")}, want: "version 2 is missing"},
		"a backfill of a deleted row":      {docs: []json.RawMessage{paper("u", 3, ""), paper("d", 0, ""), paper("s", 3, one)}, want: "brings back a row that was deleted"},
		"a backfill behind a first delete": {docs: []json.RawMessage{paper("d", 0, ""), paper("s", 3, one)}, want: "brings back a row that was deleted"},
		"deleted twice":                    {docs: []json.RawMessage{paper("d", 0, ""), paper("d", 0, "")}, want: "deleted twice"},
		"deleted too early":                {docs: []json.RawMessage{paper("u", 2, ""), paper("d", 0, "")}, want: "in the table it does not"},
		"a lost delete":                    {docs: []json.RawMessage{paper("u", 3, ""), paper("c", 5, two)}, want: "version 4 is missing"},
		"a delete of nothing":              {docs: []json.RawMessage{paper("d", 0, ""), paper("u", 3, "")}, want: "does not do so in the table"},
		"the wrong operation":              {docs: []json.RawMessage{paper("u", 1, one)}, want: "comes as u, but is c"},
		"never written":                    {docs: []json.RawMessage{paper("u", 17, "")}, want: "never written"},
		"an old large value":               {docs: []json.RawMessage{paper("c", 5, one)}, want: `has big "big 1" instead of "big 2"`},
		"a null for an unchanged value":    {docs: []json.RawMessage{paper("c", 1, one), paper("u", 2, `, "big": null`)}, want: "has big null instead of"},
		"a wrong part of a row":            {docs: []json.RawMessage{paper("u", 2, ""), paper("p", 0, two)}, want: "has big"},
		"a part of nothing":                {docs: []json.RawMessage{paper("p", 0, one)}, want: "a part of a row comes before the row"},
		"rolled back": {docs: []json.RawMessage{
			json.RawMessage(`{"id": 1, "v": 1, "tx": 99, "note": "note 1", "_meta": {"op": "c"}}`),
		}, want: "that one was rolled back"},
		"not what it was before": {docs: []json.RawMessage{
			json.RawMessage(`{"id": 1, "v": 3, "tx": 12, "note": "note 3", "_meta": {"op": "u", "before": {"id": 1, "v": 1}}}`),
		}, want: "shows 1 as the row before it"},

		"keyless, all of it":             {keyless: true, docs: []json.RawMessage{paper("c", 1, one), paper("u", 2, one), paper("u", 3, one), paper("d", 3, one), paper("c", 5, two)}},
		"keyless, a late backfill":       {keyless: true, docs: []json.RawMessage{paper("u", 3, one), paper("s", 2, one), paper("d", 3, one)}},
		"keyless, twice from a backfill": {keyless: true, docs: []json.RawMessage{paper("s", 2, one), paper("s", 2, one)}, want: "brings the row twice"},
		"keyless, twice":                 {keyless: true, docs: []json.RawMessage{paper("c", 1, one), paper("s", 1, one)}, want: "a backfill brings version 1, but the log"},
		"keyless, a gap":                 {keyless: true, docs: []json.RawMessage{paper("s", 1, one), paper("u", 3, one)}, want: "version 2 is missing"},
		"keyless, backwards":             {keyless: true, docs: []json.RawMessage{paper("u", 3, one), paper("u", 2, one)}, want: "goes back in time"},
		"keyless, too late a row":        {keyless: true, docs: []json.RawMessage{paper("u", 3, one), paper("s", 3, one)}, want: "a backfill brings version 3, but the log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &judge{name: "t", key: []string{"id"}, keyless: c.keyless, history: made()}
			j.reset()
			court := &court{trace: newTrace(t), judges: []*judge{j}, tags: map[int64]int{}}
			for i, doc := range c.docs {
				err := court.hear(j, doc)
				if i == len(c.docs)-1 && c.want != "" {
					require.ErrorContains(t, err, c.want)
				} else {
					require.NoError(t, err, "%s", doc)
				}
			}
			before := len(j.seen)
			court.back(0)
			require.Empty(t, j.seen, "all %d can be taken back", before)
		})
	}
}

// What is missing at the end is noticed.
func TestJudgeMissing(t *testing.T) {
	t.Parallel()
	big := `, "big": "big 2"`
	for name, c := range map[string]struct {
		docs []json.RawMessage
		want string
	}{
		"nothing came":   {nil, "version 8 is missing, and all before it"},
		"the last one":   {[]json.RawMessage{paper("u", 6, "")}, "version 8 is missing: the last one in the output is 6"},
		"nothing":        {[]json.RawMessage{paper("c", 8, big)}, ""},
		"from a chunk":   {[]json.RawMessage{paper("s", 8, big)}, ""},
		"a later delete": {[]json.RawMessage{paper("d", 0, "")}, "version 8 is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &judge{name: "t", key: []string{"id"}, history: made()}
			j.reset()
			court := &court{trace: newTrace(t), judges: []*judge{j}, tags: map[int64]int{}}
			for _, doc := range c.docs {
				require.NoError(t, court.hear(j, doc))
			}
			if err := j.missing("1"); c.want == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.want)
			}
		})
	}
}

// A table that is backfilled again comes again as a whole, while its log goes on.
func TestJudgeBackfillAgain(t *testing.T) {
	t.Parallel()
	j := &judge{name: "t", key: []string{"id"}, history: made()}
	j.reset()
	court := &court{trace: newTrace(t), judges: []*judge{j}, tags: map[int64]int{}}
	require.NoError(t, court.hear(j, paper("c", 1, `, "big": "big 1"`)))
	j.begin()
	require.NoError(t, court.hear(j, paper("u", 2, "")))
	require.NotContains(t, j.seen["1"].columns, "big", "the backfill has to bring it once more")
	require.ErrorContains(t, court.hear(j, paper("d", 0, "")), "in the table it does not")
}

// A transaction comes with one checkpoint; and what was set back counts for nothing.
func TestCourt(t *testing.T) {
	t.Parallel()
	j := &judge{name: "t", key: []string{"id"}, history: made()}
	j.reset()
	note := "other"
	j.history.add("2", event{op: 'c', tx: 10, note: &note})
	other := json.RawMessage(`{"id": 2, "v": 1, "tx": 10, "note": "other", "_meta": {"op": "c"}}`)
	c := &court{trace: newTrace(t), judges: []*judge{j}, tags: map[int64]int{}}
	take := func(docs ...json.RawMessage) error {
		tx := &session.Transaction{}
		for _, doc := range docs {
			tx.Documents = append(tx.Documents, session.Document{Doc: doc})
		}
		return c.take(tx)
	}
	start := c.mark()
	require.NoError(t, take(paper("c", 1, "")))
	first := c.mark()
	require.ErrorContains(t, take(other), "transaction 10 comes with checkpoint 2, but began with 1")
	c.back(first)
	require.NoError(t, take(paper("u", 2, "")))
	require.ErrorContains(t, take(paper("u", 2, "")), "goes back in time")
	c.back(first)
	require.NoError(t, take(paper("u", 2, "")), "what was set back may come again")
	c.back(start)
	require.NoError(t, take(paper("c", 1, ""), other))
}
