// Package scaffold writes the beginning of a connector: a module that builds, and passes its tests and the conformance suite.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// files are the beginnings, by kind. Their names end with .tmpl, so that no tool takes them for parts of this module.
//
//go:embed all:files
var files embed.FS

var validName = regexp.MustCompile(`^(source|materialize)-([a-z][a-z0-9]*(?:-[a-z0-9]+)*)$`)

// Write writes a connector, such as source-foo or materialize-foo, into the repository that the folder is in, and returns the files that it
// made or changed, relative to the repository's root. It overwrites nothing.
func Write(folder, name string) ([]string, error) {
	m := validName.FindStringSubmatch(name)
	if m == nil {
		return nil, usererr.New(nil, "%q cannot be the name of a connector. Write source-NAME or materialize-NAME, with lower-case letters, digits and hyphens.", name)
	}
	root, err := repository(folder)
	if err != nil {
		return nil, err
	}
	w := &writer{root: root, kind: m[1], connector: name, fill: strings.NewReplacer("{{name}}", m[2], "{{Title}}", title(m[2]))}
	for _, path := range []string{name, docsPage(name)} {
		if _, err := os.Lstat(filepath.Join(root, path)); err == nil {
			return nil, usererr.New(nil, "There is %s already. Choose another name, or remove it.", path)
		}
	}
	for _, step := range []func() error{w.module, w.templates, w.lists} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return w.written, nil
}

// title is what people call the system, as far as its name tells.
func title(name string) string {
	words := strings.Split(name, "-")
	for i, word := range words {
		words[i] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.Join(words, " ")
}

// repository is the root of the repository that a folder is in.
func repository(folder string) (string, error) {
	dir, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		_, errWork := os.Stat(filepath.Join(dir, "go.work"))
		_, errSDK := os.Stat(filepath.Join(dir, "sdk", "go.mod"))
		if errWork == nil && errSDK == nil {
			return dir, nil
		}
	}
	return "", usererr.New(nil, "A connector is a module of the repository: run this in a clone of it, in which there are go.work and sdk/.")
}

type writer struct {
	root, kind, connector string
	fill                  *strings.Replacer
	written               []string
}

func docsPage(connector string) string { return filepath.Join("docs", "connectors", connector+".md") }

func (w *writer) write(path, content string) error {
	full := filepath.Join(w.root, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil { //nolint:gosec // sources are for everybody
		return err
	}
	if !slices.Contains(w.written, path) {
		w.written = append(w.written, path)
	}
	return os.WriteFile(full, []byte(content), 0o644) //nolint:gosec // see above
}

// module writes go.mod and go.sum: the sdk's own name every version that is needed, so that nothing is looked up.
func (w *writer) module() error {
	mod, err := os.ReadFile(filepath.Join(w.root, "sdk", "go.mod"))
	if err != nil {
		return err
	}
	const of = "module github.com/sluicedata/sluice/"
	text := strings.Replace(string(mod), of+"sdk", of+w.connector, 1)
	text += "\nrequire github.com/sluicedata/sluice/sdk v0.0.0\n\nreplace github.com/sluicedata/sluice/sdk => ../sdk\n"
	if err := w.write(filepath.Join(w.connector, "go.mod"), text); err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(w.root, "sdk", "go.sum"))
	if err != nil {
		return err
	}
	return w.write(filepath.Join(w.connector, "go.sum"), string(sum))
}

func (w *writer) templates() error {
	from := "files/" + w.kind
	return fs.WalkDir(files, from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		to := filepath.Join(w.connector, strings.TrimSuffix(strings.TrimPrefix(path, from+"/"), ".tmpl"))
		switch filepath.Base(to) {
		case "docs.md":
			to = docsPage(w.connector)
		case "reference.md":
			to = docsPage(filepath.Join("reference", w.connector))
		}
		return w.write(to, w.fill.Replace(string(text)))
	})
}

// lists adds the module to what lists all of them. The Makefile, the workflows and the images' tests find modules by their names.
func (w *writer) lists() error {
	for _, list := range []struct{ path, before, add string }{
		{"go.work", "\t./sdk\n", "\t./" + w.connector + "\n"},
		{".github/dependabot.yml", ", /tools]", ", /" + w.connector},
		{".github/CODEOWNERS", "/runtime/ ", "/" + w.connector + "/ @sluicedata/maintainers\n"},
		{"tools/site/mkdocs.yml", "      - Every setting:\n", "      - " + w.connector + ": connectors/" + w.connector + ".md\n"},
		{"tools/site/mkdocs.yml", "  - Write your own:\n", "          - " + w.connector + ": connectors/reference/" + w.connector + ".md\n"},
	} {
		err := w.edit(filepath.FromSlash(list.path), list.before, list.add+list.before)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a copy without it
			return err
		}
	}
	return nil
}

// edit replaces a text in a file.
func (w *writer) edit(path, before, after string) error {
	text, err := os.ReadFile(filepath.Join(w.root, path))
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), before) {
		return usererr.New(nil, "%s does not look as expected: add %s to it by hand.", path, w.connector)
	}
	return w.write(path, strings.Replace(string(text), before, after, 1))
}
