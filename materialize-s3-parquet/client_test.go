package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/server"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// recorder stands before an object store and keeps the requests that came by; it answers for the service of roles, too.
type recorder struct {
	next http.Handler
	role string // the XML that answers AssumeRole

	mu   sync.Mutex
	seen []*http.Request
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	if in.Method == http.MethodPost && in.URL.Path == "/" {
		_ = in.ParseForm()
	}
	r.mu.Lock()
	r.seen = append(r.seen, in.Clone(context.Background()))
	r.mu.Unlock()
	if in.Form.Get("Action") == "AssumeRole" {
		if strings.Contains(r.role, "<Error>") {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = w.Write([]byte(r.role))
		return
	}
	r.next.ServeHTTP(w, in)
}

func newRecorder(t *testing.T, g ground) (*recorder, string) {
	t.Helper()
	gate, _ := newGate(t, g.s3.Endpoint())
	r := &recorder{next: gate}
	front := httptest.NewServer(r)
	t.Cleanup(front.Close)
	return r, front.URL
}

// requests are those that something asks for.
func (r *recorder) requests(which func(*http.Request) bool) (out []*http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, in := range r.seen {
		if which(in) {
			out = append(out, in)
		}
	}
	return out
}

// The check and the files stay below the prefix, as far as that is the same at all times: no more need be allowed.
func TestNothingOutsideOfPrefix(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]string{"raw": "raw/", "/a/b/": "a/b/", "raw/%Y": "raw/", "": "", "%Y": "", "a%%b": "a%b/"} {
		g := newBucketGround(t)
		r, endpoint := newRecorder(t, g)
		for _, staging := range []string{stagedUploads, stagedObjects} {
			g.staging = staging
			p, err := openPlace(t.Context(), g.parsed(t, func(c map[string]any) { c["endpoint"], c["prefix"] = endpoint, prefix }))
			require.NoError(t, err)
			require.NoError(t, p.probe(t.Context()))
		}
		names := r.requests(func(in *http.Request) bool { return strings.Count(in.URL.Path, "/") > 1 })
		require.NotEmpty(t, names)
		for _, in := range names {
			require.True(t, strings.HasPrefix(in.URL.Path, "/"+g.bucket+"/"+want+".sluice-"), "%s: %s", prefix, in.URL.Path)
		}
	}
}

