package reference_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/reference"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pw"), []byte("hunter2\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pem"), []byte("a\nb\r\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "large"), make([]byte, 1<<20+1), 0o600))
	env := map[string]string{"A": "1", "EMPTY": "", "NESTED": "${A}"}
	s := reference.Surroundings{LookupEnv: func(n string) (string, bool) { v, ok := env[n]; return v, ok }, Dir: dir}
	for text, want := range map[string]string{
		"": "", "plain $A {A}": "plain $A {A}", "${A}": "1", "x${A}y${A}z": "x1y1z", "${EMPTY}": "",
		"$${A}": "${A}", "$${A}${A}": "${A}1", "${NESTED}": "${A}",
		"${file:pw}": "hunter2", "${file:" + dir + "/pem}": "a\nb", "u:${file:pw}@h": "u:hunter2@h",
	} {
		got, err := s.Resolve(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, want := range map[string]string{
		"${A":           "${ without its closing brace; write $${ for the two characters themselves",
		"hunter2${B}":   "the environment variable B is not set",
		"${file:none}":  "cannot read " + dir + "/none: no such file or directory",
		"${file:.}":     "cannot read " + dir + ": is a directory",
		"${file:large}": "the file " + dir + "/large is larger than 1 MiB",
	} {
		_, err := s.Resolve(text)
		require.EqualError(t, err, want)
	}
	_, err := reference.Surroundings{}.Resolve("${A}")
	require.Error(t, err)
	require.True(t, reference.Used("a${"))
	require.False(t, reference.Used("a$"))
}
