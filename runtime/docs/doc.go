// Package docs holds no code but the test that runs what the documentation says.
//
// Every fenced block marked "sh" in README.md and docs/ is run, the blocks of one page in order, in one folder and
// against one throw-away Postgres that answers for the addresses the pages use. HTML comments, which readers do not
// see, stand directly above a block and say what the test cannot know:
//
//	<!-- prints: REGEXP -->         what the block prints must match; ^ and $ are ends of lines
//	<!-- not run: needs an engine -->  the reason why this one is not run
//
// `make` is replaced by a script that checks only whether the target exists: the pages' blocks run inside `make test`.
// `bin/sluice run …` as a whole line is started in the background, as a reader does in a second terminal; from then on a
// block is repeated until it succeeds (and prints what it must), and at the page's end the runtime is interrupted and
// must end cleanly.
package docs
