package jsonscan

import (
	"bytes"
	"encoding/json"
	"strconv"
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

// A member that is there twice hides no other, wherever the walk ends.
func TestPointersAndRepeatedMembers(t *testing.T) {
	t.Parallel()
	pointers := NewPointers([]string{"/id", "/a/b", "/_meta/op"})
	values := make([][]byte, pointers.Len())
	pointers.Find([]byte(`{"id":1,"id":2,"a":{"b":3},"a":{},"i\u0064":4,"_meta":{"op":"d","op":"c"}}`), values)
	require.Equal(t, [][]byte{[]byte("1"), []byte("3"), []byte(`"d"`)}, values)
}

// FuzzPointers holds look-ups in documents of changing kinds against encoding/json.
func FuzzPointers(f *testing.F) {
	paths := []string{"/a", "/a/b", "/é/0/a", "/a~1b/~0", "/", "/b/1", "/long name of eight bytes or more/\"\\"}
	f.Add([]byte(`{"a":{"b":1},"\u00e9":[{"a":2}],"a/b":{"~":3},"":4,"b":[5,"6\\"],"long name of eight bytes or more":{"\"\\":7}}`), []byte(`{"":1,"a":2,"a":{"b":3}}`))
	f.Add([]byte(`{"b":[[],"1234567\"",7],"x":"\\","a":"12345678\\\"]}"}`), []byte(`{"b":{"1":"2"},"c":"123456789012345\u0022"}`))
	f.Add([]byte(`{"é":["a":2}],"b":[}`), []byte(`{"b":["a"`)) // invalid: to come to an end is all that is asked
	f.Fuzz(func(t *testing.T, one, other []byte) {
		pointers := NewPointers(paths)
		values := make([][]byte, len(paths))
		for _, doc := range [][]byte{one, other, one, one} {
			pointers.Find(doc, values)
			if !utf8.Valid(doc) || !Valid(doc) {
				continue
			}
			for i, path := range paths {
				want := lookUp(t, doc, SplitPointer(path))
				require.Equal(t, want == nil, values[i] == nil, path)
				require.Equal(t, string(want), string(values[i]), path)
			}
		}
	})
}

// lookUp finds the first value at a path, nil if there is none.
func lookUp(t *testing.T, doc []byte, path []string) []byte {
	t.Helper()
	if len(path) == 0 {
		return Trim(doc)
	}
	var elements []json.RawMessage
	switch Kind(doc) {
	case '[':
		require.NoError(t, json.Unmarshal(doc, &elements))
		if i, err := strconv.Atoi(path[0]); err == nil && i < len(elements) && strconv.Itoa(i) == path[0] {
			return lookUp(t, elements[i], path[1:])
		}
	case '{':
		dec := json.NewDecoder(bytes.NewReader(doc))
		_, err := dec.Token()
		require.NoError(t, err)
		for dec.More() {
			name, err := dec.Token()
			require.NoError(t, err)
			var value json.RawMessage
			require.NoError(t, dec.Decode(&value))
			if name == path[0] {
				return lookUp(t, value, path[1:])
			}
		}
	}
	return nil
}
