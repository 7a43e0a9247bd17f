package scaffold_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/runtime/scaffold"
)

var (
	fence       = regexp.MustCompile("(?s)```(\\w*)\n(.*?)```")
	linesOfCode = regexp.MustCompile(`(?m)^[ \t]*[^ \t\n/].*$|^[ \t]*/[^/].*$`)
)

// countLines counts lines of Go that are neither blank nor comments alone. There are no comments of several lines.
func countLines(program string) int { return len(linesOfCode.FindAllString(program, -1)) }

// section is what stands below a heading of a page, and blocks are the texts of a language in it.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(page, "\n## "+heading+"\n")
	require.True(t, found, heading)
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

func blocks(text, language string) (list []string) {
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		if m[1] == language {
			list = append(list, m[2])
		}
	}
	return list
}

// declarations are the texts of a file's declarations by name; methods have their receiver's type before their name.
func declarations(t *testing.T, program string) map[string]string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", program, parser.ParseComments)
	require.NoError(t, err)
	found := map[string]string{}
	for _, d := range file.Decls {
		name, doc := "", (*ast.CommentGroup)(nil)
		switch d := d.(type) {
		case *ast.FuncDecl:
			name, doc = d.Name.Name, d.Doc
			if d.Recv != nil {
				name = fmt.Sprint(d.Recv.List[0].Type) + "." + name
			}
		case *ast.GenDecl:
			doc = d.Doc
			switch s := d.Specs[0].(type) {
			case *ast.TypeSpec:
				name = s.Name.Name
			case *ast.ValueSpec:
				name = s.Names[0].Name
			}
		}
		begin := d.Pos()
		if doc != nil {
			begin = doc.Pos()
		}
		if name != "" {
			found[name] = program[fset.Position(begin).Offset:fset.Position(d.End()).Offset]
		}
	}
	return found
}

// replace does with the declarations of a program what the page says: those of the blocks take the places of those with their names.
func replace(t *testing.T, file string, blocks []string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	program := string(text)
	before := declarations(t, program)
	for _, block := range blocks {
		for name, after := range declarations(t, "package main\n\n"+block) {
			require.Contains(t, before, name, "there is nothing to be replaced")
			program = strings.Replace(program, before[name], after, 1)
		}
	}
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	return program
}

// shop is the API of the page, of which one order changes between two pulls.
func shop(t *testing.T) (address string, change func()) {
	t.Helper()
	var changed atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer open sesame" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		page := []string{}
		next := ""
		switch q := r.URL.Query(); {
		case q.Get("page") == "p2":
			page = []string{`{"id": 3, "updated_at": "2026-11-01T10:00:03Z"}`}
		case q.Get("updated_after") == "":
			page, next = []string{`{"id": 1, "updated_at": "2026-11-01T10:00:01Z"}`, `{"id": 2, "updated_at": "2026-11-01T10:00:02Z"}`}, "p2"
		case q.Get("updated_after") == "2026-11-01T10:00:03Z" && changed.Load():
			page = []string{`{"id": 1, "updated_at": "2026-11-01T10:00:09Z"}`}
		}
		_, _ = fmt.Fprintf(w, `{"data": [%s], "next_page": %q}`, strings.Join(page, ","), next)
	}))
	t.Cleanup(server.Close)
	return server.URL, func() { changed.Store(true) }
}

// TestTutorial does what docs/writing-a-source.md says: what it shows of the template is there, what it changes builds, passes the
// conformance suite and captures an API, and it is as short as it says.
func TestTutorial(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds a program")
	}
	text, err := os.ReadFile("../../docs/writing-a-source.md")
	require.NoError(t, err)
	page := string(text)
	root := clone(t)
	_, err = scaffold.Write(root, "source-shop")
	require.NoError(t, err)
	dir := filepath.Join(root, "source-shop")

	written, err := os.ReadFile(filepath.Join(dir, "main.go"))
	require.NoError(t, err)
	shown := blocks(section(t, page, "2. What it wrote"), "go")
	require.Len(t, shown, 4)
	for _, block := range shown {
		require.Contains(t, string(written), block, "the template has what the page shows of it")
	}
	program := replace(t, filepath.Join(dir, "main.go"), blocks(section(t, page, "3. Make it yours"), "go"))
	program = strings.Replace(program, "\t\"strconv\"\n", "", 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
	lines := countLines(program)
	require.Less(t, lines, 100)
	_, claim, _ := strings.Cut(page, "That is the source: ")
	claim, _, _ = strings.Cut(claim, ",")
	require.Equal(t, fmt.Sprintf("%d lines of Go", lines), claim)

	tests := filepath.Join(dir, "main_test.go")
	program = strings.Replace(replace(t, tests, blocks(section(t, page, "4. Prove it"), "go")), `/orders`, `/v1/orders`, 2)
	require.NoError(t, os.WriteFile(tests, []byte(program), 0o600))
	require.Empty(t, run(t, dir, "gofmt", "-l", "."))
	run(t, dir, "go", "vet", ".")
	run(t, dir, "go", "test", ".", "-update")
	run(t, dir, "go", "test", ".")
	serve(t, dir, blocks(section(t, page, "5. Run it"), ""))
}

// serve runs the commands of the page against an API.
func serve(t *testing.T, dir string, scripts []string) {
	t.Helper()
	address, change := shop(t)
	config, err := json.Marshal(map[string]string{"url": address, "token": "open sesame", "every": "1s"}) // which is YAML, too
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "c.yaml"), config, 0o600))
	require.Len(t, scripts, 1)
	commands := strings.Split(strings.TrimSpace(scripts[0]), "\n")
	require.Len(t, commands, 5)
	run(t, dir, "sh", "-c", commands[0])
	require.Regexp(t, `customers[\s\S]*orders`, run(t, dir, "sh", "-c", commands[1]))
	const all = `{"id": 1, "updated_at": "2026-11-01T10:00:01Z"}
{"id": 2, "updated_at": "2026-11-01T10:00:02Z"}
{"id": 3, "updated_at": "2026-11-01T10:00:03Z"}
`
	require.Contains(t, run(t, dir, "sh", "-c", commands[2]), all)
	pull := func(command, name string) string {
		run(t, dir, "sh", "-c", command)
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(got)
	}
	require.Equal(t, all, pull(commands[3], "first"))
	change()
	require.Equal(t, `{"id": 1, "updated_at": "2026-11-01T10:00:09Z"}`+"\n", pull(commands[4], "second"), "only what changed")
}
