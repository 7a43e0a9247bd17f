package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/tunnel"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// config is what users write.
type config struct {
	Address     string        `json:"address" title:"Server Address" desc:"The server's host name or IP address, with :port unless that is 3306." order:"0"`
	User        string        `json:"user" title:"User" desc:"The user to connect as. It needs REPLICATION SLAVE, REPLICATION CLIENT and SELECT on the captured tables." default:"sluice" order:"1"`
	Password    schema.Secret `json:"password,omitzero" title:"Password" desc:"The user's password." secret:"true" order:"2"`
	Databases   []string      `json:"databases,omitempty" title:"Databases" desc:"The only databases whose tables are discovered. Empty means all but the server's own." order:"3"`
	Timezone    string        `json:"timezone,omitempty" title:"Time Zone" desc:"The time zone that DATETIME values are in, such as Europe/Berlin or +02:00. Empty means UTC. TIMESTAMP values need none." order:"4"`
	SSLMode     string        `json:"sslmode,omitempty" title:"SSL Mode" desc:"How the connection is protected. Empty means verify-full, or disable if the address is a loopback address. Only verify-full and verify-ca prove which server answers." enum:",disable,require,verify-ca,verify-full" order:"5"`
	SSLRootCert string        `json:"sslRootCert,omitempty" title:"SSL Root Certificate" desc:"The certificate of the authority that signed the server's certificate, as PEM text. Empty means the authorities this machine trusts." multiline:"true" order:"6"`
	SSLCert     string        `json:"sslCert,omitempty" title:"SSL Client Certificate" desc:"The certificate that you show to the server, as PEM text, if it wants one." multiline:"true" order:"7"`
	SSLKey      schema.Secret `json:"sslKey,omitzero" title:"SSL Client Key" desc:"The key of the client certificate, as PEM text without a passphrase." secret:"true" multiline:"true" order:"8"`
	Tunnel      tunnel.Config `json:"tunnel,omitzero" title:"SSH Tunnel" desc:"The SSH server that the database is reached through, if it cannot be reached directly." order:"9"`
	Advanced    advanced      `json:"advanced,omitzero" title:"Advanced Options" desc:"Options that most captures leave alone." advanced:"true" order:"10"`
}

type advanced struct {
	BackfillWorkers   int      `json:"backfillWorkers,omitempty" title:"Backfill Workers" desc:"How many connections read existing rows at once. Zero means as many as this machine has cores." order:"0"`
	BackfillChunkRows int      `json:"backfillChunkRows,omitempty" title:"Backfill Chunk Rows" desc:"How many rows a backfill reads in one query. Zero means 20000." order:"1"`
	StatementTimeout  string   `json:"statementTimeout,omitempty" title:"Statement Timeout" desc:"How long one backfill query may take, such as 5m. Empty means 10 minutes; 0s means no limit." order:"2"`
	SkipBackfills     []string `json:"skipBackfills,omitempty" title:"Skip Backfills" desc:"Tables whose existing rows are not wanted, only their changes: database.table, with * for any characters." order:"3"`
	RediscoverEvery   string   `json:"rediscoverEvery,omitempty" title:"Rediscovery Interval" desc:"How often the captured tables are looked up in the catalog, to notice dropped and recreated ones. Empty means 5m." order:"4"`
	OnTruncate        string   `json:"onTruncate,omitempty" title:"On Truncate" desc:"What follows when a table is truncated. No delete can be captured for each row, so ignore (empty) leaves them in the collection; backfill reads the table again from the beginning; stop ends the capture." enum:",ignore,backfill,stop" order:"5"`
	OnOversizedRow    string   `json:"onOversizedRow,omitempty" title:"On Oversized Row" desc:"What becomes of a row that is too large for a document, which can have 63 MiB: fail (the default) ends the capture; placeholder captures it with null for its largest values and their sizes in _meta.omitted; skip leaves it out. All of them name table and key in the log." enum:",fail,placeholder,skip" order:"6"`
	OnPositionLoss    string   `json:"onPositionLoss,omitempty" title:"On Position Loss" desc:"What follows when the server has thrown away a part of its binary log that was not captured yet: backfill (the default) captures all tables anew, stop ends the capture with advice." enum:",backfill,stop" order:"7"`
	Position          string   `json:"position,omitempty" title:"Position" desc:"What the position of the capture is: gtid, the transactions that were captured, which mean the same on every replica; or file, a place in the log of one server. Empty means gtid, or file where MySQL's gtid_mode is not ON. Choose it before the first backfill." enum:",gtid,file" order:"12"`
	ZeroDates         string   `json:"zeroDates,omitempty" title:"Zero Dates" desc:"What becomes of dates that do not exist, such as 0000-00-00 and 2024-02-00: nearest (the default) captures the first date that does, 0001-01-01 and 2024-02-01; null captures null; text captures all values of DATE, DATETIME and TIMESTAMP columns as the server prints them. Choose it before the first backfill." enum:",nearest,null,text" order:"8"`
	ReadTimeout       string   `json:"readTimeout,omitempty" title:"Read Timeout" desc:"How long the server may say nothing on the replication connection, on which it sends a sign of life every few seconds, before the capture ends and is started again. Empty means 2m; 0s means for ever." order:"9"`
	StatusEvery       string   `json:"statusEvery,omitempty" title:"Status Interval" desc:"How often the capture says in its log what it is doing. Empty means 1m." order:"10"`
	MinRetention      string   `json:"minRetention,omitempty" title:"Least Log Retention" desc:"How long the server must keep its binary log, such as 24h, or the capture is refused. Empty means 24h; 0s means any time." order:"11"`
	Geometry          string   `json:"geometry,omitempty" title:"Geometry" desc:"What geometries come as: wkt (the default), well-known text such as POINT(1 2); or geojson, an object as RFC 7946 has it. Neither has the number of the reference system, and both have the coordinates in the order in which the server stores them, longitudes first. Choose it before the first backfill." enum:",wkt,geojson" order:"13"`
}

