package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/sirupsen/logrus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// clientID is what the brokers' quotas and logs call us.
const clientID = "sluice"

// tokenTimeout bounds a request for a token, for which connections wait.
const tokenTimeout = 30 * time.Second

// newClient prepares a client of the cluster, which connects when it is first used. It belongs to the caller.
func newClient(k *pipeline.Kafka, log *logrus.Entry, opts ...kgo.Opt) (*kgo.Client, error) {
	var seeds []string
	for _, b := range k.Brokers {
		seeds = append(seeds, b.String())
	}
	all := []kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID(clientID), kgo.Dialer(kafkalogin.Dialer(k.TLS, kafkalogin.HandshakeTimeout)), kgo.WithLogger(clientLog{log}), kgo.DisableClientMetrics(),
		kgo.MetadataMinAge(250 * time.Millisecond),
	}
	login, err := mechanism(k.Credentials)
	if err != nil {
		return nil, err
	}
	if login != nil {
		all = append(all, kgo.SASL(login))
	}
	client, err := kgo.NewClient(append(all, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("preparing a client of Kafka: %w", err)
	}
	return client, nil
}

// mechanism is how we log in at brokers; nil if they want no login.
func mechanism(c kafkalogin.Credentials) (sasl.Mechanism, error) {
	switch c.Method {
	case "", kafkalogin.None:
		return nil, nil //nolint:nilnil // no login
	case kafkalogin.Plain:
		return plain.Auth{User: c.Username, Pass: c.Password.Reveal()}.AsMechanism(), nil
	case kafkalogin.SCRAM256:
		return scram.Auth{User: c.Username, Pass: c.Password.Reveal()}.AsSha256Mechanism(), nil
	case kafkalogin.SCRAM512:
		return scram.Auth{User: c.Username, Pass: c.Password.Reveal()}.AsSha512Mechanism(), nil
	case kafkalogin.OAuth:
		tokens := tokensOf(c)
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := tokens.Token()
			if err != nil {
				return oauth.Auth{}, fmt.Errorf("fetching a token: %w", err)
			}
			return oauth.Auth{Token: token.AccessToken}, nil
		}), nil
	case kafkalogin.AWS:
		return awsLogin(c), nil
	}
	return nil, fmt.Errorf("logging in by %q is not known", c.Method)
}

// tokensOf are fetched when they are first needed, and anew before they expire.
func tokensOf(c kafkalogin.Credentials) oauth2.TokenSource {
	if !c.Token.IsZero() {
		return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: c.Token.Reveal()})
	}
	client := clientcredentials.Config{ClientID: c.ClientID, ClientSecret: c.ClientSecret.Reveal(), TokenURL: c.TokenEndpoint, Scopes: c.Scopes}
	// It outlives the call that needs the first token, and the library sets no limit of its own.
	return client.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: tokenTimeout}))
}

// awsLogin signs with the access key of the configuration, or with what the machine has, which may change while we run.
func awsLogin(c kafkalogin.Credentials) sasl.Mechanism {
	return aws.ManagedStreamingIAM(func(ctx context.Context) (aws.Auth, error) {
		if c.AWSAccessKeyID != "" {
			return aws.Auth{AccessKey: c.AWSAccessKeyID, SecretKey: c.AWSSecretAccessKey.Reveal(), SessionToken: c.AWSSessionToken.Reveal(), UserAgent: clientID}, nil
		}
		machine, err := awsconfig.LoadDefaultConfig(ctx)
		if err != nil {
			return aws.Auth{}, fmt.Errorf("looking for AWS credentials: %w", err)
		}
		found, err := machine.Credentials.Retrieve(ctx)
		if err != nil {
			return aws.Auth{}, fmt.Errorf("looking for AWS credentials: %w", err)
		}
		return aws.Auth{AccessKey: found.AccessKeyID, SecretKey: found.SecretAccessKey, SessionToken: found.SessionToken, UserAgent: clientID}, nil
	})
}

// clientLog passes what the client says on as details: what matters of it comes back as an error.
type clientLog struct{ log *logrus.Entry }

