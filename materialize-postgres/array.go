package main

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/sluicedata/sluice/sdk/tuple"
)

var (
	errNotArray    = errors.New("it is not an array")
	errRagged      = errors.New("its parts are not of one length, as those of an array in Postgres must be, or one of them is empty")
	errObjectInRow = errors.New("it contains an object")
)

// encodeArray writes a JSON array as the text of an array, which Postgres casts to the column's type.
func encodeArray(dst []byte, e tuple.Element) ([]byte, error) {
	switch e.Kind {
	case tuple.Nil:
		return appendNull(dst), nil
	case tuple.String:
		return encodeText(dst, e) // the column's type was chosen by people, and so was the text
	case tuple.Bytes:
		return measured(dst, func(dst []byte) ([]byte, error) {
			w := arrayWriter{dst: dst}
			err := w.array(e.Bytes, 0)
			return w.dst, err
		})
	default:
		return dst, errNotArray
	}
}

// arrayWriter writes one array.
type arrayWriter struct {
	dst []byte
	// sizes are the numbers of elements by depth, as far as they are known.
	sizes []int
	// leaf is the depth at which elements are no arrays, once there is one.
	leaf int
}

func (w *arrayWriter) array(text []byte, depth int) error {
	var items []json.RawMessage
	if err := json.Unmarshal(text, &items); err != nil {
		return errNotArray
	}
	switch {
	case depth == len(w.sizes) && (w.leaf == 0 || depth < w.leaf):
		w.sizes = append(w.sizes, len(items))
	case depth >= len(w.sizes) || w.sizes[depth] != len(items):
		return errRagged
	}
	if depth > 0 && len(items) == 0 {
		return errRagged
	}
	w.dst = append(w.dst, '{')
	for i, item := range items {
		if i > 0 {
			w.dst = append(w.dst, ',')
		}
		if err := w.element(item, depth+1); err != nil {
			return err
		}
	}
	w.dst = append(w.dst, '}')
	return nil
}

func (w *arrayWriter) element(item []byte, depth int) error {
	if item[0] == '[' {
		return w.array(item, depth)
	}
	if w.leaf == 0 {
		w.leaf = depth
	}
	if w.leaf != depth || len(w.sizes) != depth {
		return errRagged
	}
	switch {
	case item[0] == '{':
		return errObjectInRow
	case string(item) == "null":
		w.dst = append(w.dst, "NULL"...)
	case item[0] == '"':
		return w.text(item)
	default:
		w.dst = append(w.dst, item...)
	}
	return nil
}

func (w *arrayWriter) text(item []byte) error {
	var s string
	if err := json.Unmarshal(item, &s); err != nil {
		return errNotArray
	}
	w.dst = append(w.dst, '"')
	for _, c := range bytes.ReplaceAll([]byte(s), []byte{0}, []byte("\uFFFD")) {
		if c == '"' || c == '\\' {
			w.dst = append(w.dst, '\\')
		}
		w.dst = append(w.dst, c)
	}
	w.dst = append(w.dst, '"')
	return nil
}
