// Package fieldpath says in errors which field of a message is meant: open.capture.bindings[3].collection.key.
// Names are those of the JSON codec, which is what people see.
package fieldpath

import (
	"errors"
	"fmt"
	"strings"
)

// Error is an error with the way to its field.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the error without its path.
func (e *Error) Unwrap() error { return e.Err }

// In puts a field's name in front of an error's path; nil stays nil. An error from In or At is changed, not wrapped again.
func In(name string, err error) error {
	if err == nil {
		return nil
	}
	var inner *Error
	if !errors.As(err, &inner) {
		return &Error{Path: name, Err: err}
	}
	if strings.HasPrefix(inner.Path, "[") {
		inner.Path = name + inner.Path
	} else {
		inner.Path = name + "." + inner.Path
	}
	return inner
}

// At is In for the element i of a list.
func At(i int, err error) error { return In(fmt.Sprintf("[%d]", i), err) }

// InAt is In and At: the element i of the list name.
func InAt(name string, i int, err error) error { return In(name, At(i, err)) }
