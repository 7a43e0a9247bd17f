package main

import (
	"context"
	"regexp"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// A passwordSource gives the password for one attempt to connect, within its context. It is asked for every one of them,
// because tokens that take the place of passwords expire: a session that is open outlives its token, the next one needs a
// new one. It may be called from many goroutines. What it gives must not come into a message.
type passwordSource func(ctx context.Context) (password string, err error)

// auth is how to log in.
type auth struct {
	Type               string        `json:"type,omitempty" title:"Type" desc:"Password (the default), or awsIAM: tokens of AWS identity management for Amazon RDS and Aurora, made anew for every connection." enum:",password,awsIAM" order:"0"`
	AWSRegion          string        `json:"awsRegion,omitempty" title:"AWS Region" desc:"The region of the database, such as eu-central-1. Empty means the one in the server's address." order:"1"`
	AWSRoleARN         string        `json:"awsRoleArn,omitempty" title:"AWS Role" desc:"The role to take on before a token is made, if the identity that is found may not connect itself." order:"2"`
	AWSAccessKeyID     string        `json:"awsAccessKeyId,omitempty" title:"AWS Access Key" desc:"The identifier of an access key. Empty means the identity of the place where the capture runs: environment, shared configuration, pod, task or instance." order:"3"`
	AWSSecretAccessKey schema.Secret `json:"awsSecretAccessKey,omitzero" title:"AWS Secret Access Key" desc:"The secret of the access key." secret:"true" order:"4"`
}

// Values of auth.type.
const (
	authPassword = "password"
	authAWS      = "awsIAM"
)

// rdsHosts are names of instances and clusters, which have their region in them.
var rdsHosts = regexp.MustCompile(`\.([a-z]+(?:-[a-z]+)+-\d+)\.rds\.amazonaws\.com(?:\.cn)?\.?$`)

// region is the one of the database, empty if it is not known.
func (a auth) region(host string) string {
	if a.AWSRegion != "" {
		return a.AWSRegion
	}
	if m := rdsHosts.FindStringSubmatch(host); m != nil {
		return m[1]
	}
	return ""
}

func (a auth) validate(addr endpoint.Address, t endpoint.TLS, password schema.Secret) error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	switch a.Type {
	case "", authPassword:
		if a.AWSRegion+a.AWSRoleARN+a.AWSAccessKeyID != "" || !a.AWSSecretAccessKey.IsZero() {
			problem("There are settings for AWS in auth, but auth.type is not awsIAM. Choose it, or remove them.")
		}
		return usererr.Join("", errs)
	case authAWS:
	default:
		problem("The authentication type %q does not exist. Choose password or awsIAM.", a.Type)
		return usererr.Join("", errs)
	}
	if t.Mode == endpoint.Disable || t.Mode == endpoint.Require {
		problem("A token of AWS is as good as a password, and goes only to a server that has proved who it is: set sslmode to verify-full, with the authorities of Amazon RDS in sslRootCert.")
	}
	if a.region(addr.Host) == "" {
		problem("The address %s does not tell the region of the database. Enter it in auth.awsRegion.", addr.Host)
	}
	if !password.IsZero() {
		problem("There is a password although auth.type is awsIAM. Remove one of them.")
	}
	if (a.AWSAccessKeyID == "") != a.AWSSecretAccessKey.IsZero() {
		problem("An access key has two parts. Enter auth.awsAccessKeyId and auth.awsSecretAccessKey, or neither.")
	}
	return usererr.Join("", errs)
}

// passwordSource is where passwords come from.
func (c config) passwordSource() passwordSource {
	if c.Auth.Type == authAWS {
		return (&awsTokens{cfg: c}).token
	}
	return func(context.Context) (string, error) { return c.Password.Reveal(), nil }
}