const (
	defaultPort             = 3306
	defaultStatementTimeout = 10 * time.Minute
	defaultRetention        = 24 * time.Hour
)

// The choices of advanced.geometry, advanced.onPositionLoss and advanced.zeroDates.
const (
	onLossBackfill = "backfill"
	onLossStop     = "stop"

	geoText = "wkt"
	geoJSON = "geojson"

	zeroNearest = "nearest"
	zeroNull    = "null"
	zeroText    = "text"
)

// Validate checks what types cannot. It reports every problem at once.
func (c config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	addr, err := c.address()
	switch {
	case c.Address == "":
		problem("Enter the server's address, such as db.example.com or db.example.com:3306.")
	case err != nil:
		errs = append(errs, err)
	}
	if c.User == "" {
		problem("Enter the name of the user to connect as.")
	}
	if _, err := c.location(); err != nil {
		problem("The time zone %q is not known. Write a name such as Europe/Berlin, or an offset such as +02:00.", c.Timezone)
	}
	if slices.Contains(c.Databases, "") {
		problem("A name in databases is empty.")
	}
	errs = append(errs, c.tls(addr).Validate(), c.Tunnel.Validate())
	return usererr.Join("The configuration has these problems:", append(errs, c.Advanced.problems()...))
}

func (a advanced) problems() []error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	if a.BackfillWorkers < 0 || a.BackfillWorkers > 64 {
		problem("The number of backfill workers must be between 0 and 64, not %d.", a.BackfillWorkers)
	}
	if a.BackfillChunkRows < 0 || a.BackfillChunkRows > 10_000_000 {
		problem("The number of rows of a backfill chunk must be between 0 and 10000000, not %d.", a.BackfillChunkRows)
	}
	if _, err := parseDuration(a.StatementTimeout, 0); err != nil {
		problem("The statement timeout %q is not a duration. Write it like 30s or 5m.", a.StatementTimeout)
	}
	if _, err := parseDuration(a.MinRetention, 0); err != nil {
		problem("The least log retention %q is not a duration. Write it like 24h.", a.MinRetention)
	}
	for _, d := range []struct{ name, value string }{{"rediscovery interval", a.RediscoverEvery}, {"status interval", a.StatusEvery}} {
		if every, err := parseDuration(d.value, time.Minute); err != nil || every < time.Second {
			problem("The %s %q is not a duration of at least a second. Write it like 30s or 5m.", d.name, d.value)
		}
	}
	if d, err := parseDuration(a.ReadTimeout, time.Minute); err != nil || d != 0 && d < 5*time.Second {
		problem("The read timeout %q is not a duration of at least five seconds, or 0s. Write it like 30s or 2m.", a.ReadTimeout)
	}
	for _, choice := range []struct {
		name, value string
		of          []string
	}{
		{"onTruncate", a.OnTruncate, []string{"ignore", "backfill", "stop"}},
		{"onOversizedRow", a.OnOversizedRow, []string{"fail", "placeholder", "skip"}},
		{"onPositionLoss", a.OnPositionLoss, []string{onLossBackfill, onLossStop}},
		{"position", a.Position, []string{positionGTID, positionFile}},
		{"geometry", a.Geometry, []string{geoText, geoJSON}},
		{"zeroDates", a.ZeroDates, []string{zeroNearest, zeroNull, zeroText}},
	} {
		if choice.value != "" && !slices.Contains(choice.of, choice.value) {
			problem("The choice %q of %s does not exist. Choose from %s.", choice.value, choice.name, strings.Join(choice.of, ", "))
		}
	}
	for _, glob := range a.SkipBackfills {
		if !strings.Contains(glob, ".") {
			problem("The entry %q of skipBackfills names no table: write database.table.", glob)
		}
	}
	return errs
}

