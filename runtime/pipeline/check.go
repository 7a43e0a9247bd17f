package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// check finds everything that does not fit together, and reports it at once.
func (p *Pipeline) check() error {
	var problems []error
	report := func(at, format string, args ...any) {
		problems = append(problems, usererr.New(nil, "%s: %s", at, fmt.Sprintf(format, args...)))
	}
	if len(p.Captures)+len(p.Materializations) == 0 {
		return usererr.New(nil, "%s has no capture and no materialization that is not disabled: there is nothing to run", p.File)
	}
	written := map[string]bool{}
	for _, c := range p.Captures {
		if len(c.Bindings) == 0 {
			report(c.At, "the capture %s has no binding that is not disabled", c.Name)
		}
		for _, b := range c.Bindings {
			written[b.Target] = true
			if p.Collections[b.Target] == nil {
				report(c.At, "the capture %s writes to the collection %s, which is not defined", c.Name, b.Target)
			}
		}
	}
	names := map[string]bool{}
	for _, c := range p.Captures {
		names[c.Name] = true
		if c.Shards > 1 && p.Kafka == nil {
			report(c.At, "the capture %s has %d shards, which takes a log on Kafka (log: kafka://…): the one in the data folder has whole tasks", c.Name, c.Shards)
		}
	}
	for _, m := range p.Materializations {
		if names[m.Name] {
			report(m.At, "a capture and a materialization are both called %s", m.Name)
		}
		switch {
		case m.Shards > 1 && p.Kafka == nil:
			report(m.At, "the materialization %s has %d shards, which takes a log on Kafka (log: kafka://…): the one in the data folder has whole tasks", m.Name, m.Shards)
		case p.Kafka != nil && m.Shards > p.Kafka.Partitions:
			report(m.At, "the materialization %s has %d shards, but topics of the log have %d partitions, each of which is read by one shard: lower shards, or set topics.partitions of the log to more and begin with a new topics.prefix", m.Name, m.Shards, p.Kafka.Partitions)
		}
		if len(m.Bindings) == 0 {
			report(m.At, "the materialization %s has no binding that is not disabled", m.Name)
		}
		for _, b := range m.Bindings {
			if p.Collections[b.Source] == nil {
				report(b.At, "the materialization %s reads the collection %s, which is not defined", m.Name, b.Source)
			}
		}
	}
	if p.Kafka != nil {
		for _, name := range p.Kafka.Compact {
			if p.Collections[name] == nil {
				report(p.Kafka.At, "compact of the log's topics names the collection %s, which is not defined", name)
			}
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return usererr.Join("the pipeline cannot run:", problems)
}

// checkName says what is wrong with the name of a task or collection; "" if nothing is. The rules are those of the
// protocol, since connectors check them.
func checkName(name string) string {
	switch {
	case name == "" || len(name) > 512:
		return "must have 1 to 512 characters"
	case strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || path.Clean(name) != name:
		return "must be a clean path such as acme/orders, without a leading slash"
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_+/.", r) {
			return fmt.Sprintf("may have letters, digits and -_+/. but not %q", r)
		}
	}
	return ""
}

// CommandProblem says in words for people why a command cannot be started.
func CommandProblem(command string, err error) string {
	if info, statErr := os.Stat(command); statErr == nil && info.IsDir() {
		return fmt.Sprintf("%s is a folder, not a program", command)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Sprintf("%s is not executable (chmod +x it, or name the interpreter as the first element of the command)", command)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("there is no file %s", command)
	}
	return fmt.Sprintf("there is no program %s on the PATH", command)
}
