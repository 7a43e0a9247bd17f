package capture

import (
	"context"

	"github.com/sirupsen/logrus"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/sdk/airbyte"
)

// Connector is a Source without its types: what a session of the protocol talks to. New makes it.
type Connector interface {
	spec() (*capturepb.Response_Spec, error)
	airbyteFields() airbyte.Fields
	discover(ctx context.Context, log *logrus.Entry, req *capturepb.Request_Discover) (*capturepb.Response_Discovered, error)
	validate(ctx context.Context, log *logrus.Entry, req *capturepb.Request_Validate) (*capturepb.Response_Validated, error)
	apply(ctx context.Context, log *logrus.Entry, req *capturepb.Request_Apply) (*capturepb.Response_Applied, error)
	open(ctx context.Context, log *logrus.Entry, req *capturepb.Request_Open, how opening) (*session, error)
}

// session is an opened capture.
type session struct {
	reader   Reader
	bindings []*handle
	state    *document
	outlet   *Outlet // the source has it too
}

// opening is what a session knows besides its request.
type opening struct {
	ephemeral bool // Env.Ephemeral
	catchUp   bool // Env.CatchUp
	whole     bool // Env.Whole
}