// How files are to be kept is said when their uploads begin.
func TestEncryptionAndStorageClass(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	r, endpoint := newRecorder(t, g)
	p, err := openPlace(t.Context(), g.parsed(t, func(c map[string]any) {
		c["endpoint"] = endpoint
		c["advanced"] = map[string]any{"serverSideEncryption": "aws:kms", "kmsKeyId": "key-1", "storageClass": "STANDARD_IA"}
	}))
	require.NoError(t, err)
	d, err := p.create(t.Context(), "1.parquet")
	require.NoError(t, err)
	require.NoError(t, d.write(t.Context(), []byte("content")))
	_, _ = d.seal(t.Context()) // the store may refuse what it does not offer
	begun := r.requests(func(in *http.Request) bool { return in.URL.Query().Has("uploads") })
	require.Len(t, begun, 1)
	require.Equal(t, "aws:kms", begun[0].Header.Get("X-Amz-Server-Side-Encryption"))
	require.Equal(t, "key-1", begun[0].Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
	require.Equal(t, "STANDARD_IA", begun[0].Header.Get("X-Amz-Storage-Class"))

	// What is copied is kept as the request for the copy says.
	_ = p.(*bucket).copy(t.Context(), file{Name: "1.parquet", Draft: "staged"})
	copied := r.requests(func(in *http.Request) bool { return in.Header.Get("X-Amz-Copy-Source") != "" })
	require.Len(t, copied, 1)
	require.Equal(t, "aws:kms", copied[0].Header.Get("X-Amz-Server-Side-Encryption"))
	require.Equal(t, "key-1", copied[0].Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
	require.Equal(t, "STANDARD_IA", copied[0].Header.Get("X-Amz-Storage-Class"))
}

// A role is assumed with the key that is configured, and what it gives is used; that it may not be is said of the role, not of
// the bucket.
func TestRole(t *testing.T) {
	t.Parallel()
	g := newBucketGround(t)
	r, endpoint := newRecorder(t, g)
	change := func(c map[string]any) {
		c["endpoint"] = endpoint
		c["credentials"] = map[string]any{"accessKeyId": "who", "secretAccessKey": "top-secret", "roleArn": "arn:aws:iam::1:role/lake", "externalId": "x-1"}
	}
	r.role = `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>` + server.S3AccessKey + `</AccessKeyId><SecretAccessKey>` + server.S3SecretKey +
		`</SecretAccessKey><SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
	p, err := openPlace(t.Context(), g.parsed(t, change))
	require.NoError(t, err)
	require.NoError(t, p.probe(t.Context()))
	assumed := r.requests(func(in *http.Request) bool { return in.Form.Get("Action") == "AssumeRole" })
	require.Len(t, assumed, 1)
	require.Equal(t, "arn:aws:iam::1:role/lake", assumed[0].Form.Get("RoleArn"))
	require.Equal(t, "x-1", assumed[0].Form.Get("ExternalId"))
	require.Contains(t, assumed[0].Header.Get("Authorization"), "Credential=who/")

	r.role = `<ErrorResponse><Error><Code>AccessDenied</Code><Message>who is not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`
	p, err = openPlace(t.Context(), g.parsed(t, change))
	require.NoError(t, err)
	err = p.probe(t.Context())
	require.Equal(t, "The role arn:aws:iam::1:role/lake cannot be assumed: AccessDenied. Check credentials.roleArn and credentials.externalId, that the role's trust policy names who assumes it, and that those credentials are good and may do sts:AssumeRole.",
		usererr.Message(err))
	require.NotContains(t, err.Error(), "top-secret")
}

// Without an access key it is what the AWS tools would find.
func TestDefaultCredentials(t *testing.T) {
	g := newBucketGround(t)
	t.Setenv("AWS_ACCESS_KEY_ID", server.S3AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.S3SecretKey)
	p, err := openPlace(t.Context(), g.parsed(t, func(c map[string]any) { delete(c, "credentials") }))
	require.NoError(t, err)
	require.NoError(t, p.probe(t.Context()))
}

// The bucket stands in the host's name, unless it is asked not to or the host has none.
func TestPathStyle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		endpoint string
		always   bool
		want     string
	}{
		{"https://s3.example.org", false, "https://lake.s3.example.org/1.parquet"},
		{"https://s3.example.org", true, "https://s3.example.org/lake/1.parquet"},
		{"http://localhost:9000", false, "http://localhost:9000/lake/1.parquet"},
		{"http://minio:9000", false, "http://minio:9000/lake/1.parquet"},
		{"http://[::1]:9000", false, "http://[::1]:9000/lake/1.parquet"},
		{"", false, "https://lake.s3.eu-central-1.amazonaws.com/1.parquet"},
		{"", true, "https://s3.eu-central-1.amazonaws.com/lake/1.parquet"},
	} {
		cfg := config{Bucket: "lake", Region: "eu-central-1", Endpoint: c.endpoint, Advanced: advanced{PathStyle: c.always}, Credentials: credentials{AccessKeyID: "id", SecretAccessKey: schema.NewSecret("secret")}}
		client, err := newClient(t.Context(), cfg)
		require.NoError(t, err)
		name := "1.parquet"
		signed, err := s3.NewPresignClient(client).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &cfg.Bucket, Key: &name})
		require.NoError(t, err)
		url, _, _ := strings.Cut(signed.URL, "?")
		require.Equal(t, c.want, url)
	}
}
