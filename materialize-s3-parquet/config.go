package main

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// config is how users describe the endpoint.
type config struct {
	Bucket         string          `json:"bucket" title:"Bucket" desc:"Bucket that your files go to, or file:///folder for a folder of this machine." order:"0"`
	Region         string          `json:"region,omitempty" title:"Region" desc:"Region of the bucket, such as eu-central-1. Stores other than AWS often want us-east-1 or auto." default:"us-east-1" order:"1"`
	Endpoint       string          `json:"endpoint,omitempty" title:"Endpoint" desc:"URL of the object store, if it is not AWS: https://minio.example.org:9000." order:"2"`
	Prefix         string          `json:"prefix,omitempty" title:"Prefix" desc:"What all names begin with. %Y, %m, %d, %H, %M and %S stand for the time of the transaction, in UTC." order:"3"`
	Credentials    credentials     `json:"credentials,omitzero" title:"Credentials" desc:"Who you are to the object store. If left out: what the AWS tools would find on this machine." order:"4"`
	UploadInterval schema.Duration `json:"uploadInterval" title:"Upload Interval" desc:"How long you let documents gather before new files appear, such as 30s, 5m or 1h. 0s asks for files as soon as possible." default:"5m" order:"5"`
	FileSizeLimit  int64           `json:"fileSizeLimit" title:"File Size Limit" desc:"Size in bytes at which you want a file to end and the next one to begin." default:"268435456" order:"6"`
	Compression    string          `json:"compression" title:"Compression" desc:"How you want values to be compressed." default:"zstd" enum:"zstd,snappy,gzip,none" order:"7"`
	Advanced       advanced        `json:"advanced" title:"Advanced" desc:"Settings that most buckets never need." advanced:"true" order:"8"`
}

// credentials are who the connector is to the object store.
type credentials struct {
	AccessKeyID     string        `json:"accessKeyId,omitempty" title:"Access Key ID" desc:"Access key that you log in with."`
	SecretAccessKey schema.Secret `json:"secretAccessKey,omitzero" title:"Secret Access Key" desc:"The secret that belongs to the access key." secret:"true"`
	SessionToken    schema.Secret `json:"sessionToken,omitzero" title:"Session Token" desc:"The token of temporary credentials." secret:"true"`
	RoleARN         string        `json:"roleArn,omitempty" title:"Role" desc:"ARN of a role that you want to be assumed, with the access key or with what is found on this machine."`
	ExternalID      string        `json:"externalId,omitempty" title:"External ID" desc:"What the role's trust policy asks for as sts:ExternalId."`
}

// advanced are settings with good defaults.
type advanced struct {
	PathStyle            bool            `json:"pathStyle,omitempty" title:"Path Style" desc:"Put the bucket into the path of URLs instead of the host name. An endpoint that is an address or localhost is always asked this way."`
	ServerSideEncryption string          `json:"serverSideEncryption,omitempty" title:"Server-Side Encryption" desc:"How you want the store to encrypt files, if not as the bucket says." enum:"AES256,aws:kms"`
	KMSKeyID             string          `json:"kmsKeyId,omitempty" title:"KMS Key" desc:"Key of aws:kms, if it is not the account's default one."`
	StorageClass         string          `json:"storageClass,omitempty" title:"Storage Class" desc:"Storage class of the files, such as STANDARD_IA or INTELLIGENT_TIERING."`
	Staging              string          `json:"staging,omitempty" title:"Staging" desc:"How you want a file to wait for its commit: as an upload that is completed (uploads), or as a hidden object that is copied (objects). If it is not set, as an object at MinIO, which may lose an upload that it completes, and as an upload elsewhere." enum:"uploads,objects"`
	RowGroupRows         int             `json:"rowGroupRows" title:"Row Group Rows" desc:"Rows that you want in a row group at most." default:"1000000"`
	RowGroupBytes        int64           `json:"rowGroupBytes" title:"Row Group Bytes" desc:"Size in bytes, before compression, that you want a row group to have at most. It bounds the memory that is needed." default:"67108864"`
	BloomFilters         bool            `json:"bloomFilters,omitempty" title:"Bloom Filters" desc:"Write Bloom filters of the key, for readers that look for single rows."`
	OpenPartitions       int             `json:"openPartitions" title:"Open Partitions" desc:"Files that you let be written at the same time. When rows of more partitions come mixed, files end early." default:"64"`
	StoreDocument        bool            `json:"storeDocument,omitempty" title:"Store Documents" desc:"Also keep every whole document, in a column of its own."`
	RequestTimeout       schema.Duration `json:"requestTimeout" title:"Request Timeout" desc:"How long you let one request to the object store take before it is given up and made again." default:"2m"`
}

