package main

import (
	"bytes"
	"errors"
)

var errArray = errors.New("not an array as the server prints it")

// arrayEncoder reads what the server prints for arrays, {1,NULL,"a b",{2}} with bounds before it where they are not 1
// ("[0:1]={5,6}"), and writes JSON arrays, nested for several dimensions. The bounds are left out.
func arrayEncoder(t *dataType) encoder {
	elem := t.elem.textEncoder(false)
	delim := t.delim
	return func(dst, v []byte) ([]byte, error) {
		if v == nil {
			return appendNull(dst), nil
		}
		if len(v) > 0 && v[0] == '[' {
			v = v[bytes.IndexByte(v, '=')+1:]
		}
		a := arrayReader{rest: v, delim: delim, elem: elem}
		dst, err := a.array(dst)
		if err == nil && len(a.rest) > 0 {
			err = errArray
		}
		return dst, err
	}
}

// arrayReader walks through an array's text.
type arrayReader struct {
	rest  []byte
	delim byte
	elem  encoder
	depth int
}

// maxDimensions is the server's own limit.
const maxDimensions = 6

// array reads one pair of braces.
func (a *arrayReader) array(dst []byte) ([]byte, error) {
	if a.depth++; len(a.rest) == 0 || a.rest[0] != '{' || a.depth > maxDimensions {
		return dst, errArray
	}
	defer func() { a.depth-- }()
	a.rest, dst = a.rest[1:], append(dst, '[')
	for first := true; ; first = false {
		if len(a.rest) == 0 {
			return dst, errArray
		}
		if a.rest[0] == '}' {
			a.rest = a.rest[1:]
			return append(dst, ']'), nil
		}
		if !first {
			if a.rest[0] != a.delim || len(a.rest) < 2 {
				return dst, errArray
			}
			a.rest, dst = a.rest[1:], append(dst, ',')
		}
		var err error
		if dst, err = a.element(dst); err != nil {
			return dst, err
		}
	}
}

func (a *arrayReader) element(dst []byte) ([]byte, error) {
	switch a.rest[0] {
	case '{':
		return a.array(dst)
	case '"':
		v, err := a.quoted()
		if err != nil {
			return dst, err
		}
		return a.elem(dst, v)
	}
	n := bytes.IndexAny(a.rest, string([]byte{a.delim, '}'}))
	if n <= 0 {
		return dst, errArray
	}
	v := a.rest[:n]
	a.rest = a.rest[n:]
	if string(v) == "NULL" {
		return appendNull(dst), nil
	}
	return a.elem(dst, v)
}

// quoted takes "…" from the front, without its quotes and backslashes. The result is never nil.
func (a *arrayReader) quoted() ([]byte, error) {
	s := a.rest[1:]
	n := bytes.IndexAny(s, `"\`)
	if n >= 0 && s[n] == '"' {
		a.rest = s[n+1:]
		return s[:n:n], nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			a.rest = s[i+1:]
			return out, nil
		case '\\':
			if i++; i == len(s) {
				return nil, errArray
			}
		}
		out = append(out, s[i])
	}
	return nil, errArray
}
