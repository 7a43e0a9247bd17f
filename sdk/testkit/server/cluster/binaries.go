package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Installation is one set of Postgres server programs on this machine.
type Installation struct {
	Major  int
	BinDir string // holds postgres and initdb, and perhaps psql
}

// ErrNotInstalled says that no (or not the wanted) Postgres is on the machine; `make services` installs it.
var ErrNotInstalled = errors.New("no such Postgres on this machine; run `scripts/services install` or set SLUICE_POSTGRES_BIN to a folder with postgres and initdb")

// oldest is the first version whose logical replication the connectors support.
const oldest = 12

// Find returns the installation of a major version. Major 0 means SLUICE_POSTGRES_MAJOR when that is set, else the
// first of Installations.
func Find(major int) (Installation, error) {
	if name := os.Getenv("SLUICE_POSTGRES_MAJOR"); major == 0 && name != "" {
		n, err := strconv.Atoi(name)
		if err != nil {
			return Installation{}, fmt.Errorf("reading SLUICE_POSTGRES_MAJOR=%q: %w", name, err)
		}
		major = n
	}
	for _, found := range Installations() {
		if major == 0 || found.Major == major {
			return found, nil
		}
	}
	if major == 0 {
		return Installation{}, ErrNotInstalled
	}
	return Installation{}, fmt.Errorf("looking for Postgres %d: %w", major, ErrNotInstalled)
}

// Installations lists what is on the machine, one for each major version, the preferred first: SLUICE_POSTGRES_BIN, then
// the distribution's packages (newest first), then PATH, then what scripts/services fetched into .cache/postgres (newest first).
func Installations() []Installation {
	var found []Installation
	for _, dir := range candidates() {
		major, ok := majorOf(dir)
		if !ok || slices.ContainsFunc(found, func(i Installation) bool { return i.Major == major }) {
			continue
		}
		found = append(found, Installation{Major: major, BinDir: dir})
	}
	return found
}

// candidates lists folders that may hold the server's programs, the preferred first.
func candidates() []string {
	var dirs []string
	if dir := os.Getenv("SLUICE_POSTGRES_BIN"); dir != "" {
		dirs = append(dirs, dir)
	}
	dirs = append(dirs, newestFirst("/usr/lib/postgresql/*/bin")...)
	if path, err := exec.LookPath("postgres"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	for _, root := range CacheRoots() {
		dirs = append(dirs, newestFirst(filepath.Join(root, "postgres", "*", "bin"))...)
	}
	return dirs
}

// CacheRoots are the folders that scripts/services fetches into: .cache at the root of the repository, found by going
// up from the working folder (tests run in their package's folder), and a system folder which it uses when the
// repository lies where the server's user may not look.
func CacheRoots() []string {
	roots := []string{"/var/cache/sluice"}
	dir, err := os.Getwd()
	if err != nil {
		return roots
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return append([]string{filepath.Join(dir, ".cache")}, roots...)
		}
		dir = filepath.Dir(dir)
	}
	return roots
}

// newestFirst expands a pattern …/<major>/bin and sorts by major version, downwards.
func newestFirst(pattern string) []string {
	dirs, err := filepath.Glob(pattern)
	if err != nil { // only a malformed pattern, and ours are constant but for the root's name
		return nil
	}
	number := func(dir string) int {
		n, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if err != nil {
			return 0
		}
		return n
	}
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(number(b), number(a)) })
	return dirs
}

var versionOutput = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// majorOf asks the server program of a folder for its version. False when the folder does not hold a usable server.
func majorOf(dir string) (int, bool) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return 0, false
	}
	cmd := exec.CommandContext(context.Background(), filepath.Join(dir, "postgres"), "--version")
	cmd.Env = environment(dir)
	out, err := cmd.Output()
	if err != nil {
		return 0, false
	}
	match := versionOutput.FindSubmatch(out)
	if match == nil {
		return 0, false
	}
	major, err := strconv.Atoi(string(match[1]))
	return major, err == nil && major >= oldest
}

// environment is what the server's programs run with: nothing of ours but PATH, and their own libraries first, for
// builds that carry them in lib beside bin.
func environment(binDir string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	if lib := filepath.Join(filepath.Dir(binDir), "lib"); !strings.HasPrefix(binDir, "/usr/") {
		env = append(env, "LD_LIBRARY_PATH="+lib)
	}
	return env
}
