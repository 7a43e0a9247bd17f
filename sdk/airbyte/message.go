// Package airbyte has the messages of the Airbyte protocol, version 0.5, as far as a source needs them, and the translation
// between them and those of the capture protocol: catalogs, states and records. It talks to nobody.
package airbyte

import (
	"encoding/json"
	"time"
)

// Message is one line of a source's output. One of the pointers is set, as Type says.
type Message struct {
	Type             string            `json:"type"`
	Log              *Log              `json:"log,omitempty"`
	Spec             *Spec             `json:"spec,omitempty"`
	ConnectionStatus *ConnectionStatus `json:"connectionStatus,omitempty"`
	Catalog          *Catalog          `json:"catalog,omitempty"`
	Record           *Record           `json:"record,omitempty"`
	State            *State            `json:"state,omitempty"`
	Trace            *Trace            `json:"trace,omitempty"`
}

// The types of messages.
const (
	TypeLog     = "LOG"
	TypeSpec    = "SPEC"
	TypeStatus  = "CONNECTION_STATUS"
	TypeCatalog = "CATALOG"
	TypeRecord  = "RECORD"
	TypeState   = "STATE"
	TypeTrace   = "TRACE"
	TypeControl = "CONTROL"
)

// Log is a line of the log.
type Log struct {
	Level   string `json:"level"`
	Message string `json:"message"`
}

// Spec says what can be configured.
type Spec struct {
	DocumentationURL        string          `json:"documentationUrl,omitempty"`
	ConnectionSpecification json.RawMessage `json:"connectionSpecification"`
	SupportsIncremental     bool            `json:"supportsIncremental,omitempty"`
	ProtocolVersion         string          `json:"protocol_version,omitempty"`
}

// ConnectionStatus is the answer to check.
type ConnectionStatus struct {
	Status  string `json:"status"` // SUCCEEDED or FAILED
	Message string `json:"message,omitempty"`
}

// Record is one record, as a source that is not ours writes it.
type Record struct {
	Namespace string          `json:"namespace,omitempty"`
	Stream    string          `json:"stream"`
	Data      json.RawMessage `json:"data"`
	EmittedAt int64           `json:"emitted_at"` // milliseconds
}

// Trace tells what is not data: errors, how far streams are, how much is expected.
type Trace struct {
	Type         string        `json:"type"`
	EmittedAt    float64       `json:"emitted_at"` // milliseconds
	Error        *TraceError   `json:"error,omitempty"`
	Estimate     *Estimate     `json:"estimate,omitempty"`
	StreamStatus *StreamStatus `json:"stream_status,omitempty"`
}

// TraceError says why a source ends.
type TraceError struct {
	Message         string `json:"message"`
	InternalMessage string `json:"internal_message,omitempty"`
	FailureType     string `json:"failure_type,omitempty"` // system_error, config_error or transient_error
}

// Estimate is how many records of a stream are expected.
type Estimate struct {
	Name        string `json:"name"`
	Namespace   string `json:"namespace,omitempty"`
	Type        string `json:"type"` // STREAM
	RowEstimate int64  `json:"row_estimate"`
}

// StreamStatus is how far a stream is: STARTED, RUNNING, COMPLETE or INCOMPLETE.
type StreamStatus struct {
	Descriptor Descriptor `json:"stream_descriptor"`
	Status     string     `json:"status"`
}

// Descriptor names a stream.
type Descriptor struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

// String is the name for people.
func (d Descriptor) String() string {
	if d.Namespace == "" {
		return d.Name
	}
	return d.Namespace + "." + d.Name
}

// NewDescriptor names the stream of a resource: the last part of its path is the name, what comes before the namespace.
func NewDescriptor(path []string) Descriptor {
	d := Descriptor{}
	for i, part := range path {
		switch {
		case i == len(path)-1:
			d.Name = part
		case d.Namespace == "":
			d.Namespace = part
		default:
			d.Namespace += "." + part
		}
	}
	return d
}

// The ways in which a source may have failed.
const (
	SystemError = "system_error"
	ConfigError = "config_error"
)

// NewError is the message that a source fails with.
func NewError(message, internal, failure string) *Message {
	return trace(&Trace{Type: "ERROR", Error: &TraceError{Message: message, InternalMessage: internal, FailureType: failure}})
}

// NewStatus is the message that a stream has reached a status.
func NewStatus(d Descriptor, status string) *Message {
	return trace(&Trace{Type: "STREAM_STATUS", StreamStatus: &StreamStatus{Descriptor: d, Status: status}})
}

// NewEstimate is the message that so many records of a stream are expected.
func NewEstimate(d Descriptor, rows int64) *Message {
	return trace(&Trace{Type: "ESTIMATE", Estimate: &Estimate{Name: d.Name, Namespace: d.Namespace, Type: "STREAM", RowEstimate: rows}})
}

func trace(t *Trace) *Message {
	t.EmittedAt = float64(time.Now().UnixMilli())
	return &Message{Type: "TRACE", Trace: t}
}

// AppendLine appends a message as a line.
func AppendLine(dst []byte, m *Message) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return dst, err
	}
	return append(append(dst, text...), '\n'), nil
}
