package schema

import (
	"fmt"
	"io"
)

// Secret is a text that shows itself to nobody but whoever calls Reveal: not in a message, a log line, a dump of the
// configuration around it, nor as JSON. It is the type of fields that are tagged secret. The zero value is the empty text.
//
// The text lies behind a pointer because fmt does not ask the fields of a struct that are not exported how they want to be
// printed: it prints what they are made of, which is an address then.
type Secret struct{ text *string }

// hidden is what a secret looks like.
const hidden = "(hidden)"

// NewSecret makes a secret of a text.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal returns the text. What is done with it is the caller's responsibility: it must not come into a message.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the secret is empty; encoding/json asks it for omitzero.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String implements fmt.Stringer. An empty secret is shown as empty: that it is missing is worth knowing.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return hidden
}

// Format implements fmt.Formatter, for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return s.String() }

// MarshalText implements encoding.TextMarshaler. What is written cannot be read back.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}
