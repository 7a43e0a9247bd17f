// Command configdoc writes the reference of a connector's configuration: a page in Markdown with every field that the connector's
// own schemas have, so that it cannot say other things than the program does.
//
//	source-postgres spec | go run ./configdoc source-postgres > source-postgres.md
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "configdoc:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: CONNECTOR spec | configdoc CONNECTOR")
	}
	var spec struct {
		Config   *field `json:"configSchema"`
		Resource *field `json:"resourceConfigSchema"`
	}
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("reading the spec: %w", err)
	}
	if spec.Config == nil || spec.Resource == nil {
		return errors.New("the spec has no configSchema and resourceConfigSchema")
	}
	page := "<!-- Written by `make generate` from the program's own schemas. -->\n# " + args[0] + ": every setting\n\n" +
		"What they are for, and which belong together, is on [the connector's page](../" + args[0] + ".md).\n\n" +
		"## Configuration\n" + table(spec.Config) + "\n## Each binding\n" + table(spec.Resource)
	_, err := io.WriteString(out, page)
	return err //nolint:wrapcheck // of standard output
}

// field is what the reference needs of a JSON schema.
type field struct {
	Title       string            `json:"title"`
	Description string            `json:"description"`
	Type        any               `json:"type"` // a name or several
	Enum        []any             `json:"enum"`
	Default     json.RawMessage   `json:"default"`
	Secret      bool              `json:"secret"`
	Order       int               `json:"order"`
	Items       *field            `json:"items"`
	Properties  map[string]*field `json:"properties"`
	Required    []string          `json:"required"`
}

// table lists a schema's members, those of nested objects by their whole path.
func table(schema *field) string {
	var b strings.Builder
	b.WriteString("| field | type | default | meaning |\n|---|---|---|---|\n")
	rows(&b, "", schema)
	return b.String()
}

func rows(b *strings.Builder, prefix string, schema *field) {
	names := make([]string, 0, len(schema.Properties))
	for name := range schema.Properties {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(schema.Properties[x].Order, schema.Properties[y].Order), cmp.Compare(x, y))
	})
	for _, name := range names {
		f := schema.Properties[name]
		if len(f.Properties) > 0 {
			rows(b, prefix+name+".", f)
			continue
		}
		def := ""
		switch {
		case slices.Contains(schema.Required, name):
			def = "**required**"
		case len(f.Default) > 0:
			def = "`" + strings.Trim(string(f.Default), `"`) + "`"
		}
		meaning := f.Description
		if f.Secret {
			meaning += " *Secret.*"
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", prefix, name, typeOf(f), def, strings.ReplaceAll(meaning, "|", "\\|"))
	}
}

// typeOf names a field's type, or what it may be.
func typeOf(f *field) string {
	if len(f.Enum) > 0 {
		var values []string
		for _, v := range f.Enum {
			if v != "" { // which stands for the default
				values = append(values, strings.ReplaceAll(fmt.Sprintf("`%v`", v), "|", `\|`))
			}
		}
		return strings.Join(values, ", ")
	}
	name := fmt.Sprint(f.Type)
	if name == "array" && f.Items != nil {
		return "list of " + fmt.Sprint(f.Items.Type) + "s"
	}
	return name
}
