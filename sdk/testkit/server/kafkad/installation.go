package kafkad

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNotInstalled says that Kafka, or a Java to run it, is not on the machine; `make services` installs both.
var ErrNotInstalled = errors.New("no Kafka or no Java on this machine; run `scripts/services install kafka`")

// Installation is Kafka's jars, and what runs them.
type Installation struct {
	Version string // of Kafka, such as 4.3.1
	java    string // the program
	jvm     string // its version, as a word
	jars    string // their folder
}

// Find returns the newest Kafka that scripts/services fetched.
func Find() (Installation, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return Installation{}, ErrNotInstalled
	}
	out, err := exec.CommandContext(context.Background(), java, "-version").CombinedOutput()
	match := javaVersion.FindSubmatch(out)
	if err != nil || match == nil {
		return Installation{}, ErrNotInstalled
	}
	for _, cache := range cacheRoots() {
		found, err := filepath.Glob(filepath.Join(cache, "kafka", "*", "kafka_2.13-*.jar"))
		if err != nil || len(found) == 0 {
			continue
		}
		jars := filepath.Dir(slices.Max(found))
		return Installation{Version: filepath.Base(jars), java: java, jvm: string(match[1]), jars: jars}, nil
	}
	return Installation{}, ErrNotInstalled
}

var javaVersion = regexp.MustCompile(`version "([0-9._]+)`)

// cacheRoots are the folders that scripts/services fetches into: .cache at the root of the repository, found by going up from
// the working folder, and a system folder.
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

// command runs a class of Kafka's in a small and quickly started machine. The context may end it at once.
func (i Installation) command(ctx context.Context, dir string, flags []string, class string, args ...string) *exec.Cmd {
	all := append([]string{
		"-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		"-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"),
	}, flags...)
	cmd := exec.CommandContext(ctx, i.java, append(append(all, "-cp", i.jars+"/*", class), args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C meant for us does not stop it first
	cmd.Dir = dir
	return cmd
}

// logging sends everything worth reading to standard output.
const logging = `rootLogger.level=info
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %m (%c{1})%n
`

// template is what brokers are made of: formatted storage, and the classes that starting one loads, ready to be mapped, which
// makes a start three times cheaper.
type template struct{ dir string }

func (t template) classes() string    { return filepath.Join(t.dir, "classes.jsa") }
func (t template) checkpoint() string { return filepath.Join(t.dir, "bootstrap.checkpoint") }

// templateFor returns the template of an installation; the first caller on the machine makes it, others wait for that.
func templateFor(ctx context.Context, install Installation) (t template, err error) {
	base := filepath.Join(os.TempDir(), "sluice-kafka-templates-"+strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return t, err
	}
	info, err := os.Lstat(base)
	if err != nil {
		return t, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return t, fmt.Errorf("%s belongs to somebody else; remove it or set TMPDIR", base)
	}
	t.dir = filepath.Join(base, install.Version+"-"+install.jvm)
	lock, err := os.OpenFile(t.dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }() // closing unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return t, fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(t.dir); err == nil {
		return t, nil
	}
	work, err := os.MkdirTemp(base, "new-")
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := install.makeTemplate(ctx, template{work}); err != nil {
		return t, err
	}
	return t, os.Rename(work, t.dir)
}

// makeTemplate formats a broker's storage and starts it once.
func (i Installation) makeTemplate(ctx context.Context, t template) error {
	c, err := newCluster(i, Options{Brokers: 1})
	if err != nil {
		return err
	}
	b := c.brokers[0]
	err = b.writeConfig()
	if err == nil {
		var out []byte
		out, err = i.command(ctx, b.dir, nil, "kafka.tools.StorageTool", "format", "--cluster-id", clusterID, "--config", b.config()).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("formatting storage: %w\n%s", err, out)
		}
	}
	if err == nil {
		b.flags = []string{"-XX:ArchiveClassesAtExit=" + t.classes()}
		err = b.start(ctx)
	}
	if err == nil {
		err = b.end(syscall.SIGTERM) // the archive is written at the end
	}
	if err == nil {
		err = copyFile(filepath.Join(b.data(), "bootstrap.checkpoint"), t.checkpoint())
	}
	return errors.Join(err, c.Close())
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}

// properties writes a file of properties; values end at the end of their line.
func properties(all map[string]string) string {
	var b strings.Builder
	for name, value := range all {
		b.WriteString(name + "=" + strings.ReplaceAll(strings.ReplaceAll(value, `\`, `\\`), "\n", `\n`) + "\n")
	}
	return b.String()
}
