package main

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// envConnector makes the test binary the connector.
const envConnector = "SLUICE_TEST_CONNECTOR"

func TestMain(m *testing.M) {
	switch os.Getenv(envConnector) {
	case "":
	case "panics":
		panicking()
	default:
		main()
	}
	runAtOnce(6)
	os.Exit(m.Run())
}

// runAtOnce has that many tests run at the same time, unless -parallel says how many, or there are more cores: for the most
// part tests wait for their servers.
func runAtOnce(n int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given && n > runtime.GOMAXPROCS(0) {
		_ = flag.Set("test.parallel", strconv.Itoa(n)) // it is a number
	}
}
