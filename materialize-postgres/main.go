// Command materialize-postgres keeps Postgres tables equal to collections of documents. Without arguments it speaks the
// materialization protocol on stdin and stdout; with arguments it is a command-line tool, see --help.
package main

import "github.com/sluicedata/sluice/sdk/materialize"

func main() { materialize.Main(sink{}) }
