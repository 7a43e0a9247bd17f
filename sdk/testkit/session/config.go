package session

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
)

// Config writes a configuration as a user would, secrets and all: encoding/json hides them. What is not a struct is written
// by encoding/json.
func Config(t testing.TB, cfg any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(revealed(reflect.ValueOf(cfg)))
	require.NoError(t, err)
	return text
}

// revealed is what encoding/json makes the configuration of.
func revealed(v reflect.Value) any {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if !v.IsValid() {
		return nil
	}
	if secret, ok := reflect.TypeAssert[schema.Secret](v); ok {
		return secret.Reveal()
	}
	if _, ok := reflect.TypeAssert[json.Marshaler](v); ok || v.Kind() != reflect.Struct {
		return v.Interface()
	}
	members := map[string]any{}
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		field := v.Field(i)
		if !v.Type().Field(i).IsExported() || name == "-" || (strings.Contains(options, "omit") && field.IsZero()) {
			continue
		}
		members[name] = revealed(field)
	}
	return members
}
