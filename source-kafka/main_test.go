package main

import (
	"os"
	"testing"

	"github.com/sluicedata/sluice/sdk/testkit/child"
)

func TestMain(m *testing.M) {
	os.Exit(child.Main(m, 0, map[string]func(){child.Connector: main, "bare consumer": bareConsumer}))
}
