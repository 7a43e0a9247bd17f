package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// setDefaults fills a struct with the values of its default tags, nested structs too. Elements of slices and maps, and
// what pointers will point to, get none.
func setDefaults(v reflect.Value) error {
	if v.Kind() != reflect.Struct || kindOf(v.Type()) != object {
		return nil
	}
	for _, f := range fieldsOf(v.Type()) {
		member, err := v.FieldByIndexErr(f.index)
		if err != nil {
			continue // inside of an embedded pointer
		}
		text, ok := f.tag.Lookup("default")
		if !ok {
			if err := setDefaults(member); err != nil {
				return err
			}
			continue
		}
		if err := json.Unmarshal([]byte(literal(f.typ, text)), member.Addr().Interface()); err != nil {
			return fmt.Errorf("setting the default of field %q: %w", f.name, err)
		}
	}
	return nil
}
