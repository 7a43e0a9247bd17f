// Command source-kafka captures the topics of a Kafka cluster: every partition, record by record. See
// docs/connectors/source-kafka.md for its users, and README.md for its developers.
package main

import "github.com/sluicedata/sluice/sdk/capture"

func main() { capture.Main(capture.New(source{})) }
