package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/sluicedata/sluice/sdk/retry"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// bucket is a place in an object store. A draft is a multipart upload: its parts are durable, and nobody sees the object before the
// upload is completed. At stores that may lose an upload which they complete, it is a hidden object instead, which is copied: see staging.go.
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

// finish makes the object of an upload, or of a staged object, unless there is one of that name: ours, if an earlier session was here,
// or one that is not to be overwritten.
func (b *bucket) finish(ctx context.Context, f file) error {
	there, err := b.verify(ctx, f, 0)
	switch {
	case err != nil:
		return err
	case !there && f.isObject():
		err = b.copy(ctx, f)
	case !there:
		err = b.complete(ctx, f)
	}
	if err == nil && f.isObject() {
		_ = b.remove(ctx, f.Draft) // else it is swept later
	}
	return err
}

// settling is how long is looked for a file whose upload the store does not know: the request of an earlier session, which was
// killed, may just be completing it. MinIO says then that parts are missing, and has the object a moment later.
const settling = 3 * time.Second

// complete completes an upload. Whatever the store answers, what counts is what can be read afterwards: the answer to a first
// attempt may have been lost, or an earlier session may have been here.
func (b *bucket) complete(ctx context.Context, f file) error {
	parts := make([]types.CompletedPart, len(f.Parts))
	for i, tag := range f.Parts {
		parts[i] = types.CompletedPart{ETag: &tag, PartNumber: aws.Int32(int32(i) + 1)}
	}
	_, completing := b.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &b.name, Key: &f.Name, UploadId: &f.Draft, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	patience := time.Duration(0)
	if isGone(completing) {
		patience = settling
	}
	there, err := b.verify(ctx, f, patience)
	switch {
	case there || err != nil:
		return err
	case completing == nil:
		return usererr.New(nil, "%s says that %s is complete, but does not give it back. It will be tried again.", b.url(), f.Name)
	case isGone(completing):
		return &goneError{f}
	}
	return b.explain(completing)
}

// verify looks for a finished file, for so long if it is not there. It fails if the name is taken by something else.
func (b *bucket) verify(ctx context.Context, f file, patience time.Duration) (bool, error) {
	for deadline := time.Now().Add(patience); ; {
		head, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &f.Name})
		switch {
		case err == nil && (head.Metadata[tokenKey] != f.Token || aws.ToInt64(head.ContentLength) != f.Bytes):
			return false, foreign(f.Name, b.url())
		case !isMissing(err):
			return err == nil, b.explain(err)
		case time.Now().After(deadline):
			return false, nil
		}
		if err := retry.Sleep(ctx, settling/20); err != nil {
			return false, err
		}
	}
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
	uploads, err := b.sweepUploads(ctx, prefix, abandoned)
	if err != nil {
		return uploads, err
	}
	objects, err := b.sweepStaged(ctx, prefix, abandoned)
	return uploads + objects, err
}

func (b *bucket) sweepUploads(ctx context.Context, prefix string, abandoned func(name, draft string) bool) (int, error) {
	uploads, err := b.uploads(ctx, prefix)
	if err == nil && len(uploads) == 0 && prefix != "" && !b.cfg.isAWS() {
		// MinIO knows uploads by their whole names, or all of a bucket.
		uploads, err = b.uploads(ctx, "")
	}
	if err != nil {
		return 0, b.explain(err)
	}
	count := 0
	for _, u := range uploads {
		key, id := aws.ToString(u.Key), aws.ToString(u.UploadId)
		name, staged := b.unstaged(key)
		if !staged {
			name = key
		}
		if !strings.HasPrefix(name, prefix) || !abandoned(name, id) {
			continue
		}
		if err := b.abort(ctx, key, id); err != nil && !isCode(err, "NoSuchUpload") {
			return count, b.explain(err)
		}
		count++
	}
	return count, nil
}

// uploads lists the uploads that are neither completed nor aborted.
func (b *bucket) uploads(ctx context.Context, prefix string) (found []types.MultipartUpload, err error) {
	pages := s3.NewListMultipartUploadsPaginator(b.client, &s3.ListMultipartUploadsInput{Bucket: &b.name, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err //nolint:wrapcheck // its code is looked at
		}
		found = append(found, page.Uploads...)
	}
	return found, nil
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
	quick.client = s3.New(b.client.Options(), func(o *s3.Options) { o.Retryer = awsretry.AddWithMaxAttempts(o.Retryer, 2) })
	b = &quick
	name := b.below() + ".sluice-check-" + strings.ToLower(rand.Text())
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
	return b.explain(u.remove(ctx))
}

// below is the folder of all names: the prefix, as far as it is the same at all times. No more may be allowed.
func (b *bucket) below() string {
	prefix := literalPart(strings.Trim(b.cfg.Prefix, "/") + "/")
	return strings.TrimPrefix(prefix[:strings.LastIndexByte(prefix, '/')+1], "/")
}

// look reports whether there is an object of that name, and how the store calls itself.
func (b *bucket) look(ctx context.Context, name string) (taken bool, product string, err error) {
	_, err = b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.name, Key: &name})
	if err == nil {
		return true, "", nil
	}
	if !isMissing(err) {
		return false, "", b.explain(err)
	}
	response, _ := errors.AsType[*awshttp.ResponseError](err)
	return false, response.Response.Header.Get("Server"), nil
}

// begin starts a multipart upload.
func (b *bucket) begin(ctx context.Context, name, token string) (string, error) {
	a := b.cfg.Advanced
	in := &s3.CreateMultipartUploadInput{
		Bucket: &b.name, Key: &name, ContentType: aws.String("application/vnd.apache.parquet"),
		Metadata:             map[string]string{tokenKey: token},
		ServerSideEncryption: types.ServerSideEncryption(a.ServerSideEncryption), SSEKMSKeyId: a.kmsKey(), StorageClass: types.StorageClass(a.StorageClass),
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
