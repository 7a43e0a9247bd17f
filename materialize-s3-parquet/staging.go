package main

import (
	"context"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// How a file waits for its commit (advanced.staging).
const (
	stagedUploads = "uploads" // as a multipart upload, which is completed
	stagedObjects = "objects" // as an object under another name, which is copied
)

// stagingFolder is where staged objects are, below the prefix. Their names do not end like those
// of files, for readers that look everywhere.
const stagingFolder = ".sluice-staged/"

// maxStaged is the largest fileSizeLimit of files that are copied: stores copy 5 GiB by one request
// (https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html), and a file may be a little larger than its limit.
const maxStaged = 4 << 30

// stagesObjects says how files wait at a store that calls itself so. MinIO deletes what it knows of an upload's parts before it has
// the object: if whoever asks for that is killed just then, or MinIO is, neither the upload nor the object is there any more
// (cmd/erasure-multipart.go, CompleteMultipartUpload; as of 2026-02). It also removes uploads after a day.
func (b *bucket) stagesObjects(product string) bool {
	if b.cfg.Advanced.Staging != "" {
		return b.cfg.Advanced.Staging == stagedObjects
	}
	return strings.HasPrefix(product, "MinIO") && b.cfg.FileSizeLimit <= maxStaged
}

// isObject says that a sealed file waits as an object, whose name is its draft.
func (f file) isObject() bool { return len(f.Parts) == 0 }

// stagedBelow is the folder of staged objects.
func (b *bucket) stagedBelow() string { return b.below() + stagingFolder }

// stagedName is the object that a file waits as.
func (b *bucket) stagedName(name, token string) string { return b.stagedBelow() + name + "." + token }

// unstaged is the file that waits as an object of that name.
func (b *bucket) unstaged(object string) (name string, ok bool) {
	name, ok = strings.CutPrefix(object, b.stagedBelow())
	return name[:max(0, strings.LastIndexByte(name, '.'))], ok
}

// copy makes a file of a staged object. Whatever the store answers, what counts is what can be read afterwards.
func (b *bucket) copy(ctx context.Context, f file) error {
	a := b.cfg.Advanced
	in := &s3.CopyObjectInput{
		Bucket: &b.name, Key: &f.Name, CopySource: aws.String(copySource(b.name + "/" + f.Draft)),
		ServerSideEncryption: types.ServerSideEncryption(a.ServerSideEncryption), SSEKMSKeyId: a.kmsKey(), StorageClass: types.StorageClass(a.StorageClass),
	}
	_, copying := b.client.CopyObject(ctx, in)
	there, err := b.verify(ctx, f, 0)
	switch {
	case there || err != nil:
		return err
	case copying == nil:
		return usererr.New(nil, "%s says that %s is complete, but does not give it back. It will be tried again.", b.url(), f.Name)
	case isCode(copying, "NoSuchKey"):
		return &goneError{f}
	}
	return b.explain(copying)
}

// copySource is a name as the header of that name has it. Some stores take a plus for a space there, and some a slash only as such.
func copySource(name string) string {
	return strings.NewReplacer("%2F", "/", "+", "%2B").Replace(url.PathEscape(name))
}

// sweepStaged is sweep for staged objects.
func (b *bucket) sweepStaged(ctx context.Context, prefix string, abandoned func(name, draft string) bool) (int, error) {
	count := 0
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: aws.String(b.stagedBelow())})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return count, b.explain(err)
		}
		for _, o := range page.Contents {
			draft := aws.ToString(o.Key)
			name, _ := b.unstaged(draft)
			if !strings.HasPrefix(name, prefix) || !abandoned(name, draft) {
				continue
			}
			if err := b.remove(ctx, draft); err != nil {
				return count, b.explain(err)
			}
			count++
		}
	}
	return count, nil
}

// remove deletes an object, if it is there.
func (b *bucket) remove(ctx context.Context, name string) error {
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.name, Key: &name})
	if isCode(err, "NoSuchKey") {
		return nil
	}
	return err
}
