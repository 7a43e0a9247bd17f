package pipeline

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// A password that has ${ in it and was encrypted: what follows is a part of it, which no error may show. The file's text is
// pa${hunter2}x, and its key opens nothing else.
func TestNothingOfAnEncryptedTextIsInErrors(t *testing.T) {
	t.Parallel()
	key, err := os.ReadFile(filepath.Join("testdata", "dollar.key"))
	require.NoError(t, err)
	env := map[string]string{"SOPS_AGE_KEY": string(key)}
	options := Options{Getenv: func(name string) (string, bool) {
		value, ok := env[name]
		return value, ok
	}}
	file := filepath.Join("testdata", "dollar.yaml")
	_, err = LoadConfig(file, options)
	require.ErrorContains(t, err, file+":1: the value was encrypted and has a ${…} that stands for nothing")
	require.NotContains(t, err.Error(), "hunter2")
	require.NotContains(t, usererr.Message(err), "hunter2")

	env["hunter2"] = "ssword"
	config, err := LoadConfig(file, options)
	require.NoError(t, err)
	require.JSONEq(t, `{"password":"passwordx"}`, string(config))
}