// kmsKey is the key as requests have it: nil for the account's.
func (a advanced) kmsKey() *string {
	if a.KMSKeyID == "" {
		return nil
	}
	return &a.KMSKeyID
}

// resource is how users describe one table.
type resource struct {
	Path        string   `json:"path" title:"Path" desc:"Folder of the table's files, below the prefix." x-collection-name:"true"`
	PartitionBy []string `json:"partitionBy,omitempty" title:"Partition By" desc:"Fields whose values become folders (region gives region=north/), or names with a time pattern for the time of the transaction (day=%Y-%m-%d)."`
}

const (
	minFileSize  = 64 << 10
	maxFileSize  = 64 << 30
	maxInterval  = schema.Duration(24 * time.Hour)
	maxPath      = 512
	maxPartition = 8
	folderScheme = "file://"
)

var bucketName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

// Validate reports every problem at once.
func (c config) Validate() error {
	var problems []error
	complain := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, usererr.New(nil, format, args...))
		}
	}
	folder, isFolder := c.folder()
	switch {
	case c.Bucket == "":
		complain(true, "bucket is required.")
	case isFolder:
		complain(!filepath.IsAbs(folder), "bucket %q is no absolute folder; write file:///folder, with three slashes.", c.Bucket)
	case strings.Contains(c.Bucket, "://"):
		complain(true, "bucket %q is the name of a bucket or file:///folder; other stores' URLs go to endpoint.", c.Bucket)
	default:
		complain(!bucketName.MatchString(c.Bucket), "bucket %q is no name of a bucket: letters, digits, dots, dashes and underscores only.", c.Bucket)
	}
	complain(!isFolder && c.Region == "", "region is required.")
	if _, err := c.endpoint(); err != nil {
		problems = append(problems, err)
	}
	problems = append(problems, checkPrefix(c.Prefix), c.Credentials.validate())
	complain(c.UploadInterval > maxInterval, "uploadInterval is longer than a day.")
	complain(c.FileSizeLimit < minFileSize || c.FileSizeLimit > maxFileSize, "fileSizeLimit %d is not between 65536 (64 KiB) and 68719476736 (64 GiB).", c.FileSizeLimit)
	a := c.Advanced
	complain(a.KMSKeyID != "" && a.ServerSideEncryption != "aws:kms", "advanced.kmsKeyId is set, but advanced.serverSideEncryption is not aws:kms.")
	complain(a.Staging == stagedObjects && c.FileSizeLimit > maxStaged, "fileSizeLimit %d is more than 4294967296 (4 GiB): stores copy no larger files. Lower it, or set advanced.staging to uploads.", c.FileSizeLimit)
	complain(a.RowGroupRows < 1, "advanced.rowGroupRows %d is not at least 1.", a.RowGroupRows)
	complain(a.RowGroupBytes < minFileSize, "advanced.rowGroupBytes %d is not at least 65536 (64 KiB).", a.RowGroupBytes)
	complain(a.OpenPartitions < 1 || a.OpenPartitions > 4096, "advanced.openPartitions %d is not between 1 and 4096.", a.OpenPartitions)
	complain(a.RequestTimeout < schema.Duration(time.Second), "advanced.requestTimeout is shorter than a second.")
	return usererr.Join("The endpoint configuration has problems:", problems)
}

func (c credentials) validate() error {
	switch {
	case (c.AccessKeyID == "") != c.SecretAccessKey.IsZero():
		return usererr.New(nil, "credentials.accessKeyId and credentials.secretAccessKey belong together; one of them is missing.")
	case c.AccessKeyID == "" && !c.SessionToken.IsZero():
		return usererr.New(nil, "credentials.sessionToken needs accessKeyId and secretAccessKey.")
	case c.RoleARN == "" && c.ExternalID != "":
		return usererr.New(nil, "credentials.externalId needs roleArn.")
	case c.RoleARN != "" && !strings.HasPrefix(c.RoleARN, "arn:"):
		return usererr.New(nil, "credentials.roleArn %q is no ARN, such as arn:aws:iam::123456789012:role/sluice.", c.RoleARN)
	}
	return nil
}

