package schema

import "encoding/json"

// Of is the JSON schema of the documents that encoding/json writes for T.
func Of[T any]() json.RawMessage { return nil }

// Reflect is the JSON schema of a configuration struct, as a form.
func Reflect[T any](title string) json.RawMessage { return nil }

// Parse reads.
func Parse[T any](raw json.RawMessage, what string) (T, error) { var t T; return t, nil }