// Level implements kgo.Logger.
func (l clientLog) Level() kgo.LogLevel {
	if l.log.Logger.IsLevelEnabled(logrus.TraceLevel) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

// Log implements kgo.Logger.
func (l clientLog) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	fields := logrus.Fields{}
	for i := 0; i+1 < len(keyvals); i += 2 {
		fields[fmt.Sprint(keyvals[i])] = fmt.Sprint(keyvals[i+1])
	}
	l.log.WithFields(fields).Trace(msg)
}

// explain puts an error of the cluster in words for people: what could not be done, with which topic, and what to do. Errors that
// are in such words already stay as they are.
func (l *Log) explain(err error, doing, topic string) error {
	if err == nil || usererr.Has(err) || errors.Is(err, context.Canceled) {
		return err
	}
	k := l.o.Kafka
	for _, known := range []struct {
		when []error
		text string
	}{
		{[]error{kerr.TopicAuthorizationFailed}, fmt.Sprintf("the login may not do that with the topic: grant it READ, WRITE and DESCRIBE on the topics %s.* of %s, and CREATE if it is to make them", k.Prefix, k)},
		{[]error{kerr.ClusterAuthorizationFailed}, fmt.Sprintf("the login may not do that: make the topic yourself and say topics: {adopt: true}, or grant CREATE on the topics %s.* of %s", k.Prefix, k)},
		{[]error{kerr.TransactionalIDAuthorizationFailed}, fmt.Sprintf("the login may not use transactions: grant it WRITE and DESCRIBE on the transactional ids %s.* of %s", k.Prefix, k)},
		{[]error{kerr.InvalidReplicationFactor}, fmt.Sprintf("the cluster %s has fewer brokers than that: set topics.replication of the log (it is %d, and zero is the brokers' own) to what there is", k, k.Replication)},
		{[]error{kerr.InvalidTransactionTimeout}, fmt.Sprintf("the brokers allow no transaction to take %v: raise their transaction.max.timeout.ms, or lower transactionTimeout of the log", k.TransactionTimeout)},
		{[]error{kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InconsistentTopicID}, fmt.Sprintf("the topic is not on %s any more, and what was in it is lost: if it was deleted, delete all topics %s.* and raise the backfill counters of the materializations, to read the sources anew", k, k.Prefix)},
		{[]error{kerr.MessageTooLarge, kerr.RecordListTooLarge}, fmt.Sprintf("a document is larger than the topic takes: raise topics.maxDocument of the log (it is %d bytes), and max.message.bytes of the topic if it exists already", k.MaxDocument)},
		{[]error{kerr.InvalidConfig, kerr.PolicyViolation}, fmt.Sprintf("the cluster does not allow such a topic (%v): make it yourself and say topics: {adopt: true}, or change topics of the log", err)},
		{[]error{kerr.SaslAuthenticationFailed, kerr.IllegalSaslState, kerr.UnsupportedSaslMechanism}, fmt.Sprintf("the cluster %s refuses the login (%v): check credentials of the log", k, err)},
		{[]error{kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend}, fmt.Sprintf("too few of the topic's replicas are there, fewer than its min.insync.replicas: see what is wrong with the brokers of %s", k)},
		{[]error{kerr.InvalidTopicException}, fmt.Sprintf("the cluster does not take the name (%v): choose another topics.prefix of the log, or another name for the collection", err)},
	} {
		for _, one := range known.when {
			if errors.Is(err, one) {
				return usererr.New(err, "%s%s failed: %s", doing, ofTopic(topic), known.text)
			}
		}
	}
	if errors.Is(err, errStalled) || errors.Is(err, context.DeadlineExceeded) || isNet(err) {
		return usererr.New(err, "%s%s failed: no broker of %s answers (%s): see whether the cluster is up and can be reached, and check url, tls and credentials of the log; it goes on when it can", doing, ofTopic(topic), k, reason(err))
	}
	return fmt.Errorf("%s%s: %w", doing, ofTopic(topic), err)
}

func ofTopic(topic string) string {
	if topic == "" {
		return ""
	}
	return " (topic " + topic + ")"
}

func isNet(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || strings.Contains(err.Error(), "unable to dial") || strings.Contains(err.Error(), "EOF")
}

func reason(err error) string {
	if errors.Is(err, errStalled) || errors.Is(err, context.DeadlineExceeded) {
		return "in time"
	}
	return err.Error()
}

// errStalled is the cause of a wait that was given up.
var errStalled = errors.New("the cluster did not answer in time")
