package capture_test

import (
	"context"
	"errors"
	"time"

	"github.com/sluicedata/sluice/sdk/capture"
)

// The whole of a source that captures streams of greetings.
type config struct {
	Rate int `json:"rate" title:"Message Rate" desc:"Greetings per second." default:"1"`
}

type resource struct {
	Name string `json:"name" title:"Stream Name" desc:"Name of the stream of greetings." x-collection-name:"true"`
}

type state struct {
	Next int `json:"next"`
}

type greeting struct {
	N  int       `json:"n"`
	At time.Time `json:"at"`
}

type source struct{}

func (c config) Validate() error {
	if c.Rate < 1 {
		return errors.New("rate must be at least 1")
	}
	return nil
}

func (r resource) Validate() error { return nil }

func (source) Spec() capture.Spec {
	return capture.Spec{Title: "Hello", DocsURL: "https://example.com/hello", ResourcePath: []string{"/name"}}
}

func (source) Discover(context.Context, capture.Env, config) ([]capture.Collection[resource], error) {
	return []capture.Collection[resource]{{
		Name: "greetings", Resource: resource{"greetings"}, Key: []string{"/n"}, Schema: capture.SchemaOf[greeting](),
	}}, nil
}

func (source) Open(
	_ context.Context, _ capture.Env, cfg config, bs []*capture.Binding[resource, state],
) (capture.Reader, error) {
	return capture.ReaderFunc(func(ctx context.Context, tx *capture.Tx) error {
		if err := capture.Sleep(ctx, time.Second/time.Duration(cfg.Rate)); err != nil {
			return err
		}
		for _, b := range bs {
			if err := tx.Emit(b, greeting{N: b.State.Next, At: time.Now()}); err != nil {
				return err
			}
			b.State.Next++
		}
		return nil
	}), nil
}

func Example() {
	// In a real source this is the main function:
	_ = func() { capture.Main(capture.New(source{})) }
	// Output:
}
