package main

import (
	"encoding/json"
	"errors"
	"fmt"
)

var errNotObject = errors.New("a document is not a JSON object")

// eachMember calls f with the name of every member of a JSON object; the name is valid until f returns. It does not look
// at what is inside the members, and trusts that the runtime sends valid JSON, so it is cheap.
func eachMember(doc []byte, f func(name []byte)) error {
	i := skipSpace(doc, 0)
	if i >= len(doc) || doc[i] != '{' {
		return errNotObject
	}
	for i = skipSpace(doc, i+1); i < len(doc) && doc[i] == '"'; i = skipSpace(doc, i+1) {
		end := skipText(doc, i)
		name, err := memberName(doc[i:end])
		if err != nil {
			return err
		}
		f(name)
		if i = skipSpace(doc, end); i >= len(doc) || doc[i] != ':' {
			return errNotObject
		}
		if i = skipValue(doc, i+1); i >= len(doc) || doc[i] != ',' {
			break
		}
	}
	if i >= len(doc) || doc[i] != '}' {
		return errNotObject
	}
	return nil
}

// memberName is a name without its quotes and escapes.
func memberName(text []byte) ([]byte, error) {
	for _, c := range text {
		if c == '\\' {
			var name string
			if err := json.Unmarshal(text, &name); err != nil {
				return nil, fmt.Errorf("reading the name of a member: %w", err)
			}
			return []byte(name), nil
		}
	}
	if len(text) < 2 {
		return nil, errNotObject
	}
	return text[1 : len(text)-1], nil
}

// skipValue returns where the comma or bracket is that ends a value.
func skipValue(doc []byte, i int) int {
	for depth := 0; i < len(doc); {
		switch doc[i] {
		case '"':
			i = skipText(doc, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// skipText returns what is behind the text that begins at i.
func skipText(doc []byte, i int) int {
	for i++; i < len(doc); i++ {
		switch doc[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(doc)
}

func skipSpace(doc []byte, i int) int {
	for i < len(doc) && (doc[i] == ' ' || doc[i] == '\n' || doc[i] == '\t' || doc[i] == '\r') {
		i++
	}
	return i
}
