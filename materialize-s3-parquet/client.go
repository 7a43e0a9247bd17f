package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awscredentials "github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

const (
	connectTimeout = 15 * time.Second
	attempts       = 6
	maxBackoff     = 10 * time.Second
)

// newClient makes a client of the configured store. It does not connect. Credentials that expire are renewed by themselves.
func newClient(ctx context.Context, cfg config) (*s3.Client, error) {
	endpoint, err := cfg.endpoint()
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(cfg.Advanced.RequestTimeout)
	// The timeout covers one attempt with its body, so that an upload that hangs is noticed and made again.
	client := awshttp.NewBuildableClient().WithTimeout(timeout).
		WithDialerOptions(func(d *net.Dialer) { d.Timeout, d.KeepAlive = connectTimeout, 30*time.Second }).
		WithTransportOptions(func(t *http.Transport) { t.TLSHandshakeTimeout, t.MaxIdleConnsPerHost = connectTimeout, 16 })
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRegion(cfg.Region),
		awsconfig.WithHTTPClient(client),
		awsconfig.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff })
		}),
	}
	c := cfg.Credentials
	if c.AccessKeyID != "" {
		options = append(options, awsconfig.WithCredentialsProvider(awscredentials.NewStaticCredentialsProvider(
			c.AccessKeyID, c.SecretAccessKey.Reveal(), c.SessionToken.Reveal())))
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, explainStore(err, cfg, cfg.Bucket)
	}
	if c.RoleARN != "" {
		roles := sts.NewFromConfig(loaded, func(o *sts.Options) {
			if !cfg.isAWS() {
				o.BaseEndpoint = &cfg.Endpoint // MinIO and others answer for both
			}
		})
		loaded.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(roles, c.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "sluice"
			if c.ExternalID != "" {
				o.ExternalID = &c.ExternalID
			}
		}))
	}
	return s3.NewFromConfig(loaded, func(o *s3.Options) {
		o.UsePathStyle = cfg.pathStyle()
		if endpoint != nil {
			o.BaseEndpoint = &cfg.Endpoint
		}
		if !cfg.isAWS() {
			// Not every store knows the newer checksums. The signature covers the content in any case.
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
	}), nil
}
