package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/runtime/specs"
	"github.com/sluicedata/sluice/sdk/jsonscan"
)

const collections = "sluice/conformance" // a prefix of collections' names

// discover asks what there is, and looks at each binding.
func (s *suite) discover(ctx context.Context) error {
	found, err := s.capture(0).Discover(ctx)
	if err != nil {
		return err
	}
	text, err := frame.JSON.AppendBody(nil, found)
	if err != nil {
		return err
	}
	s.watch.look("the answer to Discover", text)
	if len(found.Bindings) == 0 {
		return errors.New("nothing is discovered: name a system that has something to capture")
	}
	resources, err := compile(s.spec.ResourceConfigSchemaJson)
	if err != nil {
		return fmt.Errorf("the schema of the resource: %w", err)
	}
	names := map[string]bool{}
	for _, b := range found.Bindings {
		switch {
		case b.RecommendedName == "" || names[b.RecommendedName]:
			return fmt.Errorf("the name %q is empty, or there twice", b.RecommendedName)
		case len(b.Key) == 0 && !b.Disable:
			return fmt.Errorf("%s has no key, and is not disabled", b.RecommendedName)
		}
		names[b.RecommendedName] = true
		if err := fits(resources, b.ResourceConfigJson); err != nil {
			return fmt.Errorf("the resource of %s: %w", b.RecommendedName, err)
		}
		if _, err := compile(b.DocumentSchemaJson); err != nil {
			return fmt.Errorf("the document schema of %s: %w", b.RecommendedName, err)
		}
		if err := requires(object(b.DocumentSchemaJson), b.Key); err != nil {
			return fmt.Errorf("%s: %w", b.RecommendedName, err)
		}
	}
	s.found = found
	s.bindings, err = host.Bindings(collections, found)
	return err
}

// requires wants the locations of a key to be in every document.
func requires(schema map[string]any, key []string) error {
	for _, pointer := range key {
		at := schema
		for _, name := range jsonscan.SplitPointer(pointer) {
			required, _ := at["required"].([]any)
			if !slices.Contains(required, any(name)) {
				return fmt.Errorf("its schema does not require %s, which is in its key", pointer)
			}
			members, _ := at["properties"].(map[string]any)
			at, _ = members[name].(map[string]any)
			if at == nil {
				return fmt.Errorf("its schema has no %s, which is in its key", pointer)
			}
		}
	}
	return nil
}

// validateCapture has all that was discovered validated, and compares the paths.
func (s *suite) validateCapture(ctx context.Context) error {
	if s.found == nil {
		return skipped("needs discover")
	}
	task, err := s.capture(1).Specify(ctx, &capturepb.Request_Validate{Bindings: s.bindings})
	if err != nil {
		return err
	}
	paths := map[string]bool{}
	for i, b := range task.Bindings {
		path := strings.Join(b.ResourcePath, "/")
		switch {
		case len(b.ResourcePath) == 0 || slices.Contains(b.ResourcePath, ""):
			return fmt.Errorf("binding %d has the resource path %q", i, b.ResourcePath)
		case paths[path]:
			return fmt.Errorf("two bindings have the resource path %q", b.ResourcePath)
		}
		paths[path] = true
		want := specs.ResourcePath(b.ResourceConfigJson, s.spec.ResourcePathPointers)
		if !slices.Equal(b.ResourcePath, want) {
			return fmt.Errorf("binding %d is validated as %q, and its resource says %q", i, b.ResourcePath, want)
		}
	}
	s.task = task
	return nil
}

func (s *suite) applyCapture(ctx context.Context) error {
	if s.task == nil {
		return skipped("needs validate")
	}
	for i := range 2 {
		request := &capturepb.Request_Apply{Capture: s.task, StateJson: []byte("{}")}
		if _, err := s.capture(i).Apply(ctx, request, nil); err != nil {
			return err
		}
	}
	return nil
}

// documents reads once all that there is, without acknowledging anything, and looks at each document.
func (s *suite) documents(ctx context.Context) error {
	if s.task == nil {
		return skipped("needs validate")
	}
	l, err := s.open(ctx, 0, nil)
	if err != nil {
		return err
	}
	exit := l.read(ctx, l.enough)
	s.whole = &l.reading
	s.whole.exit = exit
	switch {
	case l.invalid != nil:
		return l.invalid
	case len(l.docs) == 0 && exit != nil:
		return exit
	case len(l.docs) == 0:
		return errors.New("nothing was captured: name a system that has something to capture")
	case len(l.points) == 0:
		return errors.New("there was no checkpoint")
	case exit != nil:
		return nil //nolint:nilerr // the rule stop has it
	}
	return s.rest(ctx)
}

// enough bounds a reading.
func (l *life) enough() bool { return len(l.docs) >= l.s.opts.Documents }

// rest looks whether the silence that ended the reading was the end: opened again, the capture has nothing more to give.
func (s *suite) rest(ctx context.Context) error {
	for len(s.whole.docs) < s.opts.Documents {
		l, err := s.open(ctx, 0, s.whole.points[len(s.whole.points)-1].state)
		if err != nil {
			return err
		}
		l.rest, l.docs = true, slices.Clone(s.whole.docs)
		if exit := l.read(ctx, l.enough); exit != nil {
			return fmt.Errorf("opened again at its last checkpoint: %w", exit)
		}
		if l.invalid != nil {
			return l.invalid
		}
		if maps.Equal(final(s.whole.docs), final(l.docs)) {
			s.whole.complete = true
			return nil
		}
		s.whole.docs, s.whole.points = l.docs, append(s.whole.points, l.points...)
	}
	return nil
}

