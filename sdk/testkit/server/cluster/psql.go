package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// errNoPsql says that the client program is missing; the server's installation need not have it.
var errNoPsql = errors.New("psql is not on this machine; run `scripts/services install`")

// Psql finds the client program: beside the server's programs, in PATH, or with any other installation.
func (i Installation) Psql() (string, error) {
	if path := filepath.Join(i.BinDir, "psql"); isFile(path) {
		return path, nil
	}
	if path, err := exec.LookPath("psql"); err == nil {
		return path, nil
	}
	for _, other := range Installations() {
		if path := filepath.Join(other.BinDir, "psql"); isFile(path) {
			return path, nil
		}
	}
	return "", errNoPsql
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Exec runs statements in a database as the superuser, each in its own transaction (several statements in one string
// share one), and returns what psql prints unaligned and without headers, the last newline removed: columns are separated by "|".
// It stops at the first error, which carries the server's message.
func (p *Postgres) Exec(ctx context.Context, database string, sql ...string) (string, error) {
	psql, err := p.install.Psql()
	if err != nil {
		return "", err
	}
	args := []string{"--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--dbname=" + p.psqlURL(database)}
	for _, statement := range sql {
		args = append(args, "--command="+statement)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, psql, args...)
	cmd.Env = append(environment(filepath.Dir(psql)), "PGPASSWORD="+Password, "PGCLIENTENCODING=UTF8")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running psql: %w\n%s", err, stderr.Bytes())
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// psqlURL is URL without the password, which anybody could read in the list of processes.
func (p *Postgres) psqlURL(database string) string {
	return strings.Replace(p.URL(database), ":"+Password+"@", "@", 1)
}
