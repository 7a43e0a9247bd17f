package pipeline

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

const (
	kafkaScheme = "kafka://"
	kafkaPort   = 9092

	defaultPartitions         = 3
	defaultMaxDocument        = 16 << 20
	defaultTransactionTimeout = 15 * time.Minute // more than that brokers refuse unless they are told otherwise
	defaultSessionTimeout     = 10 * time.Second
	leastSessionTimeout       = 6 * time.Second // less than that brokers refuse unless they are told otherwise
)

// LoadLog reads only where a pipeline's log is; nil is the data folder. Errors are for people.
func LoadLog(file string, opts Options) (*Kafka, error) {
	s := &source{file: file, opts: opts}
	root, err := s.readYAML()
	if err != nil {
		return nil, err
	}
	p := &Pipeline{File: file}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "log" {
			err = s.log(p)(deref(root.Content[i+1]))
		}
	}
	return p.Kafka, err
}

// logOn reads the log: an address, or a mapping that may have one.
func (s *source) logOn(p *Pipeline, n *yaml.Node, retention field) error {
	k := &Kafka{Partitions: defaultPartitions, MaxDocument: defaultMaxDocument, TransactionTimeout: defaultTransactionTimeout, SessionTimeout: defaultSessionTimeout, Prefix: prefixOf(p.File), At: s.at(n)}
	if n.Kind == yaml.ScalarNode {
		if err := s.kafkaURL(k)(n); err != nil {
			return err
		}
		return s.kafka(p, k, kafkalogin.TLS{}, n)
	}
	var on *yaml.Node // a member that has a meaning on Kafka only
	only := func(read field) field {
		return func(n *yaml.Node) error {
			on = n
			return read(n)
		}
	}
	var tls kafkalogin.TLS
	err := s.members(n, "log", map[string]field{
		"retention": retention, "url": s.kafkaURL(k), "topics": only(s.kafkaTopics(k)),
		"credentials": only(func(n *yaml.Node) (err error) {
			k.Credentials, err = parsed[kafkalogin.Credentials](s, n, "credentials of the log")
			return err
		}),
		"tls": only(func(n *yaml.Node) (err error) {
			tls, err = parsed[kafkalogin.TLS](s, n, "tls of the log")
			return err
		}),
		"transactionTimeout": only(func(n *yaml.Node) (err error) {
			if k.TransactionTimeout, err = ParseAge(n.Value); err != nil || k.TransactionTimeout < time.Second {
				return s.fail(n, "transactionTimeout of the log is %q: it must be a duration of a second or more, such as 15m", n.Value)
			}
			return nil
		}),
		"sessionTimeout": only(func(n *yaml.Node) (err error) {
			if k.SessionTimeout, err = ParseAge(n.Value); err != nil || k.SessionTimeout < leastSessionTimeout {
				return s.fail(n, "sessionTimeout of the log is %q: it must be a duration of %s or more, such as 10s", n.Value, leastSessionTimeout)
			}
			return nil
		}),
	})
	switch {
	case err != nil:
		return err
	case k.Brokers != nil:
		return s.kafka(p, k, tls, n)
	case on != nil:
		return s.fail(on, "the log has no url such as kafka://broker:9092, without which it is kept in the data folder: that has neither topics nor a login")
	}
	return nil
}

// parsed reads a mapping of the configuration.
func parsed[T any](s *source, n *yaml.Node, what string) (T, error) {
	var zero T
	if n.Kind != yaml.MappingNode {
		return zero, s.fail(n, "%s must be a mapping", what)
	}
	raw, err := s.toJSON(n, true)
	if err != nil {
		return zero, err
	}
	v, err := schema.Parse[T](raw, what)
	if err != nil {
		return zero, s.fail(n, "%s", usererr.Message(err))
	}
	return v, nil
}

// kafka checks what was read, and makes it the pipeline's log.
func (s *source) kafka(p *Pipeline, k *Kafka, tls kafkalogin.TLS, n *yaml.Node) error {
	k.TLS = tls.Settings(k.Brokers)
	problems := append(k.Credentials.Problems(), k.TLS.Validate())
	if err := usererr.Join("the log's login has these problems:", problems); err != nil {
		return s.fail(n, "%s", usererr.Message(err))
	}
	p.Kafka = k
	return nil
}

// kafkaURL reads the brokers' addresses.
func (s *source) kafkaURL(k *Kafka) field {
	return func(n *yaml.Node) error {
		text, err := s.expand(n)
		if err != nil {
			return err
		}
		list, ok := strings.CutPrefix(text, kafkaScheme)
		switch {
		case !ok:
			return s.fail(n, "the log must be an address such as kafka://broker1:9092,broker2:9092, or a mapping; without it, it is kept in the data folder")
		case strings.Contains(list, "@"):
			return s.fail(n, "the log's address holds a login, and addresses are shown in logs: write it in credentials of a mapping, beside url")
		}
		for one := range strings.SplitSeq(strings.TrimSuffix(list, "/"), ",") {
			broker, err := endpoint.ParseAddress(strings.TrimSpace(one), kafkaPort)
			if err != nil {
				return s.fail(n, "the log's address cannot be used: %s", usererr.Message(err))
			}
			k.Brokers = append(k.Brokers, broker)
		}
		return nil
	}
}

func (s *source) kafkaTopics(k *Kafka) field {
	whole := func(dst *int, what string, most int) field {
		return func(n *yaml.Node) error {
			v, err := strconv.Atoi(n.Value)
			if err != nil || v < 1 || v > most {
				return s.fail(n, "%s of the log's topics is %q: it must be a whole number from 1 to %d", what, n.Value, most)
			}
			*dst = v
			return nil
		}
	}
	return func(n *yaml.Node) error {
		return s.members(n, "topics", map[string]field{
			"partitions": whole(&k.Partitions, "partitions", 10_000), "replication": whole(&k.Replication, "replication", 100), "adopt": s.boolean(&k.Adopt, "adopt"),
			"compact": s.texts(&k.Compact, "compact"),
			"prefix": func(n *yaml.Node) error {
				if !topicName.MatchString(n.Value) {
					return s.fail(n, "prefix of the log's topics is %q: it must be made of letters, digits, dots, dashes and underscores, at most 100", n.Value)
				}
				k.Prefix = n.Value
				return nil
			},
			"maxDocument": func(n *yaml.Node) (err error) {
				if k.MaxDocument, err = ParseSize(n.Value); err != nil || k.MaxDocument > 1<<30 {
					return s.fail(n, "maxDocument of the log's topics is %q: it must be a size such as 1MB or 64MB, at most 1GiB", n.Value)
				}
				return nil
			},
		})
	}
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// prefixOf is what topics' names begin with if nobody says so: the file's name.
func prefixOf(file string) string {
	base := filepath.Base(file)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	clean := strings.Map(func(r rune) rune {
		if topicName.MatchString(string(r)) || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, base)
	if clean = strings.Trim(clean, ".-_"); clean == "" {
		return "sluice"
	}
	return clean[:min(len(clean), 100)]
}
