package main

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// explainStore turns an error of the object store's client into words for people. The names of errors are S3's; other
// stores use the same.
func explainStore(err error, cfg config, bucket string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, said := errors.AsType[*goneError](err); said {
		return err
	}
	at := cfg.Endpoint
	if at == "" {
		at = "AWS"
	}
	operation := "a request"
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		operation = op.Operation()
		if said := explainRole(op, err, cfg); said != nil {
			return said
		}
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		if said := explainCode(api, err, cfg, bucket, at, operation); said != nil {
			return said
		}
	}
	if response, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		switch response.HTTPStatusCode() {
		case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
			return usererr.New(err, "Bucket %q is not in region %q, or not at this endpoint. Set region to the bucket's own.", bucket, cfg.Region)
		case http.StatusForbidden:
			return usererr.New(err, "%s refuses %s in bucket %q. Grant the permissions that the connector's page lists, and look at the bucket's policy.", at, operation, bucket)
		case http.StatusNotFound:
			return usererr.New(err, "There is no bucket %q at %s, or it may not be seen. Create it, or correct the configuration.", bucket, at)
		}
	}
	return explainConnection(err, cfg, at, operation)
}

// explainRole explains that credentials.roleArn cannot be assumed, which is a request of its own within the one that needed the
// credentials; nil if that went well, or if nobody answered.
func explainRole(op *smithy.OperationError, err error, cfg config) error {
	inner, ok := errors.AsType[*smithy.OperationError](op.Err)
	if !ok || inner.Operation() != "AssumeRole" {
		return nil
	}
	api, ok := errors.AsType[smithy.APIError](inner)
	if !ok {
		return nil
	}
	return usererr.New(err, "The role %s cannot be assumed: %s. Check credentials.roleArn and credentials.externalId, that the role's trust policy names who assumes it, and that those credentials are good and may do sts:AssumeRole.",
		cfg.Credentials.RoleARN, api.ErrorCode())
}

// explainCode explains the answers that have a name; nil for others.
func explainCode(api smithy.APIError, err error, cfg config, bucket, at, operation string) error {
	switch api.ErrorCode() {
	case "NoSuchBucket":
		return usererr.New(err, "There is no bucket %q at %s. Create it, or correct the configuration.", bucket, at)
	case "AccessDenied", "Forbidden", "AllAccessDisabled", "UnauthorizedAccess":
		return usererr.New(err, "%s refuses %s in bucket %q. Grant the permissions that the connector's page lists, and look at the bucket's policy.", at, operation, bucket)
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "MovedPermanently":
		return usererr.New(err, "Bucket %q is not in region %q, or not at this endpoint. Set region to the bucket's own.", bucket, cfg.Region)
	case "RequestTimeTooSkewed", "RequestExpired":
		return usererr.New(err, "The clock of this machine is too far from that of %s. Set it right, with NTP for instance.", at)
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken":
		return usererr.New(err, "The credentials for %s have expired. Configure new ones, or ones that renew themselves: a role or the machine's own.", at)
	case "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "XAdminUserNotFound":
		return usererr.New(err, "%s does not know the access key. Check credentials.accessKeyId, and that the endpoint is the right one.", at)
	case "SignatureDoesNotMatch":
		return usererr.New(err, "%s does not accept the secret access key. Check credentials.secretAccessKey.", at)
	case "InvalidStorageClass":
		return usererr.New(err, "%s has no storage class %q. Correct advanced.storageClass.", at, cfg.Advanced.StorageClass)
	case "KMS.NotFoundException", "KMS.DisabledException", "KMS.KMSInvalidStateException", "KMSNotConfigured", "InvalidEncryptionAlgorithmError":
		return usererr.New(err, "%s cannot encrypt as advanced.serverSideEncryption asks: %s.", at, api.ErrorMessage())
	case "XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity", "StorageFull", "InsufficientStorage":
		return usererr.New(err, "%s has no space left for bucket %q. Free or add some; nothing was committed and the transaction will be repeated.", at, bucket)
	case "SlowDown", "RequestLimitExceeded", "TooManyRequests", "ServiceUnavailable", "Throttling":
		return usererr.New(err, "%s asks for fewer requests. It will be tried again; a longer uploadInterval and fewer partitions help.", at)
	case "InternalError":
		return usererr.New(err, "%s reports an internal error in %s, in several attempts. It will be tried again; the store's own log or status page may say more.", at, operation)
	case "NotImplemented":
		return usererr.New(err, "%s does not offer %s, which the connector needs.", at, operation)
	}
	return nil
}

// explainConnection explains what never got an answer.
func explainConnection(err error, cfg config, at, operation string) error {
	var dns *net.DNSError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns):
		return usererr.New(err, "The host %q cannot be found. Check endpoint and region.", dns.Name)
	case errors.As(err, &unknown):
		return usererr.New(err, "The certificate of %s is signed by an authority that is not trusted. Add that authority to the system's.", at)
	case errors.As(err, &name):
		return usererr.New(err, "The certificate of %s is not made for that name. Use a name that it is made for, or advanced.pathStyle if the bucket's name is the reason.", at)
	case errors.Is(err, syscall.ECONNREFUSED):
		return usererr.New(err, "%s does not accept connections. Check the endpoint, and that the store is running.", at)
	case errors.As(err, &timeout) && timeout.Timeout():
		return usererr.New(err, "%s did not finish %s within %s, in several attempts. It may be overloaded or out of reach; see also advanced.requestTimeout.", at, operation, time.Duration(cfg.Advanced.RequestTimeout))
	case isNoCredentials(err):
		return usererr.New(err, "There are no credentials for %s: none are configured, and none are found on this machine. Set credentials.", at)
	}
	if _, sent := errors.AsType[*url.Error](err); sent {
		return usererr.New(err, "%s cannot be reached or broke off the connection, in several attempts. Check endpoint and network.", at)
	}
	return err
}

// explainFolder turns an error of a file system into words for people.
func explainFolder(err error, root string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return usererr.New(err, "The disk of %s is full, or its quota is used up. Free or add space; nothing was committed and the transaction will be repeated.", root)
	case errors.Is(err, fs.ErrPermission):
		return usererr.New(err, "The folder %s cannot be written to. Give the user that the connector runs as the right to read and write there; in a container, mount the folder.", root)
	case errors.Is(err, syscall.EROFS):
		return usererr.New(err, "The folder %s is on a file system that is read-only.", root)
	case errors.Is(err, syscall.ENOTDIR):
		return usererr.New(err, "A part of %s is a file, not a folder.", root)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return usererr.New(err, "A name below %s is longer than its file system allows. Shorten prefix or path, or partition by another field.", root)
	case errors.Is(err, syscall.EIO):
		return usererr.New(err, "The disk of %s reports errors.", root)
	}
	return err
}

// isNoCredentials reports whether the default chain found nothing.
func isNoCredentials(err error) bool {
	signing, ok := errors.AsType[*v4.SigningError](err)
	return ok && signing != nil
}
