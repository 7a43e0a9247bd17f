// Package sops decrypts YAML and JSON documents that sops (https://getsops.io) has encrypted for age keys. It does so in memory, and touches no
// file but the keys'. docs/decisions/0032-sops-in-memory.md says why it is not sops's own library.
//
// An encrypted document has its keys in plain text and its values as
//
//	password: ENC[AES256_GCM,data:<base64>,iv:<base64>,tag:<base64>,type:str]
//
// with the path of the value as additional data, so that values cannot be swapped. The member "sops" has the data key, encrypted for each
// recipient, and a code over all values in their order, so that none can be left out or added.
package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// metadata is what we need of the member "sops".
type metadata struct {
	Age []struct {
		Enc string `yaml:"enc"`
	} `yaml:"age"`
	KeyGroups    []yaml.Node `yaml:"key_groups"`
	Threshold    int         `yaml:"shamir_threshold"`
	LastModified string      `yaml:"lastmodified"`
	MAC          string      `yaml:"mac"`
	OnlyEnc      bool        `yaml:"mac_only_encrypted"`
	Suffix       string      `yaml:"encrypted_suffix"`
}

const member = "sops"

// flowSuffix marks encrypted members in Flow's catalogs. Connectors know them without it.
const flowSuffix = "_sops"

// Encrypted tells whether a mapping was encrypted by sops.
func Encrypted(root *yaml.Node) bool { return metadataOf(root) >= 0 }

func metadataOf(root *yaml.Node) int {
	if root.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != member || root.Content[i+1].Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j+1 < len(root.Content[i+1].Content); j += 2 {
			if root.Content[i+1].Content[j].Value == "mac" {
				return i
			}
		}
	}
	return -1
}

// Decrypt replaces the encrypted values of a mapping by what they were, and takes its member "sops" away. It returns the values that were
// encrypted, which are nodes of the mapping. A document that was changed without the key is an error, and what was decrypted of it must
// not be used. Errors are for people; no secret is in them.
func Decrypt(root *yaml.Node, keys Keys) ([]*yaml.Node, error) {
	at := metadataOf(root)
	var meta metadata
	if err := root.Content[at+1].Decode(&meta); err != nil {
		return nil, usererr.New(err, `the member "sops" is not what sops writes`)
	}
	switch {
	case len(meta.Age) == 0 || len(meta.KeyGroups) > 1 || meta.Threshold > 1:
		return nil, usererr.New(nil, "it is not encrypted for one group of age keys, and sluice knows no others: decrypt it by `sops decrypt` and a pipe, or encrypt it with `sops encrypt --age`")
	case meta.OnlyEnc:
		return nil, usererr.New(nil, "it is encrypted with mac_only_encrypted, so that everybody can change its plain values: encrypt it without this option")
	}
	key, err := keys.dataKey(meta)
	if err != nil {
		return nil, err
	}
	w := &walker{key: key, mac: sha512.New()}
	root.Content = append(root.Content[:at:at], root.Content[at+2:]...)
	if err := w.walk(root, nil); err != nil {
		return nil, err
	}
	want, _, err := w.open(meta.MAC, meta.LastModified)
	if err != nil || !hmac.Equal([]byte(strings.ToUpper(hex.EncodeToString(w.mac.Sum(nil)))), want) {
		return nil, usererr.New(err, "it was changed after it was encrypted: edit it with sops")
	}
	if meta.Suffix == flowSuffix {
		stripSuffix(root)
	}
	return w.opened, nil
}

// walker goes through the values of a document in their order.
type walker struct {
	key    []byte
	mac    hash.Hash
	opened []*yaml.Node // that were encrypted
}

func (w *walker) walk(n *yaml.Node, path []string) error {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if err := w.walk(n.Content[i+1], append(path, n.Content[i].Value)); err != nil {
				return err
			}
		}
	case yaml.SequenceNode:
		for _, value := range n.Content { // a list's elements have the list's path
			if err := w.walk(value, path); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		if err := w.scalar(n, path); err != nil {
			return usererr.New(err, "the value of %s cannot be decrypted: it was changed, or moved from elsewhere", strings.Join(path, "."))
		}
	default:
		return usererr.New(nil, "%s is an alias, which an encrypted document cannot have", strings.Join(path, "."))
	}
	return nil
}

func (w *walker) scalar(n *yaml.Node, path []string) error {
	if n.Tag == "!!null" {
		return nil // sops leaves it as it is, and does not count it
	}
	if !strings.HasPrefix(n.Value, "ENC[") {
		var value any
		if err := n.Decode(&value); err != nil {
			return err
		}
		return w.count(value)
	}
	plain, kind, err := w.open(n.Value, strings.Join(path, ":")+":")
	if err != nil {
		return err
	}
	value, tag, err := typed(string(plain), kind)
	if err != nil {
		return errors.New("it is not of type " + kind) // without its cause, which quotes the value
	}
	n.Value, n.Tag, n.Style = string(plain), tag, 0
	w.opened = append(w.opened, n)
	return w.count(value)
}

// typed is a decrypted value, and its tag in YAML.
func typed(text, kind string) (value any, tag string, err error) {
	switch kind {
	case "str", "bytes":
		return text, "!!str", nil
	case "int":
		value, err = strconv.Atoi(text)
		return value, "!!int", err
	case "float":
		value, err = strconv.ParseFloat(text, 64)
		return value, "!!float", err
	case "bool":
		value, err = strconv.ParseBool(text)
		return value, "!!bool", err
	case "time":
		var when time.Time
		err = when.UnmarshalText([]byte(text))
		return when, "!!str", err
	}
	return nil, "", fmt.Errorf("unknown type %q", kind)
}

// count adds a value to the code, in the form that sops gives it there.
func (w *walker) count(value any) error {
	var text string
	switch v := value.(type) {
	case string:
		text = v
	case int:
		text = strconv.Itoa(v)
	case float64:
		text = strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		text = "False"
		if v {
			text = "True"
		}
	case time.Time:
		t, err := v.MarshalText()
		if err != nil {
			return err
		}
		text = string(t)
	default:
		return fmt.Errorf("a value of type %T", value)
	}
	w.mac.Write([]byte(text))
	return nil
}

var sealed = regexp.MustCompile(`^ENC\[AES256_GCM,data:([^,]*),iv:([^,]+),tag:([^,]+),type:(\w+)\]$`)

// open decrypts one value.
func (w *walker) open(text, additional string) (plain []byte, kind string, err error) {
	parts := sealed.FindStringSubmatch(text)
	if parts == nil {
		return nil, "", errors.New("not the form of an encrypted value")
	}
	var raw [3][]byte
	for i := range raw {
		if raw[i], err = base64.StdEncoding.DecodeString(parts[i+1]); err != nil {
			return nil, "", errors.New("not base64")
		}
	}
	block, err := aes.NewCipher(w.key)
	if err != nil {
		return nil, "", err
	}
	const tagSize = 16
	if len(raw[1]) == 0 || len(raw[2]) != tagSize {
		return nil, "", errors.New("a wrong nonce or tag")
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(raw[1]))
	if err != nil {
		return nil, "", err
	}
	plain, err = gcm.Open(nil, raw[1], append(raw[0], raw[2]...), []byte(additional))
	return plain, parts[4], err
}

// stripSuffix gives members the names that connectors know.
func stripSuffix(n *yaml.Node) {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			child.Value = strings.TrimSuffix(child.Value, flowSuffix)
			continue
		}
		stripSuffix(child)
	}
}
