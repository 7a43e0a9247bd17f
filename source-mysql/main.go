// Command source-mysql captures the tables of a MySQL or MariaDB server, their rows and all that changes in them. See
// docs/connectors/source-mysql.md for its users, and README.md for its developers.
package main

import (
	"github.com/sluicedata/sluice/sdk/capture"
	"github.com/sluicedata/sluice/sdk/cdc"
)

func main() {
	capture.Main(capture.New(cdc.New(spec(), connect)))
}

func spec() capture.Spec {
	return capture.Spec{
		Title:        "MySQL",
		DocsURL:      "https://github.com/sluicedata/sluice/blob/main/docs/connectors/source-mysql.md",
		ResourcePath: []string{"/namespace", "/stream"},
	}
}
