// Example captures all that a source has as JSON lines, and keeps its position: example source-postgres config.json state.json
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/runtime/host"
	"github.com/sluicedata/sluice/sdk/usererr"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	config, err := os.ReadFile(os.Args[2])
	if err == nil {
		endpoint := host.Endpoint{Command: os.Args[1:2], Config: config}
		err = run(ctx, &host.Capture{Connector: host.Connector{Task: "acme/example", Endpoint: endpoint}}, os.Args[3])
	}
	if stop(); err != nil {
		log.Fatalln(usererr.Message(err))
	}
}

func run(ctx context.Context, c *host.Capture, stateFile string) error {
	task, err := c.SpecifyAll(ctx, "acme")
	state, _ := os.ReadFile(stateFile) // there is none the first time
	if err == nil {
		state, err = c.Apply(ctx, &capturepb.Request_Apply{Capture: task, StateJson: state}, nil)
	}
	if err != nil {
		return err
	}
	session, err := c.Open(ctx, &capturepb.Request_Open{Capture: task, StateJson: state})
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { session.Stop(10 * time.Second) })()
	for r, err := session.Next(); !errors.Is(err, io.EOF); r, err = session.Next() {
		if err == nil && r.Captured != nil {
			fmt.Printf("%s\n", r.Captured.DocJson)
		} else if err == nil && r.Checkpoint != nil {
			err = os.WriteFile(stateFile, session.State(), 0o600)
			session.Acknowledge(1)
		}
		if err != nil {
			return errors.Join(err, session.Close())
		}
	}
	return session.Wait(context.Background())
}
