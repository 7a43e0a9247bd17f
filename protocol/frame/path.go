package frame

import (
	"errors"
	"fmt"
	"strings"
)

// pathError says in which field of a message something is wrong: open.capture.bindings[3].collection: …
type pathError struct {
	path string
	err  error
}

func (e *pathError) Error() string { return e.path + ": " + e.err.Error() }
func (e *pathError) Unwrap() error { return e.err }

func inField(name string, err error) error {
	var inner *pathError
	if !errors.As(err, &inner) {
		return &pathError{path: name, err: err}
	}
	if strings.HasPrefix(inner.path, "[") {
		inner.path = name + inner.path
	} else {
		inner.path = name + "." + inner.path
	}
	return inner
}

func inElement(i int, err error) error { return inField(fmt.Sprintf("[%d]", i), err) }
