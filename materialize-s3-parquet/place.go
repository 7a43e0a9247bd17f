package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// place is where files go: a bucket or a folder. Names are slash-separated paths below it. Its methods may be called from
// several goroutines.
type place interface {
	// create begins a file that nobody sees before finish. It fails if there is a file of that name.
	create(ctx context.Context, name string) (draft, error)
	// finish makes a sealed file visible. It does nothing if that was done before, and fails with a *goneError if the file
	// cannot be made visible any more.
	finish(ctx context.Context, f file) error
	// sweep removes drafts below a prefix that are abandoned, and says how many there were.
	sweep(ctx context.Context, prefix string, abandoned func(name, draft string) bool) (int, error)
	// find returns the name of a Parquet file in a folder or below, empty if there is none.
	find(ctx context.Context, folder string) (string, error)
	// probe proves that files can be written and looked up, and leaves nothing behind.
	probe(ctx context.Context) error
	// url names the place in states and messages.
	url() string
}

// draft is a file that is being written. It is for one goroutine.
type draft interface {
	write(ctx context.Context, p []byte) error
	// seal ends the file: what was written is durable and can be finished, by this session or a later one.
	seal(ctx context.Context) (file, error)
	// discard removes what was written, sealed or not.
	discard()
}

// file is a sealed file, as it stands in the state between the runtime's commit and the moment at which it is visible. It
// says everything that is needed to finish it, whatever the configuration is by then.
type file struct {
	Place string `json:"place"`
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	Rows  int64  `json:"rows"`
	// Path and Backfill are the binding's.
	Path     string `json:"path"`
	Backfill uint32 `json:"backfill"`
	// Draft identifies what was written: the multipart upload, or the name of the hidden file or object.
	Draft string `json:"draft"`
	// Token is random, and part of the finished object's metadata. Buckets only.
	Token string `json:"token,omitempty"`
	// Parts are the entity tags of the upload's parts, in order. Multipart uploads only.
	Parts []string `json:"parts,omitempty"`
	// Sum is the CRC-32C of the content. Folders only.
	Sum uint32 `json:"sum,omitempty"`
}

// goneError says that a sealed file can never become visible.
type goneError struct{ file file }

func (e *goneError) Error() string {
	return fmt.Sprintf("what was written for %s is gone", e.file.Name)
}

// lost explains a goneError to people.
func lost(f file, cause error) error {
	return usererr.New(cause, "The file %s of %s was written and committed, but before it could be completed somebody removed what was uploaded of it, perhaps a rule that cleans up incomplete uploads or temporary files. Its %d rows are missing. If bucket or endpoint were changed meanwhile, change them back; otherwise increase the backfill counter of the binding with path %q, which writes the table anew.",
		f.Name, f.Place, f.Rows, f.Path)
}

// foreign says that a name is taken.
func foreign(name, at string) error {
	return usererr.New(nil, "There is a file %s in %s already, which this materialization has not written, or not in the life that its runtime remembers. Was the runtime's data removed or restored from a backup? Choose another path or prefix, increase the backfill counter, or move the files away.", name, at)
}

// openPlace is the place that the configuration names.
func openPlace(ctx context.Context, cfg config) (place, error) {
	if folder, ok := cfg.folder(); ok {
		return newFolder(folder), nil
	}
	return newBucket(ctx, cfg, cfg.Bucket)
}

// placeOf is the place that a file in the state names: the session's own, or, if the configuration was changed meanwhile,
// the one of then. Another bucket is reached with the present endpoint and credentials.
func placeOf(ctx context.Context, cfg config, own place, name string) (place, error) {
	if name == own.url() {
		return own, nil
	}
	u, err := url.Parse(name)
	switch {
	case err == nil && u.Scheme == "file":
		return newFolder(filepath.FromSlash(u.Path)), nil
	case err == nil && u.Scheme == "s3":
		return newBucket(ctx, cfg, u.Host)
	}
	return nil, fmt.Errorf("reading the state: %q is no place for files", name)
}
