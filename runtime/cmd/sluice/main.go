// Sluice runs pipelines of connectors.
package main

import (
	"github.com/sluicedata/sluice/runtime/cli"
	"github.com/sluicedata/sluice/sdk/process"
)

func main() { process.Main("sluice", cli.Run) }
