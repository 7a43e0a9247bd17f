// Package sdk_test holds the rules about who may import whom, for all modules of the repository.
package sdk_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const prefix = "github.com/sluicedata/sluice/"

// pkg is a package as go list describes it, without its tests.
type pkg struct {
	ImportPath string
	Imports    []string // directly
	Deps       []string // all
	Standard   bool
}

// name is the import path within the repository.
func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, prefix) }

// under reports whether an import path is one of the repository's packages, or below it.
func under(path string, names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return path == prefix+name || strings.HasPrefix(path, prefix+name+"/")
	})
}

func external(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".") && !strings.HasPrefix(path, prefix)
}

// rule says what the packages that it is about may not import.
type rule struct {
	why    string
	about  func(name string) bool
	direct bool // looks at what they import themselves; otherwise at all that they depend on
	denied func(path string) bool
}

func rules() []rule {
	is := func(names ...string) func(string) bool {
		return func(name string) bool { return under(prefix+name, names...) }
	}
	connector := regexp.MustCompile(`^(source|materialize)-[^/]+`)
	isConnector := func(name string) bool { return connector.MatchString(name) }
	allowed := func(modules ...string) func(string) bool {
		return func(path string) bool {
			return external(path) && !slices.ContainsFunc(modules, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
		}
	}
	program := is("runtime/demo", "runtime/e2e", "runtime/docs")
	return []rule{
		{"protocol imports nothing of ours, and one library", is("protocol"), false, func(path string) bool {
			return (strings.HasPrefix(path, prefix) && !under(path, "protocol")) || allowed("google.golang.org/protobuf")(path)
		}},
		{"the leaves of the sdk import none of ours", is("sdk/rowjson", "sdk/tuple", "sdk/jsonscan", "sdk/usererr", "sdk/retry"), true, func(path string) bool {
			return strings.HasPrefix(path, prefix)
		}},
		{"schemas are made of leaves", is("sdk/schema"), true, func(path string) bool {
			return strings.HasPrefix(path, prefix) && !under(path, "sdk/rowjson", "sdk/usererr")
		}},
		{"the sdk carries no driver and few libraries", func(name string) bool { return is("sdk")(name) && !is("sdk/testkit")(name) }, false, allowed(
			"google.golang.org/protobuf", "github.com/sirupsen/logrus", "github.com/spf13/cobra", "github.com/spf13/pflag",
			"github.com/inconshreveable/mousetrap", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/sync", "gopkg.in/yaml.v3")},
		{"captures do not know materializations", is("sdk/capture", "sdk/cdc"), false, func(path string) bool {
			return under(path, "sdk/materialize")
		}},
		{"materializations do not know captures", is("sdk/materialize"), false, func(path string) bool {
			return under(path, "sdk/capture", "sdk/cdc")
		}},
		{"the framework does not know what is built on it", is("sdk/capture"), false, func(path string) bool { return under(path, "sdk/cdc") }},
		{"the change-capture core speaks package capture, not the protocol", is("sdk/cdc"), true, func(path string) bool {
			return under(path, "protocol")
		}},
		{"the sdk does not know who uses it", is("sdk"), false, func(path string) bool {
			return under(path, "runtime") || isConnector(strings.TrimPrefix(path, prefix))
		}},
		{"connectors speak the sdk, not the protocol", isConnector, true, func(path string) bool { return under(path, "protocol", "runtime") }},
		{"the runtime sees connectors as processes only", is("runtime"), false, func(path string) bool {
			return under(path, "sdk/capture", "sdk/cdc", "sdk/materialize") || isConnector(strings.TrimPrefix(path, prefix))
		}},
		{"the runtime needs no database's driver", func(name string) bool { return is("runtime")(name) && !program(name) }, false, func(path string) bool {
			return strings.HasPrefix(path, "github.com/jackc/")
		}},
		{"test code stays in tests and in the testkit", func(name string) bool { return !is("sdk/testkit")(name) }, true, func(path string) bool {
			return path == "testing" || strings.HasPrefix(path, "github.com/stretchr/testify") || strings.HasPrefix(path, "pgregory.net/rapid")
		}},
		{"the testkit is for tests", func(name string) bool { return !is("sdk/testkit")(name) && !program(name) }, false, func(path string) bool {
			return under(path, "sdk/testkit")
		}},
	}
}

func TestWhoImportsWhom(t *testing.T) {
	t.Parallel()
	packages := list(t)
	for _, r := range rules() {
		t.Run(strings.ReplaceAll(r.why, " ", "_"), func(t *testing.T) {
			t.Parallel()
			seen := 0
			for _, p := range packages {
				if !r.about(p.name()) {
					continue
				}
				seen++
				imports := p.Deps
				if r.direct {
					imports = p.Imports
				}
				for _, path := range imports {
					if path != p.ImportPath && r.denied(path) {
						t.Errorf("%s: %s imports %s", r.why, p.name(), path)
					}
				}
			}
			require.NotZero(t, seen, "the rule is about no package")
		})
	}
}

// TestConnectorsKnowNobody: a connector's packages depend on no other connector.
func TestConnectorsKnowNobody(t *testing.T) {
	t.Parallel()
	connector := regexp.MustCompile(`^(source|materialize)-[^/]+`)
	for _, p := range list(t) {
		own := connector.FindString(p.name())
		for _, path := range p.Deps {
			other := connector.FindString(strings.TrimPrefix(path, prefix))
			if own != "" && strings.HasPrefix(path, prefix) && other != "" && other != own {
				t.Errorf("%s imports %s", p.name(), path)
			}
		}
	}
}

// TestRulesBite: rules that forbid nothing would pass for ever.
func TestRulesBite(t *testing.T) {
	t.Parallel()
	bites := func(name, path string) bool {
		return slices.ContainsFunc(rules(), func(r rule) bool { return r.about(name) && r.denied(path) })
	}
	for _, c := range [][2]string{
		{"protocol/frame", prefix + "sdk/usererr"},
		{"protocol/frame", "github.com/sirupsen/logrus"},
		{"sdk/tuple", prefix + "sdk/rowjson"},
		{"sdk/capture", "github.com/jackc/pgx/v5"},
		{"sdk/cdc", prefix + "protocol/flow"},
		{"sdk/cdc", prefix + "sdk/materialize"},
		{"sdk/materialize", prefix + "sdk/capture"},
		{"sdk/process", prefix + "source-postgres"},
		{"source-postgres", prefix + "protocol/flow"},
		{"runtime/engine", prefix + "sdk/capture"},
		{"runtime/engine", "github.com/jackc/pgx/v5"},
		{"source-postgres/internal/pgoutput", "testing"},
		{"runtime/engine", prefix + "sdk/testkit/server"},
		{"sdk/schema", prefix + "sdk/process"},
	} {
		require.True(t, bites(c[0], c[1]), "%s may import %s", c[0], c[1])
	}
	for _, c := range [][2]string{
		{"runtime/demo", prefix + "sdk/testkit/server/cluster"},
		{"runtime/demo", "github.com/jackc/pgx/v5"},
		{"sdk/capture", prefix + "protocol/capture"},
		{"source-postgres", prefix + "sdk/cdc"},
		{"sdk/testkit/server", "testing"},
		{"sdk/testkit/session", prefix + "sdk/capture"},
	} {
		require.False(t, bites(c[0], c[1]), "%s may not import %s", c[0], c[1])
	}
}

// list describes the packages of every module beside this one that is there; an image build sees only three.
func list(t *testing.T) []pkg {
	t.Helper()
	files, err := filepath.Glob("../*/go.mod")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var packages []pkg
	for _, file := range files {
		dir := filepath.Dir(file)
		if filepath.Base(dir) == "tools" {
			continue // not part of anything that is shipped
		}
		cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,Deps,Standard", "./...")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("listing %s: %s", dir, exit.Stderr)
		}
		require.NoError(t, err)
		for d := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p pkg
			err := d.Decode(&p)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			packages = append(packages, p)
		}
	}
	return packages
}
