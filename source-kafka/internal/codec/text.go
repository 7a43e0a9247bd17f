package codec

import (
	"errors"
	"unicode/utf8"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/rowjson"
)

// textFormats is how records without schema are appended, and the schema of all of them; no appender if the format needs
// one.
func textFormats(f Format) (appender, *Schema) {
	switch f {
	case JSON:
		return appendJSON, anySchema
	case String:
		return appendString, stringSchema
	case Bytes:
		return appendBytes, bytesSchema
	case CSV:
		return appendCSV, csvSchema
	default:
		return nil, anySchema
	}
}

// Bytes that are not UTF-8 are never repaired: what they were would be lost, and two keys could become one.
var errUTF8 = errors.New("it holds bytes that are not UTF-8")

// appendJSON passes a JSON text on: numbers keep their digits and members their order and repetitions. Only what readers of
// JSON lines refuse is changed: line breaks between values, and halves of surrogate pairs.
func appendJSON(dst, data []byte) ([]byte, error) {
	plain := jsonscan.IsPlain(data)
	switch {
	case !jsonscan.ValidPlain(data, plain):
		return dst, whyNotJSON(data)
	case plain:
		return append(dst, jsonscan.Trim(data)...), nil
	case !utf8.Valid(data):
		return dst, errUTF8
	}
	return jsonscan.AppendLine(dst, jsonscan.Trim(data)), nil
}

func whyNotJSON(data []byte) error {
	switch {
	case len(jsonscan.Trim(data)) == 0:
		return errors.New("it is empty, which is no JSON")
	case len(data) >= 3 && string(data[:3]) == "\xef\xbb\xbf":
		return errors.New("it begins with a byte order mark, which is no JSON")
	case !utf8.Valid(data):
		return errors.New("it is no JSON, and not even text in UTF-8")
	default:
		return errors.New("it is no JSON")
	}
}

func appendString(dst, data []byte) ([]byte, error) {
	dst, ok := rowjson.AppendUTF8(dst, data)
	if !ok {
		return dst, errUTF8
	}
	return dst, nil
}

func appendBytes(dst, data []byte) ([]byte, error) {
	return rowjson.AppendBase64(dst, data), nil
}