func (s *suite) read() error {
	if s.whole == nil || len(s.whole.points) == 0 {
		return skipped("needs documents")
	}
	return nil
}

func (s *suite) stop(context.Context) error {
	if s.whole == nil {
		return skipped("needs documents")
	}
	return s.whole.exit
}

func (s *suite) state(context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	if s.whole.badState != nil {
		return s.whole.badState
	}
	for i, p := range s.whole.points {
		s.watch.look("a state", p.state)
		if jsonscan.Kind(p.state) != '{' {
			return fmt.Errorf("the state after checkpoint %d is no object: %.60q", i+1, p.state)
		}
	}
	return nil
}

// resume opens the capture at the states of some checkpoints. Nothing is acknowledged: a source may have forgotten what lies before that, and the
// next state with it.
func (s *suite) resume(ctx context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	const most = 4
	points := s.whole.points
	for n := range min(most, len(points)) {
		at := points[n*(len(points)-1)/max(1, min(most, len(points))-1)]
		l, err := s.open(ctx, n+1, at.state)
		if err != nil {
			return err
		}
		l.reading.docs = slices.Clone(s.whole.docs[:at.docs])
		exit := l.readWhole(ctx)
		if missing := s.whole.missing(&l.reading); missing != "" {
			return fmt.Errorf("resumed behind %d of %d documents: %s", at.docs, len(s.whole.docs), missing)
		}
		if exit != nil {
			return exit
		}
		if again := again(s.whole.docs, l.docs, at.docs); again != "" && s.resumed == nil {
			s.resumed = fmt.Errorf("resumed behind %d documents, one of these came again: %s", at.docs, again)
		}
	}
	return nil
}

func (s *suite) resumeOnce(context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	return s.resumed
}

// readWhole reads until there is all that one reading gave.
func (l *life) readWhole(ctx context.Context) error {
	l.want = l.s.whole
	return l.read(ctx, func() bool { return !l.lacks() })
}

// killed lives several short lives, each of which begins where the last one was committed.
func (s *suite) killed(ctx context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	var kept reading
	var state []byte
	for i, step := range []string{"Open", "Opened", "document", "checkpoint", "acknowledge", ""} {
		if step == "Open" {
			if err := s.dieOpening(ctx, i); err != nil {
				return err
			}
			continue
		}
		l, err := s.open(ctx, i, state)
		if err != nil {
			return fmt.Errorf("opened again after a kill: %w", err)
		}
		l.reading.docs = slices.Clone(kept.docs)
		if step == "Opened" {
			_ = l.session.Close() // killed, as it should
			continue
		}
		if step == "" {
			exit := l.readWhole(ctx)
			if missing := s.whole.missing(&l.reading); missing != "" {
				return errors.New(missing)
			}
			return exit
		}
		l.dieAt(step)
		if len(l.points) > 0 {
			last := l.points[len(l.points)-1]
			state, kept.docs = last.state, l.docs[:last.docs]
		}
	}
	return nil
}

// acknowledgements acknowledges every second checkpoint, two at once.
func (s *suite) acknowledgements(ctx context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	l, err := s.open(ctx, 1, nil)
	if err != nil {
		return err
	}
	l.acks, l.want = 2, s.whole
	// Until it is silent: it shall read the last acknowledgement, too.
	exit := l.read(ctx, func() bool { return false })
	if missing := s.whole.missing(&l.reading); missing != "" {
		return errors.New(missing)
	}
	return exit
}

func (s *suite) tooManyAcks(ctx context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	l, err := s.open(ctx, 0, nil)
	if err != nil {
		return err
	}
	if !l.session.WantsAcknowledgements() {
		_ = l.session.Close()
		return skipped("it wants no acknowledgements")
	}
	exit := l.read(ctx, func() bool {
		if len(l.points) == 1 && !l.overdone {
			l.overdone = true
			l.session.Acknowledge(1 << 20)
		}
		return false
	})
	if exit == nil {
		return errors.New("a million checkpoints were acknowledged that were never sent, and it went on")
	}
	return s.explained("acknowledging too much", exit)
}

// slowReader stops reading behind the first checkpoint for a while.
func (s *suite) slowReader(ctx context.Context) error {
	if err := s.read(); err != nil {
		return err
	}
	l, err := s.open(ctx, 0, nil)
	if err != nil {
		return err
	}
	l.acks, l.want = 1, s.whole
	var grown int64
	exit := l.read(ctx, func() bool {
		if len(l.points) == 1 && !l.overdone {
			l.overdone = true
			grown = s.unread(ctx, l.session.Process())
		}
		return !l.lacks()
	})
	if missing := s.whole.missing(&l.reading); missing != "" {
		return errors.New(missing)
	}
	if grown > s.opts.Memory/4 {
		return fmt.Errorf("%d MiB more were resident after nobody had read for %s", grown>>20, s.opts.Quiet)
	}
	return exit
}

// unread waits while nobody reads, and says by how many bytes the process has grown; 0 where that cannot be seen.
func (s *suite) unread(ctx context.Context, p *host.Process) int64 {
	before := peakMemory(p.Pid())
	pause(ctx, s.opts.Quiet)
	s.watch.sample(p)
	return peakMemory(p.Pid()) - before
}
