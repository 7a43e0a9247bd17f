package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sluicedata/sluice/sdk/kafkalogin"
	"github.com/sluicedata/sluice/sdk/schema"
)

// emptyBody is the hash of nothing, as it stands in signatures.
const emptyBody = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// The login at a broker of Amazon's is the request that Amazon's own library would sign.
func TestAWSLogin(t *testing.T) {
	t.Setenv("AWS_REGION", "eu-central-1") // the broker's name does not have one
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "t"))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	shaken, tokens := make(chan string, 100), make(chan []byte, 100)
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req, ok := kreq.(*kmsg.SASLHandshakeRequest)
		resp, isResp := kreq.ResponseKind().(*kmsg.SASLHandshakeResponse)
		if !ok || !isResp {
			return nil, nil, false
		}
		shaken <- req.Mechanism
		resp.SupportedMechanisms = []string{"AWS_MSK_IAM"}
		return resp, nil, true
	})
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req, ok := kreq.(*kmsg.SASLAuthenticateRequest)
		resp, isResp := kreq.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		if !ok || !isResp {
			return nil, nil, false
		}
		tokens <- req.SASLAuthBytes
		resp.SASLAuthBytes = []byte(`{"version":"2020_10_22","request-id":"1"}`)
		return resp, nil, true
	})
	b := benchAt(t, strings.Join(cluster.ListenAddrs(), ","))
	b.numbered("t", 2, 0, 4)
	cfg := b.config("t")
	cfg.Credentials = credentials{Method: kafkalogin.AWS, AWSAccessKeyID: "AKIDEXAMPLE", AWSSecretAccessKey: schema.NewSecret("the secret"), AWSSessionToken: schema.NewSecret("the token")}
	require.NoError(t, cfg.Validate())
	r := open(t, cfg, nil)
	r.until(4)
	require.NoError(t, r.Stop())
	require.Equal(t, "AWS_MSK_IAM", <-shaken)

	var token map[string]string
	require.NoError(t, json.Unmarshal(<-tokens, &token))
	require.NotContains(t, token, "the secret")
	signature := token["x-amz-signature"]
	at, err := time.Parse("20060102T150405Z", token["x-amz-date"])
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, 10*time.Minute)
	require.Equal(t, "AKIDEXAMPLE/"+at.Format("20060102")+"/eu-central-1/kafka-cluster/aws4_request", token["x-amz-credential"])
	require.Equal(t, "the token", token["x-amz-security-token"])
	require.Equal(t, "2020_10_22", token["version"])
	require.Equal(t, "kafka-cluster:Connect", token["action"])
	require.Equal(t, "127.0.0.1", token["host"])
	require.Equal(t, clientID, token["user-agent"])

	ask := &http.Request{Method: http.MethodGet, URL: &url.URL{Scheme: "kafka", Host: "127.0.0.1", Path: "/"}, Host: "127.0.0.1", Header: http.Header{}}
	ask.URL.RawQuery = url.Values{"Action": {"kafka-cluster:Connect"}, "X-Amz-Expires": {token["x-amz-expires"]}}.Encode()
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "the secret", SessionToken: "the token"},
		ask, emptyBody, "kafka-cluster", "eu-central-1", at)
	require.NoError(t, err)
	theirs, err := url.Parse(signed)
	require.NoError(t, err)
	require.Equal(t, theirs.Query().Get("X-Amz-Signature"), signature)
}
