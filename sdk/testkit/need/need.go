// Package need says what becomes of a test that needs what this machine does not have.
package need

import (
	"os"
	"testing"
)

// Require is the environment variable that makes failures of tests that would be skipped for want of a program. CI sets it to 1, since
// nobody reads there what was skipped.
const Require = "SLUICE_REQUIRE"

// Missing ends a test, or a benchmark, for want of something that scripts/services installs: it is skipped with these words, or fails
// where the environment says that nothing may be missing. What a machine may lack by nature, such as the rights of root, is no matter of
// this function.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(Require) == "1" {
		t.Fatalf(format+" ("+Require+"=1: nothing may be missing)", args...)
	}
	t.Skipf(format, args...)
}