var errNegative = errors.New("negative duration")

func parseDuration(s string, otherwise time.Duration) (time.Duration, error) {
	if s == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = errNegative
	}
	if err != nil {
		return 0, fmt.Errorf("parsing duration %q: %w", s, err)
	}
	return d, nil
}

// duration is a duration of a valid configuration.
func duration(s string, otherwise time.Duration) time.Duration {
	d, err := parseDuration(s, otherwise)
	if err != nil {
		return otherwise
	}
	return d
}

// location is the time zone of DATETIME values.
func (c config) location() (*time.Location, error) {
	if c.Timezone == "" {
		return time.UTC, nil
	}
	if t, err := time.Parse("-07:00", c.Timezone); err == nil {
		_, offset := t.Zone()
		return time.FixedZone(c.Timezone, offset), nil
	}
	if strings.EqualFold(c.Timezone, "local") {
		return nil, errors.New("the local time zone is not a name")
	}
	l, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return nil, fmt.Errorf("looking for time zone %q: %w", c.Timezone, err)
	}
	return l, nil
}

// address is the server's.
func (c config) address() (endpoint.Address, error) {
	return endpoint.ParseAddress(c.Address, defaultPort)
}

// tls is how the connection is protected. Without a word from the user that is verify-full, except that a server on this
// machine, for which nothing about certificates was said, is reached in plain text.
func (c config) tls(addr endpoint.Address) endpoint.TLS {
	t := endpoint.TLS{Mode: c.SSLMode, RootCert: c.SSLRootCert, Cert: c.SSLCert, Key: c.SSLKey}
	if t.Mode == "" && t.RootCert == "" && t.Cert == "" && addr.IsLoopback() {
		t.Mode = endpoint.Disable
	}
	return t
}

// readTimeout is the core's option of this name: below zero for no timeout, zero for the default.
func (c config) readTimeout() time.Duration {
	d := duration(c.Advanced.ReadTimeout, 0)
	if d == 0 && c.Advanced.ReadTimeout != "" {
		return -1
	}
	return d
}

// heartbeatEvery is how often a quiet server is to send a sign of life, with its place in the log.
const heartbeatEvery = time.Second

// options are the core's, from the configuration.
func (c config) options() cdc.Options {
	return cdc.Options{
		StatusEvery:        duration(c.Advanced.StatusEvery, 0),
		ReadTimeout:        c.readTimeout(),
		BackfillWorkers:    c.Advanced.BackfillWorkers,
		ChunkRows:          c.Advanced.BackfillChunkRows,
		SkipBackfills:      c.Advanced.SkipBackfills,
		Rediscovery:        duration(c.Advanced.RediscoverEvery, 0),
		OnTruncate:         cdc.TruncatePolicy(c.Advanced.OnTruncate),
		OnOversizedRow:     cdc.OversizePolicy(c.Advanced.OnOversizedRow),
		StopOnPositionLoss: c.Advanced.OnPositionLoss == onLossStop,
		SourceSchema: json.RawMessage(`{` +
			`"ts_ms":{"type":"integer","description":"When the transaction committed, in milliseconds since 1970; absent for rows that a backfill read."},` +
			`"schema":{"type":"string","description":"The table's database."},` +
			`"table":{"type":"string","description":"The table's name."},` +
			`"loc":{"type":"array","items":{"type":"integer"},"minItems":3,"maxItems":3,"description":"Where the change is in the log: number of the file, place of the event, number within the transaction."},` +
			`"gtid":{"type":"string","description":"The global identifier of the transaction that made the change."},` +
			`"server_id":{"type":"integer","description":"The number of the server that made the change."}}`),
	}
}
