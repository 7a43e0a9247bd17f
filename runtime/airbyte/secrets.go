package airbyte

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	// minSecret is how many bytes a text or a number has to have to be looked for by itself. Shorter ones, such as 1, are in every other word:
	// to replace them everywhere would ruin the text, and hide nothing, since what is left of a word tells what is missing.
	minSecret = 4
	// shown is what stands in a text for a secret.
	shown = "(secret)"
	// saltBytes are random, and as many as nobody has tables for.
	saltBytes = 16
	// rounds make every guess at a fingerprint cost some ten milliseconds of a processor.
	rounds = 100_000
)

// secrets replaces the secrets of one configuration in texts. It is made once, and used by any number of goroutines; nil replaces nothing.
//
//   - Texts of minSecret bytes and more are replaced wherever they stand, in all forms in which programs write them.
//   - Numbers of as many digits are replaced where they are numbers of their own, and not a part of others.
//   - Shorter ones, and truth values, are replaced where they stand behind the name of their field, as in "pin": 12, pin=12 or 'debug': True.
type secrets struct {
	texts   *strings.Replacer
	numbers []string
	beside  *regexp.Regexp // nil if there are none
}

// findSecrets collects the values of the fields with these names, and of all fields in them, wherever they stand.
func findSecrets(config json.RawMessage, names []string) (*secrets, error) {
	root, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	var texts, beside []string
	s := &secrets{}
	short := func(name, value string, listed bool) {
		if listed {
			value = `\[[^\]]*\]`
		}
		// What is between them: quotes, which may be escaped, and a colon, an equals sign or an arrow.
		beside = append(beside, `\b`+regexp.QuoteMeta(name)+`[\\"']*\s*(?::|=>|=)\s*[\\"']*`+value)
	}
	eachSecret(root, names, func(name string, value any, listed bool) {
		switch v := value.(type) {
		case string:
			// Those of several lines, such as keys, are also written line by line.
			for _, one := range append(strings.Split(v, "\n"), v) {
				if one = strings.TrimSpace(one); len(one) >= minSecret {
					texts = append(texts, forms(one)...)
				} else if one != "" {
					short(name, regexp.QuoteMeta(one)+ifWord(one), listed)
				}
			}
		case json.Number:
			for _, one := range numberForms(v) {
				if len(one) >= minSecret {
					s.numbers = append(s.numbers, one)
				} else {
					short(name, regexp.QuoteMeta(one)+`\b`, listed)
				}
			}
		case bool:
			short(name, strconv.FormatBool(v)+`\b`, listed)
		}
	})
	byLength := func(x, y string) int { return len(y) - len(x) } // one may begin with another
	slices.SortFunc(texts, byLength)
	slices.SortFunc(s.numbers, byLength)
	var pairs []string
	for _, secret := range texts {
		pairs = append(pairs, secret, shown)
	}
	s.texts = strings.NewReplacer(pairs...)
	if len(beside) > 0 {
		if s.beside, err = regexp.Compile(`(?i)(?:` + strings.Join(beside, "|") + `)`); err != nil {
			return nil, fmt.Errorf("looking for secrets: %w", err)
		}
	}
	return s, nil
}

// ifWord is that a word ends, behind a text that ends as words do.
func ifWord(text string) string {
	if last := text[len(text)-1]; last == '_' || last >= '0' && last <= '9' || last|0x20 >= 'a' && last|0x20 <= 'z' {
		return `\b`
	}
	return ""
}

// forms are how programs write a text.
func forms(text string) []string {
	quoted, _ := json.Marshal(text) // a string
	return []string{text, url.QueryEscape(text), url.PathEscape(text), string(quoted[1 : len(quoted)-1]), strings.ReplaceAll(text, `"`, `\"`)}
}

