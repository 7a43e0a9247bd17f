// Package e2e tests and measures the built programs from outside: sluice and its connectors as processes, real servers,
// real kills. It holds tests and benchmarks only; package launch runs the programs, package compare says whether a copy
// equals its source.
//
// The programs are built once a run, or taken from the folder in SLUICE_BIN. SLUICE_CRASH_FOR (60s) is how long TestCrash
// writes and kills, and SLUICE_CRASH_SEED repeats its decisions; so it is with the other crash tests. What sluice logged goes to the folder in SLUICE_E2E_KEEP.
package e2e
