package main

import (
	"os"
	"testing"
)

// These make the test binary a process of its own.
const (
	envConnector = "SLUICE_TEST_CONNECTOR" // the connector
	envBare      = "SLUICE_BARE_CONSUMER"  // a bare consumer: brokers, topic and number of records
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envConnector) != "":
		main()
		return
	case os.Getenv(envBare) != "":
		bareConsumer(os.Getenv(envBare))
		return
	}
	os.Exit(m.Run())
}
