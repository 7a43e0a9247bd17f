// Package usererr separates what people read from what programs keep. A user error is a message in plain words, what is
// wrong and what to do about it, over the cause that a log or a caller may still want.
//
// The message must hold no Go names, no stack of wrapped phrases and never a secret; the cause stays reachable by
// errors.Is and errors.As.
package usererr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// userError is one message over its cause.
type userError struct {
	message string
	cause   error
}

func (e *userError) Error() string {
	if e.cause == nil {
		return e.message
	}
	return e.message + ": " + e.cause.Error()
}

func (e *userError) Unwrap() error { return e.cause }

// New makes an error whose message people read, over a cause that may be nil. The format is fmt.Sprintf's; do not put
// the cause into it, Error appends it for logs and Message leaves it out.
func New(cause error, format string, args ...any) error {
	return &userError{message: fmt.Sprintf(format, args...), cause: cause}
}

// joined is many problems in one answer.
type joined struct {
	intro string
	errs  []error
}

func (e *joined) Error() string   { return e.text(error.Error) }
func (e *joined) Unwrap() []error { return e.errs }

func (e *joined) text(one func(error) string) string {
	var b strings.Builder
	b.WriteString(e.intro)
	for i, err := range e.errs {
		if i > 0 || e.intro != "" {
			b.WriteByte('\n')
		}
		b.WriteString(strconv.Itoa(i+1) + ". ")
		// A message of several lines stays under its number.
		b.WriteString(strings.ReplaceAll(one(err), "\n", "\n   "))
	}
	return b.String()
}

// Join makes one answer of many problems: the intro ("The configuration has 3 problems:"), then the problems numbered,
// one a line. Nil errors are left out and joined problems without an intro of their own are counted one by one. With no
// problem it returns nil; a single problem is returned as it is, without intro and number.
func Join(intro string, errs []error) error {
	var all []error
	for _, err := range errs {
		var j *joined
		switch {
		case err == nil:
		case errors.As(err, &j) && err == error(j) && j.intro == "": //nolint:errorlint // only a bare list is flattened
			all = append(all, j.errs...)
		default:
			all = append(all, err)
		}
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	default:
		return &joined{intro: intro, errs: all}
	}
}

// Message is what to show to people: the message of the outermost user error in the chain, or of every problem that was
// joined; for an error without one, err.Error(). A nil error gives "".
func Message(err error) string {
	if err == nil {
		return ""
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch e := e.(type) { //nolint:errorlint // walks the chain itself, outermost first
		case *userError:
			return e.message
		case *joined:
			return e.text(Message)
		}
	}
	return err.Error()
}

// Has reports whether the error has words for people: a user error in its chain, or problems that were joined.
func Has(err error) bool {
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch e.(type) { //nolint:errorlint // walks the chain itself
		case *userError, *joined:
			return true
		}
	}
	return false
}
