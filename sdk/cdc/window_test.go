package cdc

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// sees is a snapshot that sees these transactions.
type sees []TxnID

func (s sees) Sees(txn TxnID) bool { return slices.Contains(s, txn) }

func TestWindowDecidesRows(t *testing.T) {
	t.Parallel()
	var w window
	one := w.begin("1")
	w.add(one, []byte("k"), []string{"a", "b"})
	w.add(one, []byte("full"), nil)
	two := w.begin("2")
	w.add(two, []byte("k"), []string{"b", "c"})
	w.add(two, []byte("k"), []string{"b"})

	for name, c := range map[string]struct {
		snapshot sees
		key      string
		clean    bool
		drop     bool
		lacks    []string
	}{
		"everything was seen":                        {sees{"1", "2"}, "k", true, false, nil},
		"another key":                                {nil, "other", false, false, nil},
		"a whole row came":                           {sees{"2"}, "full", false, true, nil},
		"the first came without two columns":         {sees{"2"}, "k", false, true, []string{"a", "b"}},
		"the second came without one":                {sees{"1"}, "k", false, true, []string{"b"}},
		"both came, and one column is in neither":    {nil, "k", false, true, []string{"b"}},
		"what was seen does not count for this key":  {sees{"1"}, "full", false, false, nil},
		"a transaction that is not in the window at": {sees{"1", "2", "3"}, "k", true, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			clean, blocked := w.judge(c.snapshot)
			require.Empty(t, blocked)
			require.Equal(t, c.clean, clean)
			drop, lacks := w.fate([]byte(c.key))
			require.Equal(t, c.drop, drop)
			require.Equal(t, c.lacks, lacks)
		})
	}
}

func TestWindowCollapses(t *testing.T) {
	t.Parallel()
	var w window
	c := w.begin("1")
	for i := range 1000 {
		w.add(c, []byte{byte(i), byte(i >> 8)}, []string{"a"})
	}
	require.Greater(t, w.bytes, 90_000)
	w.collapse()
	require.Less(t, w.bytes, 1000)
	w.add(c, []byte("more"), nil)
	require.Less(t, w.bytes, 1000, "a transaction whose keys were forgotten needs no more memory")
	_, blocked := w.judge(sees{})
	require.Equal(t, []TxnID{"1"}, blocked)
	_, blocked = w.judge(sees{"1"})
	require.Empty(t, blocked)
}

func TestWindowForgets(t *testing.T) {
	t.Parallel()
	var w window
	for _, txn := range []TxnID{"1", "2", "3"} {
		w.add(w.begin(txn), []byte("k"), []string{"a"})
	}
	w.require([]TxnID{"4", "2"})
	unseen, ok := w.unseen(sees{"1"}, 10)
	require.True(t, ok)
	require.Equal(t, []TxnID{"2", "3", "4"}, unseen, "in the order of the log, once")
	_, ok = w.unseen(sees{"1"}, 2)
	require.False(t, ok)
	all, ok := w.unseen(nil, 10)
	require.True(t, ok)
	require.Len(t, all, 4)

	w.prune(func(txn TxnID) bool { return txn == "3" })
	_, blocked := w.judge(sees{})
	require.Empty(t, blocked)
	require.Len(t, w.txns, 1)
	w.prune(func(TxnID) bool { return false })
	require.Zero(t, w.bytes)
	require.Empty(t, w.keys)
}

func TestHoles(t *testing.T) {
	t.Parallel()
	var h holes
	h.add([]byte("was there"), "")
	h.add([]byte("appeared"), "7")
	h.add([]byte("was there"), "")
	require.Equal(t, 2, h.len())

	keys := h.first(10)
	h.add([]byte("appeared"), "8") // once more, while it is being read
	h.fill(keys, sees{"7"})
	require.Equal(t, []string{"appeared"}, h.order, "the reading did not see the row appear for the second time")
	h.fill(keys, sees{"7", "8"})
	require.Zero(t, h.len())
	require.Zero(t, h.bytes)

	h.add([]byte("long enough"), "9")
	_, ok := h.list(5)
	require.False(t, ok)
	listed, ok := h.list(100)
	require.True(t, ok)
	require.Equal(t, [][]byte{[]byte("long enough")}, listed)
	h.drop(func(by TxnID) bool { return by == "9" })
	require.Zero(t, h.len())
}
