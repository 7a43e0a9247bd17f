package host

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/require"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"

	"github.com/sluicedata/sluice/protocol/frame"
	"github.com/sluicedata/sluice/runtime/connector"
	"github.com/sluicedata/sluice/runtime/pipeline"
	"github.com/sluicedata/sluice/sdk/process"
)

// A connector whose document cannot be used goes on loading, and so reads no requests. Whoever writes them learns of it, and what
// is said is what was wrong with the document.
func TestConnectorThatLoadsWhatCannotBeUsed(t *testing.T) {
	t.Parallel()
	launcher := &connector.Launcher{Environ: os.Environ()}
	script := `echo '{"acknowledged":{}}'; exec yes '{"loaded":{"binding":0,"doc":{}}}'`
	proc, err := launcher.Start(t.Context(), &pipeline.Endpoint{Command: []string{"/bin/sh", "-c", script}, Codec: frame.JSON}, "acme/x", logrus.NewEntry(process.Discard()), nil)
	require.NoError(t, err)
	unusable := errors.New("the document cannot be used")
	spec := &flowpb.MaterializationSpec{Bindings: []*flowpb.MaterializationSpec_Binding{{}}}
	s := newMaterializeSession(proc, &materializepb.Request_Open{Materialization: spec}, nil, nil, func(uint32, []byte) error { return unusable })
	load := &materializepb.Request_Load{KeyJson: append(append([]byte(`["`), bytes.Repeat([]byte("k"), 1<<20)...), `"]`...)}
	for err = s.Load(load); err == nil; {
		err = errors.Join(s.Load(load), s.Push())
	}
	require.ErrorIs(t, s.Explain(err), unusable)
	require.Error(t, s.Close())
}

// Loads are optional where the connector says so in its resource's schema, and wants no more when it is opened.
func TestLoadsAreOptional(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]bool{
		`{"x-load-optional":true,"properties":{}}`: true, `{"x-load-optional":false}`: false, `{"properties":{"x-load-optional":true}}`: false, ``: false,
	} {
		s := &MaterializeSession{spec: &materializepb.Response_Spec{ResourceConfigSchemaJson: []byte(schema)}, opened: &materializepb.Response_Opened{}}
		require.Equal(t, want, s.LoadOptional(), schema)
		s.opened.DisableLoadOptimization = true
		require.False(t, s.LoadOptional())
	}
}
