package jsonscan

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestPointersFindInOneWalk(t *testing.T) {
	t.Parallel()
	doc := []byte(` { "a" : 1 , "b\u0063" : {"d":[10, {"e":"x\"}"} , null]}, "a/b": true, "_meta":{"op":"u","source":{"loc":[1,2,3]}} } `)
	pointers := NewPointers([]string{"/a", "/bc/d/1/e", "/a~1b", "/_meta/source/loc/2", "/missing/x", "", "/_meta/op", "/a"})
	values := make([][]byte, pointers.Len())
	pointers.Find(doc, values)
	got := make([]string, len(values))
	for i, v := range values {
		got[i] = string(v)
	}
	require.Equal(t, []string{"1", `"x\"}"`, "true", "3", "", string(doc), `"u"`, "1"}, got)
}

func TestMembersAndText(t *testing.T) {
	t.Parallel()
	members := NewMembers([]byte(`{"x":"\\","y":{"}":"]"},"z":[[],{}]}`))
	var got []string
	for {
		k, v, ok := members.Next()
		if !ok {
			break
		}
		got = append(got, string(k)+"="+string(v))
	}
	require.Equal(t, []string{`x="\\"`, `y={"}":"]"}`, `z=[[],{}]`}, got)
	text, ok := Text([]byte(` "a\nb" `))
	require.True(t, ok)
	require.Equal(t, "a\nb", text)
	require.Equal(t, []string{"a/b", "~c"}, SplitPointer(JoinPointer(JoinPointer("", "a/b"), "~c")))
}

// FuzzMembers holds the walk against encoding/json on every valid text, and on every text demands that it ends.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"a":{"b":[1,2,"\""]},"c":null}`, `{"a"`, `{"a":}`, `[1,`, `"`, ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := map[string]string{}
		members := NewMembers(text)
		for range len(text) + 1 {
			k, v, ok := members.Next()
			if !ok {
				break
			}
			got[string(Name(k))] = string(v)
		}
		NewPointers([]string{"/a/0/b"}).Find(text, make([][]byte, 1))
		var want map[string]json.RawMessage
		if !utf8.Valid(text) || !Valid(text) || json.Unmarshal(text, &want) != nil {
			return
		}
		require.Len(t, got, len(want))
		for k, v := range want {
			require.Equal(t, string(v), got[k])
		}
	})
}
