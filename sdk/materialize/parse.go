package materialize

import (
	"encoding/json"
	"fmt"

	"github.com/sluicedata/sluice/sdk/schema"
)

// endpoint names the endpoint's configuration in messages.
const endpoint = "the endpoint configuration"

// resourceOf names a binding's configuration in messages.
func resourceOf(collection string) string {
	return fmt.Sprintf("the resource of collection %q", collection)
}

// parse reads a configuration strictly, fills in defaults and validates it.
func parse[T Config](raw json.RawMessage, what string) (T, error) {
	v, err := schema.Parse[T](raw, what)
	if err != nil {
		return v, err
	}
	return v, v.Validate()
}
