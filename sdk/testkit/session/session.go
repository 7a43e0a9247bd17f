// Package session drives a capture connector over pipes, as a runtime would: in the test's own process ([Start]), or as a
// process of its own, which can be killed ([Command]).
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/sdk/capture"
)

// patience bounds every wait for the connector, on a machine that may have much else to do.
const patience = 2 * time.Minute

// Session is the runtime's end of one process of a connector. It is used by the test's goroutine; Ack may be called from
// another one.
type Session struct {
	t     testing.TB
	codec frame.Codec

	requests  io.WriteCloser
	responses *frame.Reader
	output    output

	cancel func() // tells the connector to stop
	kill   func() // ends it at once
	done   chan struct{}
	err    error // why it ended, once done is closed
}

// output is the end of a pipe that responses are read from. A reading in progress returns the error that it is closed with.
type output interface {
	io.ReadCloser
	CloseWithError(why error) error
}

// Start runs the connector until the test ends. Its log goes to the test's.
func Start(t testing.TB, c capture.Connector, codec frame.Codec) *Session {
	t.Helper()
	in, requests := io.Pipe()
	output, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	s := &Session{
		t: t, codec: codec, requests: requests, output: output,
		responses: frame.NewReader(output, codec, 0), cancel: cancel, done: make(chan struct{}),
	}
	s.kill = func() { s.CloseResponses(); cancel() }
	log := logrus.New()
	log.SetOutput(testLog{t, s.done})
	go func() {
		defer close(s.done)
		s.err = capture.Server{Connector: c, Codec: codec, Log: logrus.NewEntry(log)}.Serve(ctx, in, out)
		_ = out.Close() // as the end of a process does
	}()
	t.Cleanup(func() {
		cancel()
		_ = output.Close()
		<-s.done
	})
	return s
}

// testLog writes to the test's log as long as the connector runs.
type testLog struct {
	t    testing.TB
	done chan struct{}
}

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// Send sends a request.
func (s *Session) Send(req *capturepb.Request) {
	s.t.Helper()
	text, err := frame.Append(nil, s.codec, req)
	require.NoError(s.t, err)
	s.SendBytes(text)
}

// SendBytes sends what is already a frame, or is not. To a connector that has ended already it sends nothing: Next and Wait
// say why it ended.
func (s *Session) SendBytes(text []byte) {
	s.t.Helper()
	written := make(chan error, 1)
	go func() {
		_, err := s.requests.Write(text)
		written <- err
	}()
	select {
	case err := <-written:
		if !gone(err) {
			require.NoError(s.t, err)
		}
	case <-time.After(patience):
		require.FailNow(s.t, "the connector does not read its requests")
	}
}

// Next is the next response; io.EOF when the connector has closed its output.
func (s *Session) Next() (*capturepb.Response, error) {
	timer := time.AfterFunc(patience, s.CloseResponses)
	res := &capturepb.Response{}
	if err := s.responses.Read(res); !timer.Stop() {
		return nil, fmt.Errorf("the connector has sent nothing for %s: %w", patience, errors.Join(err, os.ErrDeadlineExceeded))
	} else if err != nil {
		return nil, err
	}
	if err := res.Check(); err != nil {
		return nil, fmt.Errorf("checking the response: %w", err)
	}
	return res, nil
}

// Call sends a request and returns the response to it. A connector that ends instead fails the test with its error.
func (s *Session) Call(req *capturepb.Request) *capturepb.Response {
	s.t.Helper()
	s.Send(req)
	res, err := s.Next()
	if errors.Is(err, io.EOF) {
		err = s.Wait()
	}
	require.NoError(s.t, err)
	return res
}

// CloseRequests closes the connector's input.
func (s *Session) CloseRequests() { _ = s.requests.Close() }

// CloseResponses closes the connector's output, as a runtime that dies does.
func (s *Session) CloseResponses() { _ = s.output.CloseWithError(io.ErrClosedPipe) }

// Stop tells the connector to stop, as a signal does, discards what it still writes and returns what Serve returned.
func (s *Session) Stop() error {
	s.t.Helper()
	s.cancel()
	_, _ = io.Copy(io.Discard, s.output)
	return s.Wait()
}

// Cancel tells the connector to stop and does not wait.
func (s *Session) Cancel() { s.cancel() }

// Kill ends the connector without a chance to finish anything, and does not wait: a process by SIGKILL; one in the test's
// own process as far as that can be done, by closing its output first. What a process has written before can still be
// read; then comes io.EOF, or io.ErrUnexpectedEOF.
func (s *Session) Kill() { s.kill() }

// Wait waits until the connector has ended and returns what Serve returned, or what became of the process.
func (s *Session) Wait() error {
	s.t.Helper()
	select {
	case <-s.done:
		return s.err
	case <-time.After(patience):
		require.FailNow(s.t, "the connector does not end")
		return nil
	}
}

// Open opens a session and waits for Opened.
func (s *Session) Open(spec *flowpb.CaptureSpec, state json.RawMessage) {
	s.t.Helper()
	s.AskOpen(spec, state)
	err := s.Opened()
	if errors.Is(err, io.EOF) {
		err = s.Wait()
	}
	require.NoError(s.t, err)
}

