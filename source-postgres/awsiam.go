package main

import (
	"context"
	"errors"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	rdsauth "github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// awsTokens makes tokens that Amazon RDS and Aurora take as passwords for fifteen minutes. Making one is a signature and asks
// nobody; the credentials that it is made with are kept, and renewed shortly before they expire.
// https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html
type awsTokens struct {
	cfg config

	mu          sync.Mutex
	credentials aws.CredentialsProvider // nil until first needed
}

// token is a passwordSource.
func (a *awsTokens) token(ctx context.Context) (string, error) {
	addr, err := a.cfg.address()
	if err != nil {
		return "", err
	}
	provider, err := a.provider(ctx, addr.Host)
	if err != nil {
		return "", err
	}
	// The token names the server itself, also where a tunnel leads there.
	token, err := rdsauth.BuildAuthToken(ctx, addr.String(), a.cfg.Auth.region(addr.Host), a.cfg.User, provider)
	if err != nil {
		return "", awsAdvice(err, a.cfg.Auth)
	}
	return token, nil
}

// provider is where credentials come from: the configuration's access key or the identity of the place where we run, and the
// role that it takes on.
func (a *awsTokens) provider(ctx context.Context, host string) (aws.CredentialsProvider, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.credentials != nil {
		return a.credentials, nil
	}
	options := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(a.cfg.Auth.region(host))}
	if id := a.cfg.Auth.AWSAccessKeyID; id != "" {
		key := credentials.NewStaticCredentialsProvider(id, a.cfg.Auth.AWSSecretAccessKey.Reveal(), "")
		options = append(options, awsconfig.WithCredentialsProvider(key))
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, awsAdvice(err, a.cfg.Auth)
	}
	provider := loaded.Credentials
	if role := a.cfg.Auth.AWSRoleARN; role != "" {
		provider = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(loaded), role,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = applicationName }))
	}
	a.credentials = provider
	return provider, nil
}

func awsAdvice(err error, a auth) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case a.AWSRoleARN != "":
		return usererr.New(err, "AWS does not give credentials of the role %s: %s. Check auth.awsRoleArn, and that the role trusts the identity that the capture runs as.", a.AWSRoleARN, lastPhrase(err))
	}
	return usererr.New(err, "No credentials of AWS are to be had here: %s. Give the capture an identity (a role of its pod, task or instance, or the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or enter auth.awsAccessKeyId and auth.awsSecretAccessKey.", lastPhrase(err))
}
