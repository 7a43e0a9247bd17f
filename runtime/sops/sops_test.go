package sops

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// The files in testdata were made by sops 3.13.3; testdata/README.md has the commands.
func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return string(text)
}

// environment is one with nothing but what is given, and a home without keys.
func environment(t testing.TB, env map[string]string) Keys {
	t.Helper()
	home := t.TempDir()
	return Keys{LookupEnv: func(name string) (string, bool) {
		if value, ok := env[name]; ok {
			return value, true
		}
		return home, name == "HOME"
	}}
}

func decrypt(t testing.TB, text string, keys Keys) (any, error) {
	t.Helper()
	var doc yaml.Node
	require.NoError(t, yaml.Unmarshal([]byte(text), &doc))
	root := doc.Content[0]
	require.True(t, Encrypted(root))
	if _, err := Decrypt(root, keys); err != nil {
		return nil, err
	}
	var value any
	require.NoError(t, root.Decode(&value))
	return value, nil
}

// TestFilesOfSops: what sops encrypted is what it was, in every type that a document can have.
func TestFilesOfSops(t *testing.T) {
	t.Parallel()
	keys := environment(t, map[string]string{keyVariable: read(t, "key.txt")})
	for _, name := range []string{"types.yaml", "types.json", "two-recipients.yaml", "by-regex.yaml"} {
		plain := "plain-types" + filepath.Ext(name)
		got, err := decrypt(t, read(t, name), keys)
		require.NoError(t, err, name)
		var want any
		require.NoError(t, yaml.Unmarshal([]byte(read(t, plain)), &want))
		gotText, err := json.Marshal(got)
		require.NoError(t, err)
		wantText, err := json.Marshal(want)
		require.NoError(t, err)
		require.JSONEq(t, string(wantText), string(gotText), name)
	}
	// The suffix of Flow's catalogs goes with the encryption.
	got, err := decrypt(t, read(t, "flow.yaml"), keys)
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"address": "db.example.org", "password": "a secret for Flow", "tunnel": map[string]any{"key": "another"},
	}, got)
}

// TestWhereKeysAre: a variable, a file that a variable names, sops's own places.
func TestWhereKeysAre(t *testing.T) {
	t.Parallel()
	text, key := read(t, "types.yaml"), read(t, "key.txt")
	file, err := filepath.Abs("testdata/key.txt")
	require.NoError(t, err)
	place := func(t *testing.T, below ...string) string {
		folder := t.TempDir()
		at := filepath.Join(append(append([]string{folder}, below...), "sops", "age", "keys.txt")...)
		require.NoError(t, os.MkdirAll(filepath.Dir(at), 0o700))
		require.NoError(t, os.WriteFile(at, []byte(key), 0o600))
		return folder
	}
	for name, env := range map[string]map[string]string{
		"variable": {keyVariable: key}, "file": {fileVariable: file},
		"both, one of another": {keyVariable: read(t, "other.txt"), fileVariable: file},
		"home":                 {"HOME": place(t, ".config")}, "XDG": {"XDG_CONFIG_HOME": place(t)},
	} {
		_, err := decrypt(t, text, environment(t, env))
		require.NoError(t, err, name)
	}
}

// TestRefusals lists what cannot be decrypted, and what people are told; never with a key in it, or a value.
func TestRefusals(t *testing.T) {
	t.Parallel()
	text, key := read(t, "types.yaml"), read(t, "key.txt")
	right := map[string]string{keyVariable: key}
	lines := strings.Split(text, "\n")
	swapped := append([]string{}, lines...)
	var sealedLines []int
	for i, line := range lines {
		if strings.Contains(line, "ENC[") && !strings.HasPrefix(line, "#") && strings.Contains(line, ": ENC[") {
			sealedLines = append(sealedLines, i)
		}
	}
	a, b := sealedLines[0], sealedLines[1]
	nameA, valueA, _ := strings.Cut(lines[a], ": ")
	nameB, valueB, _ := strings.Cut(lines[b], ": ")
	swapped[a], swapped[b] = nameA+": "+valueB, nameB+": "+valueA
	for name, c := range map[string]struct {
		text string
		env  map[string]string
		want string
	}{
		"no key":               {text, nil, "there is no age key: put one into SOPS_AGE_KEY"},
		"another key":          {text, map[string]string{keyVariable: read(t, "other.txt")}, "it is encrypted for other age keys than those in SOPS_AGE_KEY"},
		"no key at all":        {text, map[string]string{keyVariable: "hunter2"}, "the environment variable SOPS_AGE_KEY has no age key"},
		"no such file":         {text, map[string]string{fileVariable: "/none"}, "the age keys of SOPS_AGE_KEY_FILE cannot be read: no such file or directory"},
		"a value replaced":     {strings.Replace(text, "number: ENC[", "number: 43 # ENC[", 1), right, "it was changed after it was encrypted"},
		"a plain value edited": {strings.Replace(text, "plain_unencrypted: 1.5", "plain_unencrypted: 1.6", 1), right, "it was changed after it was encrypted"},
		"a value removed":      {strings.Join(append(append([]string{}, lines[:a]...), lines[a+1:]...), "\n"), right, "it was changed after it was encrypted"},
		"a value added":        {"extra: 1\n" + text, right, "it was changed after it was encrypted"},
		"values swapped":       {strings.Join(swapped, "\n"), right, "cannot be decrypted: it was changed, or moved from elsewhere"},
		"broken":               {strings.Replace(text, "number: ENC[AES256_GCM,data:", "number: ENC[AES256_GCM,data:!!", 1), right, "the value of number cannot be decrypted"},
		"other keys":           {"a: ENC[x]\nsops: {mac: x, kms: [{arn: x}]}", right, "it is not encrypted for one group of age keys"},
		"mac of some":          {"a: ENC[x]\nsops: {mac: x, mac_only_encrypted: true, age: [{enc: x}]}", right, "mac_only_encrypted"},
		"no age message":       {"a: ENC[x]\nsops: {mac: x, age: [{enc: x}]}", right, "its data key cannot be decrypted"},
	} {
		_, err := decrypt(t, c.text, environment(t, c.env))
		require.Error(t, err, name)
		require.Contains(t, usererr.Message(err), c.want, name)
		for _, secret := range append(strings.Fields(key+read(t, "other.txt")), "hunter2") {
			if strings.HasPrefix(secret, "AGE-SECRET-KEY-") || secret == "hunter2" {
				require.NotContains(t, err.Error(), secret, name)
			}
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	for _, name := range []string{"types.yaml", "types.json", "flow.yaml"} {
		f.Add(read(f, name))
	}
	keys := environment(f, map[string]string{keyVariable: read(f, "key.txt")})
	f.Fuzz(func(t *testing.T, text string) {
		var doc yaml.Node
		if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) == 0 || !Encrypted(doc.Content[0]) {
			return
		}
		if _, err := Decrypt(doc.Content[0], keys); err != nil {
			require.NotEmpty(t, usererr.Message(err))
		}
	})
}
