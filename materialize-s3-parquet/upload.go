package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// partSize is the size of every part of an upload but the last, which may be smaller. Stores want at least 5 MiB, some
	// that all are equal, and 10,000 at most.
	partSize = 8 << 20
	// uploading is how many parts are sent at the same time, by all uploads of a session together.
	uploading = 4
)

// partPool bounds the parts that are being sent, and keeps their buffers for the next ones.
type partPool struct {
	slots chan struct{}
	mu    sync.Mutex
	free  [][]byte
}

func newPartPool() *partPool { return &partPool{slots: make(chan struct{}, uploading)} }

// buffer returns an empty buffer, one that has its size already if there is any.
func (p *partPool) buffer() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b[:0]
	}
	return nil
}

func (p *partPool) giveBack(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cap(b) >= partSize && len(p.free) < uploading {
		p.free = append(p.free, b)
	}
}

// upload is a draft in a bucket. Full parts are sent on goroutines of their own while the next one fills; seal and discard
// join them.
type upload struct {
	bucket *bucket
	name   string
	token  string
	object string // that the multipart upload makes: of this name, or one that waits to be copied
	id     string // of the multipart upload, once it began
	part   []byte // the one that fills
	bytes  int64
	count  int // parts that were handed over

	sending sync.WaitGroup
	mu      sync.Mutex
	tags    []string
	err     error // of the first part that failed
}

func (u *upload) write(ctx context.Context, p []byte) error {
	u.bytes += int64(len(p))
	for len(p) > 0 {
		if u.part == nil {
			u.part = u.bucket.parts.buffer()
		}
		n := min(len(p), partSize-len(u.part))
		u.part = append(u.part, p[:n]...)
		p = p[n:]
		if len(u.part) == partSize {
			if err := u.send(ctx); err != nil {
				return err
			}
		}
	}
	return u.failure()
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// begin begins the multipart upload.
func (u *upload) begin(ctx context.Context) error {
	taken, product, err := u.bucket.look(ctx, u.name)
	if err != nil {
		return err
	}
	if taken {
		return foreign(u.name, u.bucket.url())
	}
	u.object = u.name
	if u.bucket.stagesObjects(product) {
		u.object = u.bucket.stagedName(u.name, u.token)
	}
	u.id, err = u.bucket.begin(ctx, u.object, u.token)
	return err
}

// send hands the part over to a goroutine. It waits while too many are on their way.
func (u *upload) send(ctx context.Context) error {
	if u.id == "" {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	select {
	case u.bucket.parts.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	part := u.part
	u.part = nil
	u.count++
	number := u.count
	u.sending.Go(func() {
		defer func() { <-u.bucket.parts.slots }()
		tag, err := u.bucket.put(ctx, u.object, u.id, number, bytes.NewReader(part))
		u.bucket.parts.giveBack(part)
		u.mu.Lock()
		defer u.mu.Unlock()
		if err != nil && u.err == nil {
			u.err = err
		}
		for len(u.tags) < number {
			u.tags = append(u.tags, "")
		}
		u.tags[number-1] = tag
	})
	return nil
}

func (u *upload) seal(ctx context.Context) (file, error) {
	if len(u.part) > 0 || u.count == 0 {
		if err := u.send(ctx); err != nil {
			return file{}, err
		}
	}
	u.sending.Wait()
	if err := u.failure(); err != nil {
		return file{}, err
	}
	f := file{Place: u.bucket.url(), Name: u.object, Bytes: u.bytes, Draft: u.id, Token: u.token, Parts: u.tags}
	if u.object == u.name {
		return f, nil
	}
	if err := u.bucket.complete(ctx, f); err != nil {
		return file{}, fmt.Errorf("staging %s: %w", u.name, err)
	}
	f.Name, f.Draft, f.Parts = u.name, u.object, nil
	return f, nil
}

// discard removes what was written, if the store lets it. Who comes later finds what is left of it.
func (u *upload) discard() {
	u.sending.Wait()
	if u.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = u.remove(ctx)
}

// remove aborts the upload, and deletes the object that it may have become in order to be copied.
func (u *upload) remove(ctx context.Context) error {
	err := u.bucket.abort(ctx, u.object, u.id)
	if u.object == u.name {
		return err
	}
	return u.bucket.remove(ctx, u.object)
}