// folder is the folder that stands in for a bucket.
func (c config) folder() (string, bool) {
	path, ok := strings.CutPrefix(c.Bucket, folderScheme)
	return filepath.FromSlash(path), ok
}

// isAWS says whether the store is Amazon's own.
func (c config) isAWS() bool {
	endpoint, err := c.endpoint()
	return err == nil && (endpoint == nil || strings.HasSuffix(endpoint.Hostname(), ".amazonaws.com"))
}

// endpoint is the object store's URL, nil for AWS.
func (c config) endpoint() (*url.URL, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, usererr.New(nil, "endpoint %q is no URL, such as https://minio.example.org:9000.", redactURL(c.Endpoint))
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, usererr.New(nil, "endpoint %q has more than scheme, host, port and path. Names and passwords go to credentials.", u.Scheme+"://"+u.Host+u.Path)
	}
	return u, nil
}

// redactURL leaves out what stands before an @, which may be a password.
func redactURL(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if at := strings.LastIndex(rest, "@"); ok && at >= 0 {
		return scheme + "://…" + rest[at:]
	}
	return text
}

// pathStyle says whether the bucket stands in the path of URLs.
func (c config) pathStyle() bool {
	u, err := c.endpoint()
	if err != nil || u == nil {
		return c.Advanced.PathStyle
	}
	_, notAddress := netip.ParseAddr(u.Hostname())
	return c.Advanced.PathStyle || notAddress == nil || u.Hostname() == "localhost" || net.ParseIP(u.Hostname()) != nil ||
		!strings.Contains(u.Hostname(), ".")
}

// Validate reports every problem at once.
func (r resource) Validate() error {
	var problems []error
	if r.Path == "" {
		problems = append(problems, usererr.New(nil, "path is required."))
	} else {
		problems = append(problems, checkPath("path", r.Path))
	}
	if len(r.PartitionBy) > maxPartition {
		problems = append(problems, usererr.New(nil, "partitionBy has %d entries; 8 are the most.", len(r.PartitionBy)))
	}
	seen := map[string]bool{}
	for _, text := range r.PartitionBy {
		p := parsePartition(text)
		switch {
		case text == "":
			problems = append(problems, usererr.New(nil, "partitionBy has an empty entry."))
		case seen[p.name]:
			problems = append(problems, usererr.New(nil, "partitionBy names %q twice.", p.name))
		case p.pattern != "":
			problems = append(problems, checkPattern("partitionBy", p.pattern))
		}
		seen[p.name] = true
	}
	return usererr.Join("The resource has problems:", problems)
}

// checkPrefix says what is wrong with a prefix: it is a path, perhaps with time patterns.
func checkPrefix(prefix string) error {
	trimmed := strings.Trim(prefix, "/")
	if trimmed == "" {
		return nil
	}
	if err := checkPath("prefix", trimmed); err != nil {
		return err
	}
	return checkPattern("prefix", trimmed)
}

// checkPath says what is wrong with a part of object names. Every store and file system takes what passes.
func checkPath(field, path string) error {
	switch {
	case len(path) > maxPath:
		return usererr.New(nil, "%s has %d bytes; 512 are the most.", field, len(path))
	case !utf8.ValidString(path):
		return usererr.New(nil, "%s %q is not valid UTF-8.", field, path)
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return usererr.New(nil, "%s %q has control characters.", field, path)
	}
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case segment == "":
			return usererr.New(nil, "%s %q has an empty part: take out the slash at an end, or one of two in a row.", field, path)
		case segment == "." || segment == "..":
			return usererr.New(nil, "%s %q has a part that is %q, which file systems take for a folder.", field, path, segment)
		case strings.HasPrefix(segment, ".") || strings.HasPrefix(segment, "_"):
			return usererr.New(nil, "%s %q has a part that begins with a dot or an underscore; readers of Parquet folders leave such names out.", field, path)
		}
	}
	return nil
}
