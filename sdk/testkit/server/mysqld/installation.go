package mysqld

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// The two kinds of server.
const (
	MySQL   = "mysql"
	MariaDB = "mariadb"
)

// Installation is one set of server programs on this machine.
type Installation struct {
	Flavor  string // MySQL or MariaDB
	Version string // such as 10.11.19
	// root is the folder that the programs were unpacked in, with all the libraries they need; empty for installed ones.
	root string
}

// ErrNotInstalled says that the wanted server is not on the machine; `make services` installs it.
var ErrNotInstalled = errors.New("no such server on this machine; run `scripts/services install`")

// Find returns the installation of a flavor: MariaDB as the distribution has it, MySQL as scripts/services unpacked it; or the version
// that SLUICE_MYSQL names.
func Find(flavor string) (Installation, error) {
	for _, found := range candidates(flavor) {
		out, err := found.command(context.Background(), "mysqld", "--no-defaults", "--version").Output()
		match := versionOutput.FindSubmatch(out)
		if err != nil || match == nil || strings.Contains(string(out), "MariaDB") != (flavor == MariaDB) {
			continue
		}
		found.Version = string(match[1])
		return found, nil
	}
	return Installation{}, fmt.Errorf("looking for %s: %w", flavor, ErrNotInstalled)
}

var versionOutput = regexp.MustCompile(`Ver (\d+\.\d+\.\d+)`)

// envVersions names versions to use instead of the usual ones, as scripts/services installs them: mysql-8.0, mariadb-11.8.
const envVersions = "SLUICE_MYSQL"

func candidates(flavor string) []Installation {
	for name := range strings.SplitSeq(os.Getenv(envVersions), ",") {
		if !strings.HasPrefix(name, flavor+"-") {
			continue
		}
		var out []Installation
		for _, cache := range cacheRoots() {
			out = append(out, Installation{Flavor: flavor, root: filepath.Join(cache, "mysql", name)})
		}
		return out
	}
	if flavor == MariaDB {
		return []Installation{{Flavor: MariaDB}}
	}
	out := []Installation{{Flavor: MySQL}}
	for _, cache := range cacheRoots() {
		out = append(out, Installation{Flavor: MySQL, root: filepath.Join(cache, "mysql", "root")})
	}
	return out
}

// cacheRoots are the folders that scripts/services fetches into: .cache at the root of the repository, found by going up from
// the working folder, and a system folder for repositories that the server's user may not look into.
func cacheRoots() []string {
	roots := []string{"/var/cache/sluice"}
	dir, err := os.Getwd()
	if err != nil {
		return roots
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return append([]string{filepath.Join(dir, ".cache")}, roots...)
		}
	}
	return roots
}

// command is one of the server's programs. Unpacked ones are run by the loader and with the libraries that were unpacked with
// them, because they are of a newer distribution than this machine's.
func (i Installation) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	path := i.program(program)
	loader := append(globs(filepath.Join(i.root, "usr", "lib64", "ld-linux*")), globs(filepath.Join(i.root, "usr", "lib", "ld-linux*"))...)
	if i.root != "" && len(loader) > 0 {
		libraries, err := filepath.Glob(filepath.Join(i.root, "usr", "lib", "*-linux-gnu"))
		if err != nil || len(libraries) == 0 {
			libraries = []string{"/nonexistent"} // then the program does not start, and says so
		}
		args = append([]string{"--library-path", strings.Join(libraries, ":"), path}, args...)
		path = loader[0]
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	return cmd
}

func globs(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil // our patterns are well formed
	}
	return found
}

func (i Installation) program(name string) string {
	if i.Flavor == MariaDB && name == "mysqld" {
		name = "mariadbd"
	}
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"} {
		path := filepath.Join(i.root, dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return name
}

// Program is the path and the first arguments of a client program of the installation, such as mysqlbinlog, or nil.
func (i Installation) Program(name string) []string {
	if i.program(name) == name {
		return nil
	}
	return i.command(context.Background(), name).Args
}

// bootstrap is what mariadb-install-db does, which runs programs without the libraries that were unpacked with them.
func (i Installation) bootstrap(ctx context.Context, data string, own *owner) (*exec.Cmd, error) {
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(filepath.Join(data, "mysql"), 0o700), own.chown(data), own.chown(filepath.Join(data, "mysql"))); err != nil {
		return nil, fmt.Errorf("making a data folder: %w", err)
	}
	sql := bytes.NewBufferString("USE mysql;\nSET @skip_auth_anonymous = 1, @auth_root_socket = NULL;\n")
	for _, pattern := range []string{"m*_system_tables.sql", "m*_performance_tables.sql", "m*_system_tables_data.sql", "mariadb_sys_schema.sql"} {
		for _, file := range globs(filepath.Join(i.root, "/usr/share/m*", pattern)) {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			sql.Write(append(text, '\n'))
		}
	}
	cmd := i.command(ctx, "mysqld", "--no-defaults", "--bootstrap", "--datadir="+data, "--basedir="+filepath.Join(i.root, "/usr"), "--lc-messages-dir="+filepath.Join(i.root, "/usr/share/mysql"),
		"--skip-name-resolve", "--innodb-log-file-size=8M", "--log-warnings=0", "--loose-skip-ssl")
	cmd.Stdin = sql
	return cmd, nil
}

// initialise fills a new data folder.
func (i Installation) initialise(ctx context.Context, data string, own *owner) error {
	cmd := i.command(ctx, "mysqld", "--no-defaults", "--initialize-insecure", "--datadir="+data, "--basedir="+filepath.Join(i.root, "/usr"),
		"--lc-messages-dir="+filepath.Join(i.root, "/usr/share/mysql"), "--loose-innodb-redo-log-capacity=8M", "--log-error-verbosity=1")
	switch {
	case i.Flavor == MariaDB && i.root != "":
		var err error
		if cmd, err = i.bootstrap(ctx, data, own); err != nil {
			return err
		}
	case i.Flavor == MariaDB:
		cmd = i.command(ctx, "mariadb-install-db", "--no-defaults", "--datadir="+data, "--skip-test-db", "--auth-root-authentication-method=normal",
			"--skip-name-resolve", "--innodb-log-file-size=8M")
	}
	cmd.SysProcAttr = own.attributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a data folder of %s: %w\n%s", i.Flavor, err, out)
	}
	if err := os.Remove(filepath.Join(data, "auto.cnf")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("taking the identity out of the template: %w", err) // every copy makes one of its own
	}
	return nil
}
