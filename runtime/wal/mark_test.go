package wal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What documents come from stays theirs when those in front of a mark are taken out, wherever it stands.
func TestOrigins(t *testing.T) {
	t.Parallel()
	names := []string{"a", "a", "b", "a", "c", "c"}
	for at := range len(names) + 1 {
		var b Block
		var m Mark
		for i, name := range names {
			if i == at {
				m = b.Mark()
			}
			b.AddFrom(name, []byte("{}"))
		}
		if at == len(names) {
			m = b.Mark()
		}
		origins := func(b *Block) (out []string) {
			for i := range b.Count {
				out = append(out, b.Origin(i))
			}
			return out
		}
		require.Equal(t, names, origins(&b))
		require.Equal(t, append([]string(nil), names[:at]...), origins(b.Before(m)))
		b.Drop(m)
		require.Equal(t, append([]string(nil), names[at:]...), origins(&b))
		b.AddFrom("d", []byte("{}"))
		require.Equal(t, append(append([]string(nil), names[at:]...), "d"), origins(&b))
	}
}
