package main

import "strings"

// fit says what to do about an existing column for a field that would be stored otherwise in a new one.
type fit uint8

const (
	fits        fit = iota // the column holds every value of the field
	widens                 // the column can become one that does, keeping its values
	cannotWiden            // only a new column can
)

// fitting compares an existing column's type with the one that a field wants. For widens, it says what to widen to.
//
// A column that is narrower than what the connector would make, such as an integer, is one that people chose: it fits, and a
// value that is too large for it is an error.
func fitting(have existingColumn, want wanted) (fit, wanted) {
	k, native := have.kind()
	switch {
	case have.castName == want.base:
		return fits, want
	case want.explicit:
		return fittingChoice(k, native, want)
	case k == kindArray:
		return fittingArray(have.castName, want)
	case !native: // values are cast to it
		return fits, want
	}
	switch k {
	case kindJSON:
		if want.kind == kindText {
			return widens, want // what was JSON is a text like any other now
		}
		return fits, want // holds any value
	case kindJSONB:
		if want.kind == kindJSON {
			return widens, want
		}
		return fits, want
	case kindText:
		if want.kind == kindJSONB || want.kind == kindArray {
			return widens, natural(kindJSONB)
		}
		return fits, want // every scalar has a text
	case kindInt2, kindInt4, kindInt8, kindFloat4, kindFloat8, kindNumeric:
		return fittingNumber(k, want)
	case kindTimestamp:
		return fitsOr(want.kind == kindTimestamptz, want)
	case kindTime:
		return fitsOr(want.kind == kindTimetz, want)
	case kindInet:
		return fitsOr(want.kind == kindCidr, want)
	case kindCidr:
		if want.kind == kindInet {
			return widens, want
		}
	default:
	}
	return widensToAny(want)
}

// otherLength says whether a column is of the type that the user asked for, but of another length or precision.
func otherLength(have existingColumn, want wanted) bool {
	return want.explicit && have.castName == want.base && have.typeName != want.full
}

// longer says whether a type that the user asked for holds, unchanged, what a column of another length or precision does.
func (w wanted) longer(have existingColumn) bool {
	switch {
	case w.modifier < 0:
		return true
	case have.modifier < 0:
		return false
	case have.oid == kinds[kindNumeric].oid:
		precision, scale := digitsOf(have.modifier)
		newPrecision, newScale := digitsOf(w.modifier)
		return newScale >= scale && newPrecision-newScale >= precision-scale
	case have.castName == "character varying", have.castName == "bit varying", strings.HasPrefix(have.castName, "time"):
		return w.modifier > have.modifier
	default:
		return false
	}
}

// digitsOf takes the length of a numeric apart, whose second half can be negative.
func digitsOf(modifier int32) (precision, scale int) {
	const header, half = 4, 1024
	v := int(modifier) - header
	return v >> 16, (v & (2*half - 1)) ^ half - half
}

// fittingChoice is fitting for a type that the user asked for.
func fittingChoice(have kind, native bool, want wanted) (fit, wanted) {
	switch want.kind {
	case kindText:
		if want.base == kindText.String() {
			return widens, want
		}
	case kindNumeric:
		if native && isNumber(have) {
			return widens, want
		}
	case kindInt8, kindFloat8:
		if have == kindInt2 || have == kindInt4 || have == kindFloat4 && want.kind == kindFloat8 {
			return widens, want
		}
	case kindInt4:
		if have == kindInt2 {
			return widens, want
		}
	case kindJSONB, kindJSON:
		if have != kindText || !native {
			return widens, want
		}
	default:
	}
	return cannotWiden, want
}

// fittingArray is fitting for a column with an array type.
func fittingArray(have string, want wanted) (fit, wanted) {
	switch {
	case want.array == have, want.array == "text[]", want.array != "" && have == "text[]":
		return fits, want
	case want.kind == kindText:
		return widens, want
	case want.kind == kindJSONB, want.kind == kindArray:
		return widens, natural(kindJSONB)
	default:
		return cannotWiden, want
	}
}

func fittingNumber(have kind, want wanted) (fit, wanted) {
	isFloat := have == kindFloat4 || have == kindFloat8
	switch {
	case !isNumber(want.kind):
		return widensToAny(want)
	case have == kindNumeric, isFloat && want.kind == kindFloat8, !isFloat && want.kind == kindInt8:
		return fits, want
	default:
		// A double does not hold every bigint, nor the other way round; numeric holds both.
		return widens, natural(kindNumeric)
	}
}

func isNumber(k kind) bool {
	switch k {
	case kindInt2, kindInt4, kindInt8, kindFloat4, kindFloat8, kindNumeric:
		return true
	default:
		return false
	}
}

func fitsOr(ok bool, want wanted) (fit, wanted) {
	if ok {
		return fits, want
	}
	return widensToAny(want)
}

// widensToAny is for types that hold a form of everything.
func widensToAny(want wanted) (fit, wanted) {
	switch want.kind {
	case kindText, kindJSONB, kindJSON:
		return widens, want
	case kindArray:
		return widens, natural(kindJSONB)
	default:
		return cannotWiden, want
	}
}

// widening is the expression that turns a column's old values into new ones, in the form in which documents have them.
// Sessions show times in UTC and intervals as ISO 8601.
func widening(have existingColumn, to wanted) string {
	c := quote(have.name)
	from, _ := have.kind()
	text := "(to_jsonb(" + c + ") #>> '{}')"
	isText := true
	switch from {
	case kindBool, kindInt2, kindInt4, kindInt8:
		isText = false
	case kindFloat4, kindFloat8:
		text, isText = c+"::text", false
	case kindNumeric:
		text, isText = c+"::text", !to.number
	case kindTimestamp:
		text = "replace(to_jsonb(" + c + "::timestamptz) #>> '{}', '+00:00', 'Z')"
	case kindTimestamptz:
		text = "replace(to_jsonb(" + c + ") #>> '{}', '+00:00', 'Z')"
	case kindTime:
		text = c + "::text || 'Z'"
	case kindTimetz:
		text = "replace(regexp_replace(" + c + "::text, '([+-]..)$', '\\1:00'), '+00:00', 'Z')"
	case kindBytea:
		text = "translate(encode(" + c + ", 'base64'), E'\\n', '')"
	case kindJSON:
		isText = false
		if !to.explicit || to.jsonText {
			text = c + "::text" // which the strings of the field are
		}
	case kindJSONB, kindArray:
		isText = false
	default:
	}
	switch to.kind {
	case kindText:
		return text
	case kindJSONB, kindJSON:
		if isText {
			return "to_" + to.kind.String() + "(" + text + ")"
		}
		return "to_jsonb(" + c + ")::" + to.kind.String()
	case kindNumeric, kindFloat8:
		return text + "::" + to.name // their own casts round doubles to 15 digits, and make 0.1 0.10000000149 of a real
	default:
		return c + "::" + to.name
	}
}
