package infer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A change of a schema has old documents looked at again only if it leaves more to be learned than there was.
func TestScope(t *testing.T) {
	t.Parallel()
	scope := func(text string) *Scope { return ScopeOf(parse(t, text), 1) }
	const infers = `"type":"object","x-infer-schema":true`
	for _, c := range []struct {
		name, before, now string
		within            bool
	}{
		{"the same", `{` + infers + `}`, `{` + infers + `}`, true},
		{"never", `{"type":"object"}`, `{` + infers + `}`, false},
		{"no longer", `{` + infers + `}`, `{"type":"object"}`, true},
		{"one more is named", `{` + infers + `}`, `{` + infers + `,"properties":{"a":{}}}`, true},
		{"one more may be anything", `{` + infers + `}`, `{` + infers + `,"properties":{"a":{"x-infer-schema":true}}}`, true},
		{"one is named no more", `{` + infers + `,"properties":{"a":{}}}`, `{` + infers + `}`, false},
		{"one is inferred now", `{` + infers + `,"properties":{"a":{}}}`, `{` + infers + `,"properties":{"a":{"x-infer-schema":true}}}`, false},
		{"no type now", `{` + infers + `,"properties":{"a":{"type":"string","x-infer-schema":true}}}`, `{` + infers + `,"properties":{"a":{"x-infer-schema":true}}}`, false},
		{"open now", `{` + infers + `,"additionalProperties":false}`, `{` + infers + `}`, false},
		{"one more in a closed one", `{` + infers + `,"additionalProperties":false}`, `{` + infers + `,"additionalProperties":false,"properties":{"a":{"x-infer-schema":true}}}`, false},
	} {
		require.Equal(t, c.within, scope(c.now).Within(scope(c.before)), c.name)
		require.Equal(t, c.name == "the same", scope(c.now).Equal(scope(c.before)), c.name)
	}
	deep := ScopeOf(parse(t, `{`+infers+`}`), 2)
	require.False(t, deep.Within(scope(`{`+infers+`}`)))
	require.True(t, scope(`{`+infers+`}`).Within(deep))
}
