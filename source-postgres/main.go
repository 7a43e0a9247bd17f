// Command source-postgres captures the tables of a Postgres database, their rows and all that changes in them. See
// docs/connectors/source-postgres.md for its users, and README.md for its developers.
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
		Title:        "Postgres",
		DocsURL:      "https://github.com/sluicedata/sluice/blob/main/docs/connectors/source-postgres.md",
		ResourcePath: []string{"/namespace", "/stream"},
		AirbyteFields: map[string]string{
			"_ab_cdc_lsn": "/source/loc/0", // of the commit
		},
	}
}