// AskOpen is the first half of Open, for connectors that may fail to open: it sends the request.
func (s *Session) AskOpen(spec *flowpb.CaptureSpec, state json.RawMessage) {
	s.t.Helper()
	if len(state) == 0 {
		state = json.RawMessage("{}")
	}
	s.Send(&capturepb.Request{Open: &capturepb.Request_Open{
		Capture: spec, Version: "v1", Range: flowpb.FullRange(), StateJson: state,
	}})
}

// Opened is the second half of Open: it waits for the answer. io.EOF means that the connector has ended.
func (s *Session) Opened() error {
	res, err := s.Next()
	switch {
	case err != nil:
		return err
	case res.Opened == nil:
		return fmt.Errorf("the first response to Open must be Opened, and is %v", res)
	case !res.Opened.ExplicitAcknowledgements:
		return errors.New("the connector does not want acknowledgements")
	}
	return nil
}

// Ack acknowledges checkpoints.
func (s *Session) Ack(checkpoints int) {
	s.t.Helper()
	s.Send(&capturepb.Request{Acknowledge: &capturepb.Request_Acknowledge{Checkpoints: uint32(checkpoints)}})
}

// Document is one captured document.
type Document struct {
	Binding int
	Doc     json.RawMessage
}

// Schema is one SourcedSchema.
type Schema struct {
	Binding int
	Schema  json.RawMessage
}

// Transaction is all that a checkpoint commits.
type Transaction struct {
	Documents []Document
	Schemas   []Schema
	// Patch is the checkpoint's merge patch.
	Patch json.RawMessage
}

// Transaction reads up to the next checkpoint. io.EOF means that the connector has ended at the end of a transaction;
// ending anywhere else is io.ErrUnexpectedEOF.
func (s *Session) Transaction() (*Transaction, error) {
	tx := &Transaction{}
	for {
		res, err := s.Next()
		switch {
		case errors.Is(err, io.EOF) && (len(tx.Documents) > 0 || len(tx.Schemas) > 0):
			return tx, io.ErrUnexpectedEOF
		case err != nil:
			return tx, err
		case res.Captured != nil:
			tx.Documents = append(tx.Documents, Document{int(res.Captured.Binding), res.Captured.DocJson})
		case res.SourcedSchema != nil:
			tx.Schemas = append(tx.Schemas, Schema{int(res.SourcedSchema.Binding), res.SourcedSchema.SchemaJson})
		case res.Checkpoint != nil:
			tx.Patch = res.Checkpoint.State.GetUpdatedJson()
			if !res.Checkpoint.State.GetMergePatch() {
				return tx, errors.New("the checkpoint replaces the state of the whole capture")
			}
			return tx, nil
		default:
			return tx, fmt.Errorf("a session answered %v", res)
		}
	}
}

// Discover asks what can be captured.
func (s *Session) Discover(config any) *capturepb.Response_Discovered {
	s.t.Helper()
	res := s.Call(&capturepb.Request{Discover: &capturepb.Request_Discover{
		ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: Config(s.t, config), Name: "acme/capture",
	}})
	require.NotNil(s.t, res.Discovered)
	return res.Discovered
}

// Task discovers and validates, and returns the specification of a capture of all that was discovered, as a runtime would
// build it.
func (s *Session) Task(config any) *flowpb.CaptureSpec {
	s.t.Helper()
	text := Config(s.t, config)
	found := s.Discover(config)
	req := &capturepb.Request_Validate{Name: "acme/capture", ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: text}
	spec := &flowpb.CaptureSpec{
		Name: req.Name, ConnectorType: req.ConnectorType, ConfigJson: text, IntervalSeconds: 60,
	}
	for _, b := range found.Bindings {
		collection := Collection("acme/"+b.RecommendedName, b.DocumentSchemaJson, b.Key...)
		req.Bindings = append(req.Bindings, &capturepb.Request_Validate_Binding{
			ResourceConfigJson: b.ResourceConfigJson, Collection: collection,
		})
		spec.Bindings = append(spec.Bindings, &flowpb.CaptureSpec_Binding{
			ResourceConfigJson: b.ResourceConfigJson, Collection: collection,
		})
	}
	res := s.Call(&capturepb.Request{Validate: req})
	require.NotNil(s.t, res.Validated)
	require.Len(s.t, res.Validated.Bindings, len(spec.Bindings))
	for i, b := range res.Validated.Bindings {
		spec.Bindings[i].ResourcePath = b.ResourcePath
		spec.Bindings[i].StateKey = strings.Join(b.ResourcePath, "%2F")
	}
	return spec
}

// Collection is a collection whose only fields are its key's.
func Collection(name string, schema json.RawMessage, key ...string) *flowpb.CollectionSpec {
	c := &flowpb.CollectionSpec{Name: name, Key: key, UuidPtr: "/_meta/uuid", WriteSchemaJson: schema}
	for _, ptr := range key {
		c.Projections = append(c.Projections, &flowpb.Projection{
			Ptr: ptr, Field: strings.TrimPrefix(ptr, "/"), IsPrimaryKey: true,
		})
	}
	return c
}
