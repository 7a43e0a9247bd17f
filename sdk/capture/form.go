package capture

import (
	"bytes"
	"encoding/json"
	"fmt"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
)

// form is how documents are written to the output: as frames of the protocol, or as lines for people.
type form struct {
	codec frame.Codec
	lines bool // one document a line instead of frames
	named bool // lines say which binding they belong to
	// record, if it is not nil, appends a document in another notation, on lines.
	record func(dst []byte, h *handle, enc func([]byte) ([]byte, error)) ([]byte, error)
}

// appendDocument appends one document of a binding. On an error nothing has been appended.
func (f form) appendDocument(dst []byte, h *handle, enc func([]byte) ([]byte, error)) ([]byte, error) {
	if f.record != nil {
		return f.record(dst, h, enc)
	}
	if f.lines {
		return f.appendLine(dst, h, enc)
	}
	return capturepb.AppendCaptured(dst, f.codec, h.index, enc)
}

// appendDoc is appendDocument for a document that is encoded already.
func (f *form) appendDoc(dst []byte, h *handle, doc []byte) ([]byte, error) {
	switch {
	case f.record != nil, f.lines && (f.named || bytes.IndexByte(doc, '\n') >= 0):
		return f.appendDocument(dst, h, func(dst []byte) ([]byte, error) { return append(dst, doc...), nil })
	case f.lines:
		return append(append(dst, doc...), '\n'), nil
	default:
		return capturepb.AppendCapturedDoc(dst, f.codec, h.index, doc), nil
	}
}

func (f form) appendLine(dst []byte, h *handle, enc func([]byte) ([]byte, error)) ([]byte, error) {
	start := len(dst)
	if f.named {
		dst = append(dst, h.lineStart...)
	}
	from := len(dst)
	dst, err := enc(dst)
	if err != nil {
		return dst[:start], err
	}
	if bytes.IndexByte(dst[from:], '\n') >= 0 {
		// Rare: a document that was written by somebody else, with line breaks between its members.
		var b bytes.Buffer
		if err := json.Compact(&b, dst[from:]); err != nil {
			return dst[:start], fmt.Errorf("putting it on one line: %w", err)
		}
		dst = append(dst[:from], b.Bytes()...)
	}
	if f.named {
		dst = append(dst, '}')
	}
	return append(dst, '\n'), nil
}

// appendSchema appends what the source says of a binding's documents. Lines have no place for it.
func (f form) appendSchema(dst []byte, h *handle, schema json.RawMessage) ([]byte, error) {
	if f.lines {
		return dst, nil
	}
	return frame.Append(dst, f.codec, &capturepb.Response{
		SourcedSchema: &capturepb.Response_SourcedSchema{Binding: h.index, SchemaJson: schema},
	})
}

// appendCheckpoint appends what ends a transaction. Lines have no place for it.
func (f form) appendCheckpoint(dst, patch []byte) ([]byte, error) {
	if f.lines {
		return dst, nil
	}
	return frame.Append(dst, f.codec, &capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{
		State: &flowpb.ConnectorState{UpdatedJson: patch, MergePatch: true},
	}})
}
