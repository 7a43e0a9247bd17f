package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/sluicedata/sluice/sdk/kafkalogin"
)

// mechanism is how we log in at brokers; nil if they want no login.
func mechanism(c credentials) (sasl.Mechanism, error) {
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

// tokenTimeout bounds a request for a token, for which connections wait.
const tokenTimeout = 30 * time.Second

// tokensOf are fetched when they are first needed, and anew before they expire.
func tokensOf(c credentials) oauth2.TokenSource {
	if !c.Token.IsZero() {
		return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: c.Token.Reveal()})
	}
	client := clientcredentials.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret.Reveal(), TokenURL: c.TokenEndpoint, Scopes: c.Scopes,
	}
	// It outlives the call that needs the first token, and the library sets no limit of its own.
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Timeout: tokenTimeout})
	return client.TokenSource(ctx)
}

// awsLogin signs with the access key of the configuration, or with what the machine has, which may change while we run.
func awsLogin(c credentials) sasl.Mechanism {
	return aws.ManagedStreamingIAM(func(ctx context.Context) (aws.Auth, error) {
		if c.AWSAccessKeyID != "" {
			return aws.Auth{
				AccessKey: c.AWSAccessKeyID, SecretKey: c.AWSSecretAccessKey.Reveal(), SessionToken: c.AWSSessionToken.Reveal(), UserAgent: clientID,
			}, nil
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
