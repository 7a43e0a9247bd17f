package sops

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// Variables of the environment where sops looks for age keys; the first two mean the same to us.
const (
	keyVariable  = "SOPS_AGE_KEY"
	fileVariable = "SOPS_AGE_KEY_FILE"
)

// Keys is where age keys are looked for, in the environment.
type Keys struct {
	LookupEnv func(name string) (value string, ok bool)
}

// dataKey decrypts the key of a document by the first age key that fits.
func (k Keys) dataKey(meta metadata) ([]byte, error) {
	identities, err := k.identities()
	if err != nil {
		return nil, err
	}
	for _, recipient := range meta.Age {
		plain, err := age.Decrypt(armor.NewReader(strings.NewReader(recipient.Enc)), identities...)
		if _, none := errors.AsType[*age.NoIdentityMatchError](err); none {
			continue
		}
		if err != nil {
			return nil, usererr.New(err, "its data key cannot be decrypted: it was changed")
		}
		return io.ReadAll(plain)
	}
	return nil, usererr.New(nil, "it is encrypted for other age keys than those in %s, in the file that %s names, and in %s", keyVariable, fileVariable, k.defaultFile())
}

// identities reads all keys that are there: from the variables, and from sops's own place.
func (k Keys) identities() (all []age.Identity, err error) {
	if text, ok := k.LookupEnv(keyVariable); ok && text != "" {
		found, err := age.ParseIdentities(strings.NewReader(text))
		if err != nil {
			return nil, usererr.New(nil, "the environment variable %s has no age key: each line is one, beginning with AGE-SECRET-KEY-1", keyVariable)
		}
		all = append(all, found...)
	}
	if file, ok := k.LookupEnv(fileVariable); ok && file != "" {
		found, err := readKeys(file)
		if err != nil {
			return nil, usererr.New(err, "the age keys of %s cannot be read: %s", fileVariable, problem(err))
		}
		all = append(all, found...)
	}
	found, err := readKeys(k.defaultFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, usererr.New(err, "the age keys in %s cannot be read: %s", k.defaultFile(), problem(err))
	}
	if all = append(all, found...); len(all) == 0 {
		return nil, usererr.New(nil, "it is encrypted, and there is no age key: put one into %s, or name a file with keys in %s, or put one into %s", keyVariable, fileVariable, k.defaultFile())
	}
	return all, nil
}

// problem is an error without what a file has in it: age quotes lines that it does not understand.
func problem(err error) string {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err.Error()
	}
	return "it has lines that are no keys"
}

func readKeys(file string) ([]age.Identity, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := age.ParseIdentities(f)
	if err != nil {
		return nil, errors.New(problem(err)) // without its cause, which may quote a key
	}
	return found, nil
}

// defaultFile is where sops keeps keys.
func (k Keys) defaultFile() string {
	if folder, ok := k.LookupEnv("XDG_CONFIG_HOME"); ok && folder != "" {
		return filepath.Join(folder, "sops", "age", "keys.txt")
	}
	home, _ := k.LookupEnv("HOME")
	return filepath.Join(home, ".config", "sops", "age", "keys.txt")
}
