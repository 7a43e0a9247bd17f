// Package reference resolves what configurations take from elsewhere, so that secrets need not stand in them:
//
//	${NAME}         the environment variable NAME
//	${file:PATH}    the content of a file, without the line end that editors put there
//	$${             the two characters ${ themselves
//
// It is the one notation of connectors' command lines and of pipeline files.
package reference

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Surroundings are where references lead to. The zero value has no variables, and paths relative to the working folder.
type Surroundings struct {
	// LookupEnv looks an environment variable up; ok is false for one that is not set.
	LookupEnv func(name string) (value string, ok bool)
	// Dir is the folder that relative paths begin at.
	Dir string
}

// maxFile is how large a file may be that is put into a configuration: a certificate chain is a few kilobytes.
const maxFile = 1 << 20

// Used reports whether the text may have a reference.
func Used(text string) bool { return strings.Contains(text, "${") }

// Resolve replaces the references in a text. What it puts in is not looked at again. A variable that is not set, or a
// file that cannot be read, is an error, for an empty password is never what was meant. Errors name the reference, as a
// sentence without its end, and never a value.
func (s Surroundings) Resolve(text string) (string, error) {
	var out strings.Builder
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			out.WriteString(text)
			return out.String(), nil
		}
		if i > 0 && text[i-1] == '$' {
			out.WriteString(text[:i-1] + "${")
			text = text[i+2:]
			continue
		}
		name, after, closed := strings.Cut(text[i+2:], "}")
		if !closed {
			return "", errors.New("${ without its closing brace; write $${ for the two characters themselves")
		}
		value, err := s.value(name)
		if err != nil {
			return "", err
		}
		out.WriteString(text[:i] + value)
		text = after
	}
}

func (s Surroundings) value(name string) (string, error) {
	if file, ok := strings.CutPrefix(name, "file:"); ok {
		return s.content(file)
	}
	if s.LookupEnv != nil {
		if value, ok := s.LookupEnv(name); ok {
			return value, nil
		}
	}
	return "", fmt.Errorf("the environment variable %s is not set", name)
}

func (s Surroundings) content(name string) (string, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(s.Dir, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", name, reason(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read %s: %w", name, reason(err))
	case len(text) > maxFile:
		return "", fmt.Errorf("the file %s is larger than %d MiB", name, maxFile>>20)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

// reason is a file system's error without the path, which the sentence around it names.
func reason(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
