package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// soundsSecret are names of properties whose values nobody may see, unless they end like a name of something.
var soundsSecret = regexp.MustCompile(`(?i)(password|passphrase|secret|private_?key|token|api_?key|credential)s?$`)

// minSecret is the length from which a value is looked for: shorter ones are everywhere by chance.
const minSecret = 5

func compile(text []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	return c.Compile("schema.json")
}

func fits(schema *jsonschema.Schema, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("reading a value: %w", err)
	}
	err = schema.Validate(value)
	if invalid, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		for len(invalid.Causes) > 0 {
			invalid = invalid.Causes[0]
		}
		// The value itself is left out: it may be a secret.
		return fmt.Errorf("/%s does not fit its schema at %s", strings.Join(invalid.InstanceLocation, "/"), strings.Join(invalid.ErrorKind.KeywordPath(), "/"))
	}
	return err
}

func (s *suite) specProtocol(context.Context) error { return connector.CheckProtocol(s.spec.Protocol) }

func (s *suite) specSchema(context.Context) error {
	config, err := compile(s.spec.ConfigSchemaJson)
	if err != nil {
		return fmt.Errorf("the schema of the configuration: %w", err)
	}
	if _, err := compile(s.spec.ResourceConfigSchemaJson); err != nil {
		return fmt.Errorf("the schema of the resource: %w", err)
	}
	for what, text := range map[string][]byte{"configuration": s.spec.ConfigSchemaJson, "resource": s.spec.ResourceConfigSchemaJson} {
		if kind, _ := object(text)["type"].(string); kind != "object" {
			return fmt.Errorf("the schema of the %s is not of an object", what)
		}
	}
	if err := fits(config, s.opts.Connector.Endpoint.Config); err != nil {
		return fmt.Errorf("the given configuration does not fit the schema: %w", err)
	}
	return nil
}

func object(text []byte) map[string]any {
	var v map[string]any
	_ = json.Unmarshal(text, &v)
	return v
}

// properties visits every property of a schema, those of variants too, with its path.
func properties(schema map[string]any, path string, visit func(path, name string, property map[string]any)) {
	members, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(members)) {
		property, _ := members[name].(map[string]any)
		visit(path+"/"+name, name, property)
		properties(property, path+"/"+name, visit)
	}
	for _, keyword := range []string{"oneOf", "anyOf", "allOf"} {
		variants, _ := schema[keyword].([]any)
		for _, v := range variants {
			if variant, ok := v.(map[string]any); ok {
				properties(variant, path, visit)
			}
		}
	}
}

func isSecret(property map[string]any) bool {
	return property["secret"] == true || property["airbyte_secret"] == true
}

func (s *suite) specSecrets(context.Context) error {
	var open []string
	properties(object(s.spec.ConfigSchemaJson), "", func(path, name string, p map[string]any) {
		if soundsSecret.MatchString(name) && p["type"] == "string" && !isSecret(p) {
			open = append(open, path)
		}
	})
	if len(open) > 0 {
		return fmt.Errorf("not marked as secret: %s", strings.Join(open, ", "))
	}
	return nil
}

func (s *suite) specDescribed(context.Context) error {
	var bare []string
	for _, text := range [][]byte{s.spec.ConfigSchemaJson, s.spec.ResourceConfigSchemaJson} {
		properties(object(text), "", func(path, _ string, p map[string]any) {
			title, _ := p["title"].(string)
			description, _ := p["description"].(string)
			if _, constant := p["const"]; !constant && (title == "" || description == "") {
				bare = append(bare, path)
			}
		})
	}
	if len(bare) > 0 {
		return fmt.Errorf("without a title or a description: %s", strings.Join(bare, ", "))
	}
	return nil
}

func (s *suite) specDocumentation(context.Context) error {
	if !strings.HasPrefix(s.spec.DocumentationUrl, "http") {
		return fmt.Errorf("documentationUrl is %q", s.spec.DocumentationUrl)
	}
	return nil
}

func (s *suite) specResource(context.Context) error {
	paths, named := map[string]bool{}, false
	properties(object(s.spec.ResourceConfigSchemaJson), "", func(path, _ string, p map[string]any) {
		paths[path] = true
		named = named || p["x-collection-name"] == true
	})
	if s.report.Kind == Materialize {
		if !named {
			return errors.New(`no property of the resource has "x-collection-name": true`)
		}
		return nil
	}
	if len(s.spec.ResourcePathPointers) == 0 {
		return errors.New("there are no resourcePathPointers")
	}
	for _, pointer := range s.spec.ResourcePathPointers {
		if !paths[pointer] {
			return fmt.Errorf("the resource has no property %s, of which resourcePathPointers speaks", pointer)
		}
	}
	return nil
}

// secretsOf are the values of a configuration that nobody may see: of properties that are marked, or that should be.
func secretsOf(schema, config []byte) (secrets []string) {
	var pointers []string
	properties(object(schema), "", func(path, name string, p map[string]any) {
		if isSecret(p) || soundsSecret.MatchString(name) {
			pointers = append(pointers, path)
		}
	})
	slices.Sort(pointers)
	compiled := jsonscan.NewPointers(slices.Compact(pointers))
	found := make([][]byte, compiled.Len())
	compiled.Find(config, found)
	for _, value := range found {
		if text, ok := jsonscan.Text(value); ok && len(text) >= minSecret {
			secrets = append(secrets, text)
		}
	}
	return secrets
}
