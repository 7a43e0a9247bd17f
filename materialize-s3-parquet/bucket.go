package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// bucket is a place in an object store. A draft is a multipart upload: its parts are durable, and nobody sees the object
// before the upload is completed.
type bucket struct {
	name   string
	cfg    config
	client *s3.Client
	parts  *partPool
}

// tokenKey is the name of the token in an object's metadata.
const tokenKey = "sluice-token"

func newBucket(ctx context.Context, cfg config, name string) (*bucket, error) {
	client, err := newClient(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &bucket{name: name, cfg: cfg, client: client, parts: newPartPool()}, nil
}

func (b *bucket) url() string { return "s3://" + b.name }

func (b *bucket) explain(err error) error { return explainStore(err, b.cfg, b.name) }

func (b *bucket) create(_ context.Context, name string) (draft, error) {
	return &upload{bucket: b, name: name, token: strings.ToLower(rand.Text())}, nil
}

// finish completes an upload, unless there is an object of that name: ours, if the answer to a first attempt was lost or an
// earlier session was here, or one that is not to be overwritten. Whatever the store answers, what counts is what can be read
// afterwards.
func (b *bucket) finish(ctx context.Context, f file) error {
	switch there, err := b.lookUp(ctx, f); {
	case err != nil && !isMissing(err):
		return b.explain(err)
	case err == nil && !there:
		return foreign(f.Name, b.url())
	case there:
		return nil
	}
	parts := make([]types.CompletedPart, len(f.Parts))
	for i, tag := range f.Parts {
		parts[i] = types.CompletedPart{ETag: &tag, PartNumber: aws.Int32(int32(i) + 1)}
	}
	_, completing := b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.name, Key: &f.Name, UploadId: &f.Draft, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	there, err := b.lookUp(ctx, f)
	switch {
	case isMissing(err) && completing == nil:
		return usererr.New(err, "%s says that %s is complete, but does not give it back. It will be tried again.", b.url(), f.Name)
	case isMissing(err) && isGone(completing):
		return &goneError{f}
	case isMissing(err):
		return b.explain(completing)
	case err != nil:
		return b.explain(errors.Join(completing, err))
	case !there:
		return foreign(f.Name, b.url())
	}
	return nil
}

// lookUp reports whether the object of a file's name is that file.
func (b *bucket) lookUp(ctx context.Context, f file) (bool, error) {
	head, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &f.Name})
	if err != nil {
		return false, err
	}
	return head.Metadata[tokenKey] == f.Token && aws.ToInt64(head.ContentLength) == f.Bytes, nil
}

// isMissing reports whether there is no such object.
func isMissing(err error) bool {
	response, ok := errors.AsType[*awshttp.ResponseError](err)
	return ok && response.HTTPStatusCode() == http.StatusNotFound && !isCode(err, "NoSuchBucket")
}

// isGone reports whether an upload is unknown to the store: it was completed or aborted before.
func isGone(err error) bool {
	return isCode(err, "NoSuchUpload", "NoSuchKey", "InvalidPart")
}

func isCode(err error, codes ...string) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return false
	}
	for _, code := range codes {
		if api.ErrorCode() == code {
			return true
		}
	}
	return false
}

func (b *bucket) sweep(ctx context.Context, prefix string, abandoned func(name, draft string) bool) (int, error) {
	count := 0
	pages := s3.NewListMultipartUploadsPaginator(b.client, &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return count, b.explain(err)
		}
		for _, u := range page.Uploads {
			if !abandoned(aws.ToString(u.Key), aws.ToString(u.UploadId)) {
				continue
			}
			err := b.abort(ctx, aws.ToString(u.Key), aws.ToString(u.UploadId))
			if err != nil && !isCode(err, "NoSuchUpload") {
				return count, b.explain(err)
			}
			count++
		}
	}
	return count, nil
}

func (b *bucket) abort(ctx context.Context, name, id string) error {
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &name, UploadId: &id})
	return err
}

func (b *bucket) find(ctx context.Context, folder string) (string, error) {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: aws.String(folder + "/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", b.explain(err)
		}
		for _, o := range page.Contents {
			if strings.HasSuffix(aws.ToString(o.Key), ".parquet") {
				return *o.Key, nil
			}
		}
	}
	return "", nil
}

// probe walks through an upload and aborts it, then lists and looks up what is not there. Stores check permissions before they
// look: an answer other than "not found" says what is missing.
func (b *bucket) probe(ctx context.Context) error {
	// Whoever checks waits for the answer: what fails twice is said.
	quick := *b
	quick.client = s3.New(b.client.Options(), func(o *s3.Options) { o.Retryer = retry.AddWithMaxAttempts(o.Retryer, 2) })
	b = &quick
	// Below the prefix, as far as that is the same at all times: no more may be allowed.
	prefix := literalPart(strings.Trim(b.cfg.Prefix, "/") + "/")
	prefix = strings.TrimPrefix(prefix[:strings.LastIndexByte(prefix, '/')+1], "/")
	name := prefix + ".sluice-check-" + strings.ToLower(rand.Text())
	if _, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: &name, MaxKeys: aws.Int32(1)}); err != nil {
		return b.explain(err)
	}
	if _, err := b.client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &name, MaxUploads: aws.Int32(1)}); err != nil {
		return b.explain(err)
	}
	u := &upload{bucket: b, name: name, token: "check"}
	if err := u.write(ctx, []byte("check")); err != nil {
		return err
	}
	_, err := u.seal(ctx)
	if err != nil {
		u.discard()
		return err
	}
	if err := b.abort(ctx, name, u.id); err != nil {
		return b.explain(err)
	}
	return nil
}

// exists reports whether there is an object of that name.
func (b *bucket) exists(ctx context.Context, name string) (bool, error) {
	_, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &name})
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, b.explain(err)
	}
	return true, nil
}

// begin starts a multipart upload.
func (b *bucket) begin(ctx context.Context, name, token string) (string, error) {
	in := &s3.CreateMultipartUploadInput{
		Bucket: &b.name, Key: &name, ContentType: aws.String("application/vnd.apache.parquet"),
		Metadata: map[string]string{tokenKey: token},
	}
	a := b.cfg.Advanced
	if a.ServerSideEncryption != "" {
		in.ServerSideEncryption = types.ServerSideEncryption(a.ServerSideEncryption)
	}
	if a.KMSKeyID != "" {
		in.SSEKMSKeyId = &a.KMSKeyID
	}
	if a.StorageClass != "" {
		in.StorageClass = types.StorageClass(a.StorageClass)
	}
	out, err := b.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return "", b.explain(err)
	}
	return aws.ToString(out.UploadId), nil
}

// put uploads one part and returns its entity tag.
func (b *bucket) put(ctx context.Context, name, id string, number int, body io.ReadSeeker) (string, error) {
	out, err := b.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &b.name, Key: &name, UploadId: &id, PartNumber: aws.Int32(int32(number)), Body: body,
	})
	if err != nil {
		return "", b.explain(err)
	}
	return aws.ToString(out.ETag), nil
}
