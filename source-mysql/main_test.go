package main

import (
	"os"
	"testing"

	"github.com/sluicedata/sluice/sdk/testkit/child"
)

func TestMain(m *testing.M) {
	os.Exit(child.Main(m, 6, map[string]func(){child.Connector: main, "panics": panicking}))
}