// numberForms are how programs write a number.
func numberForms(n json.Number) []string {
	list := []string{n.String()}
	if f, err := n.Float64(); err == nil && strings.ContainsAny(n.String(), ".eE") {
		for _, format := range []byte{'f', 'g'} {
			if text := strconv.FormatFloat(f, format, -1, 64); !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	}
	return list
}

// replace is a text without secrets.
func (s *secrets) replace(text string) string {
	if s == nil {
		return text
	}
	text = s.texts.Replace(text)
	if s.beside != nil {
		text = s.beside.ReplaceAllStringFunc(text, func(found string) string {
			// The name and what follows it stay: the value is behind the last mark between them.
			i := 1 + strings.IndexAny(found, ":=")
			for i < len(found) && strings.IndexByte("> \t\\\"'", found[i]) >= 0 {
				i++
			}
			return found[:i] + shown
		})
	}
	for _, n := range s.numbers {
		text = replaceNumber(text, n)
	}
	return text
}

// replaceNumber replaces a number where it is no part of a longer one, nor of a word.
func replaceNumber(text, n string) string {
	var b strings.Builder
	for from := 0; ; {
		i := strings.Index(text[from:], n)
		if i < 0 {
			return b.String() + text[from:]
		}
		i += from
		end := i + len(n)
		b.WriteString(text[from:i])
		if ownBegin(text[:i]) && (end == len(text) || !wordByte(text[end])) {
			b.WriteString(shown)
			from = end
			continue
		}
		b.WriteByte(text[i])
		from = i + 1
	}
}

// escape ends a text with a character that is written as letters or digits.
var escape = regexp.MustCompile(`(?:\\[nrt]|\\u[0-9a-fA-F]{4}|%[0-9a-fA-F]{2})$`)

// ownBegin tells whether a number may begin behind a text.
func ownBegin(before string) bool {
	return before == "" || !wordByte(before[len(before)-1]) || escape.MatchString(before[max(0, len(before)-6):])
}

// wordByte tells whether a byte is of a word. Those of letters beyond ASCII are.
func wordByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// eachSecret calls found with the values, neither objects nor lists, of the fields with these names, and of all in them: with the name of the nearest field,
// and whether it has a list of them.
func eachSecret(root any, names []string, found func(name string, value any, listed bool)) {
	var walk func(secret bool, name string, node any, listed bool)
	walk = func(secret bool, name string, node any, listed bool) {
		switch v := node.(type) {
		case map[string]any:
			for name, inner := range v {
				walk(secret || slices.Contains(names, name), name, inner, false)
			}
		case []any:
			for _, inner := range v {
				walk(secret, name, inner, true)
			}
		default:
			if secret {
				found(name, v, listed)
			}
		}
	}
	walk(false, "", root, false)
}

// parseConfig reads a configuration, with its numbers as they are written.
func parseConfig(config json.RawMessage) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber()
	var root any
	if err := decoder.Decode(&root); err != nil {
		return nil, usererr.New(err, "The configuration is not JSON.")
	}
	return root, nil
}

// withoutSecrets is a configuration, in a canonical form, with nothing in the place of the fields with these names.
func withoutSecrets(config json.RawMessage, names []string) ([]byte, error) {
	root, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	var drop func(node any)
	drop = func(node any) {
		switch v := node.(type) {
		case map[string]any:
			for name, inner := range v {
				if slices.Contains(names, name) {
					delete(v, name)
					continue
				}
				drop(inner)
			}
		case []any:
			for _, inner := range v {
				drop(inner)
			}
		}
	}
	drop(root)
	return json.Marshal(root)
}

// newSalt makes the salt of a fingerprint.
func newSalt() string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // which never fails
	return hex.EncodeToString(salt)
}

// fingerprint changes with the source and its configuration, apart from its secrets. It is kept in the state, which is a file: it must not help to guess what
// the configuration has. What the form calls secret is not in it, so that nobody can learn that from it. Because forms are not always right about
// that, it is salted, and slow to compute, as fingerprints of passwords are.
func fingerprint(source, salt string, config json.RawMessage, names []string) (string, error) {
	rest, err := withoutSecrets(config, names)
	if err != nil {
		return "", err
	}
	sum, err := pbkdf2.Key(sha256.New, source+"\x00"+string(rest), []byte(salt), rounds, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("computing a fingerprint: %w", err)
	}
	return hex.EncodeToString(sum), nil
}
