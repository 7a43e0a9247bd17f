package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/sluicedata/sluice/sdk/usererr"
)

// sessionSettings make every session print values in one way, whatever the server's, the database's and the user's
// defaults are. The replication session needs them as much as those of the backfill. Only money is left to the database's
// lc_monetary: the same stored number means another amount under another one. The search path is for types whose values are
// names (regclass and its like), which are printed in full unless they are on it.
func sessionSettings() map[string]string {
	return map[string]string{
		"client_encoding":                     "UTF8",
		"TimeZone":                            "UTC",
		"DateStyle":                           "ISO, YMD",
		"IntervalStyle":                       "iso_8601",
		"extra_float_digits":                  "3",
		"bytea_output":                        "hex",
		"xmlbinary":                           "base64",
		"search_path":                         "pg_catalog",
		"quote_all_identifiers":               "off",
		"statement_timeout":                   "0",
		"lock_timeout":                        "0",
		"idle_in_transaction_session_timeout": "0",
	}
}

// scanSettings are for the sessions that read tables. Workers of our own read in parallel, so the server need not, and a
// table whose rows are hidden by row-level security must fail rather than look smaller than it is.
func scanSettings() map[string]string {
	return map[string]string{
		"max_parallel_workers_per_gather": "0",
		"row_security":                    "off",
		"search_path":                     `"$user", public`, // for filters; scans set their own
		"default_transaction_read_only":   "off",             // the publication is made by the same kind of session
		"jit":                             "off",
	}
}

// aliveSettings have the server notice within a minute that we vanished, and give up what our sessions hold: a slot that would
// be in use for hours, a table that could not be altered. Servers whose connections are no TCP ignore them.
func aliveSettings() map[string]string {
	return map[string]string{
		"tcp_keepalives_idle":     "20",
		"tcp_keepalives_interval": "10",
		"tcp_keepalives_count":    "3",
		userTimeoutSetting:        "45000",
	}
}

const userTimeoutSetting = "tcp_user_timeout"

// ownSettings are settings that users must not choose, beside those that sessions have already: they would decide who logs
// in and what a session is, when it ends, or what transactions see.
func ownSettings() []string {
	return []string{
		"user", "database", "replication", "options", "role", "session_authorization", "standard_conforming_strings",
		"default_transaction_isolation", "default_transaction_deferrable", "transaction_isolation", "transaction_read_only",
		"transaction_deferrable", "transaction_timeout", "idle_session_timeout", "backslash_quote", "client_min_messages",
	}
}

// optionProblems are the server settings of the configuration that cannot be.
func (a advanced) optionProblems() []error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	ours := map[string]bool{}
	for _, name := range slices.Concat(ownSettings(), slices.Collect(maps.Keys(sessionSettings())), slices.Collect(maps.Keys(scanSettings()))) {
		ours[strings.ToLower(name)] = true
	}
	for _, name := range slices.Sorted(maps.Keys(a.Options)) {
		switch {
		case strings.EqualFold(name, "application_name"):
			problem("The server setting application_name has a field of its own: enter it in advanced.applicationName.")
		case strings.EqualFold(name, "statement_timeout"):
			problem("The server setting statement_timeout has a field of its own: enter it in advanced.statementTimeout.")
		case ours[strings.ToLower(name)]:
			problem("The server setting %q in advanced.options is not yours to choose: the capture needs its own value to read every row, and to print it the same way always. Remove it.", name)
		case !settingNames(name):
			problem("The entry %q of advanced.options is no name of a server setting. Write the name alone, such as work_mem, and its value beside it.", name)
		case strings.ContainsRune(a.Options[name], 0):
			problem("The value of %q in advanced.options contains a NUL character, which Postgres does not allow.", name)
		}
	}
	if strings.ContainsRune(a.ApplicationName, 0) || len(a.ApplicationName) > 63 {
		problem("The application name %q is not possible: the server allows 63 bytes.", a.ApplicationName)
	}
	return errs
}

// settingNames reports whether a text can be the name of a setting: words of letters, digits and underscores, with a dot
// between those of an extension.
func settingNames(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}
