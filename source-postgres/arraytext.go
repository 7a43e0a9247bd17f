package main

import "errors"

var errArray = errors.New("not an array as the server prints it")

// maxDimensions is the server's own limit.
const maxDimensions = 6

// arrayPlan is how one type of arrays is written. It reads what the server prints, {1,NULL,"a b",{2}} with bounds before it
// where they are not 1 ("[0:1]={5,6}"), and writes JSON arrays, nested for several dimensions.
type arrayPlan struct {
	elem  encoder
	delim byte
	// exact says that an array which JSON does not tell from another one comes as printed: one with bounds, or with
	// several dimensions whose elements may be JSON arrays themselves (lists).
	exact, lists bool
}

func newArrayPlan(t *dataType) *arrayPlan {
	lists := t.elem.kind == kindArray || ((t.elem.kind == kindJSON || t.elem.kind == kindJSONB) && !t.elem.exact)
	return &arrayPlan{elem: t.elem.textEncoder(false), delim: t.delim, exact: t.exact, lists: lists}
}

// append is the type's encoder.
func (p *arrayPlan) append(dst, v []byte) ([]byte, error) {
	if v == nil {
		return appendNull(dst), nil
	}
	bounds := 0
	if len(v) > 0 && v[0] == '[' {
		for bounds < len(v) && v[bounds] != '=' {
			bounds++
		}
		bounds++
	}
	if bounds >= len(v) {
		return dst, errArray
	}
	if p.exact && (bounds > 0 || (p.lists && len(v) > 1 && v[1] == '{')) {
		return appendText(dst, v)
	}
	return p.elements(dst, v[bounds:])
}

// elements walks through the braces.
func (p *arrayPlan) elements(dst, v []byte) ([]byte, error) {
	var (
		depth int
		err   error
		open  = true // at a place where an element may begin
		empty bool   // behind an opening brace
	)
	for i := 0; i < len(v); {
		c := v[i]
		switch {
		case c == '{' && open:
			if depth++; depth > maxDimensions {
				return dst, errArray
			}
			dst, empty = append(dst, '['), true
			i++
			continue
		case c == '}' && (!open || empty):
			dst = append(dst, ']')
			i++
			if depth--; depth == 0 {
				if i < len(v) {
					return dst, errArray
				}
				return dst, nil
			}
			open, empty = false, false
			continue
		case depth == 0:
			return dst, errArray
		case !open:
			if c != p.delim {
				return dst, errArray
			}
			dst, open, empty = append(dst, ','), true, false
			i++
			continue
		}
		if c == '"' {
			dst, i, err = p.quoted(dst, v, i+1)
		} else {
			dst, i, err = p.plain(dst, v, i)
		}
		if err != nil {
			return dst, err
		}
		open, empty = false, false
	}
	return dst, errArray
}

// plain writes the element without quotes at v[i:] and returns where it ends.
func (p *arrayPlan) plain(dst, v []byte, i int) ([]byte, int, error) {
	end := i
	for end < len(v) && v[end] != p.delim && v[end] != '}' {
		end++
	}
	if end == i {
		return dst, end, errArray
	}
	if string(v[i:end]) == "NULL" {
		return appendNull(dst), end, nil
	}
	dst, err := p.elem(dst, v[i:end])
	return dst, end, err
}

// quoted writes the element whose opening quote is before v[i:] and returns where it ends, behind its closing quote. One
// with backslashes is put without them where its JSON will be, and that is written behind it and moved over it, so that no
// memory of its own is needed.
func (p *arrayPlan) quoted(dst, v []byte, i int) ([]byte, int, error) {
	end := i
	for end < len(v) && v[end] != '"' && v[end] != '\\' {
		end++
	}
	if end < len(v) && v[end] == '"' {
		dst, err := p.elem(dst, v[i:end:end])
		return dst, end + 1, err
	}
	start := len(dst)
	dst = append(dst, v[i:end]...)
	for ; end < len(v) && v[end] != '"'; end++ {
		if v[end] == '\\' {
			end++
		}
		if end < len(v) {
			dst = append(dst, v[end])
		}
	}
	if end >= len(v) {
		return dst[:start], end, errArray
	}
	size := len(dst) - start
	dst, err := p.elem(dst, dst[start:start+size:start+size])
	if err != nil {
		return dst, end, err
	}
	n := copy(dst[start:], dst[start+size:])
	return dst[:start+n], end + 1, nil
}
