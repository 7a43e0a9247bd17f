// Command materialize-s3-parquet appends collections of documents to Parquet files, in an object store or a folder. Without
// arguments it speaks the materialization protocol on stdin and stdout; with arguments it is a command-line tool, see --help.
package main

import "github.com/sluicedata/sluice/sdk/materialize"

func main() { materialize.Main(sink{}) }
