package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sluicedata/sluice/sdk/endpoint"
	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/tunnel"
	"github.com/sluicedata/sluice/sdk/usererr"
)

// config is what users write.
type config struct {
	Address     string        `json:"address" title:"Server Address" desc:"The server's host name or IP address, with :port unless that is 5432." order:"0"`
	Database    string        `json:"database" title:"Database" desc:"The database to capture from." default:"postgres" order:"1"`
	User        string        `json:"user" title:"User" desc:"The user to connect as. It needs the REPLICATION attribute and SELECT on the captured tables." default:"sluice" order:"2"`
	Password    schema.Secret `json:"password,omitzero" title:"Password" desc:"The user's password. Empty if the user has none because you log in in another way." secret:"true" order:"3"`
	SSLMode     string        `json:"sslmode,omitempty" title:"SSL Mode" desc:"How the connection is protected. Empty means verify-full, or disable if the address is a loopback address. Only verify-full and verify-ca prove which server answers." enum:",disable,require,verify-ca,verify-full" order:"4"`
	SSLRootCert string        `json:"sslRootCert,omitempty" title:"SSL Root Certificate" desc:"The certificate of the authority that signed the server's certificate, as PEM text. Empty means the authorities this machine trusts." multiline:"true" order:"5"`
	SSLCert     string        `json:"sslCert,omitempty" title:"SSL Client Certificate" desc:"The certificate that you show to the server, as PEM text, if it wants one." multiline:"true" order:"6"`
	SSLKey      schema.Secret `json:"sslKey,omitzero" title:"SSL Client Key" desc:"The key of the client certificate, as PEM text without a passphrase." secret:"true" multiline:"true" order:"7"`
	Auth        auth          `json:"auth,omitzero" title:"Authentication" desc:"How to log in, if not with the password." order:"8"`
	Tunnel      tunnel.Config `json:"tunnel,omitzero" title:"SSH Tunnel" desc:"The SSH server that the database is reached through, if it cannot be reached directly." order:"9"`
	Advanced    advanced      `json:"advanced,omitzero" title:"Advanced Options" desc:"Options that most captures leave alone." advanced:"true" order:"10"`
}

type advanced struct {
	SlotName          string            `json:"slotName,omitempty" title:"Replication Slot" desc:"The name of the logical replication slot. Empty means a name made from the capture's name." order:"0"`
	PublicationName   string            `json:"publicationName,omitempty" title:"Publication" desc:"The name of the publication. Empty means a name made from the capture's name. One that exists is used as it is; missing tables are added if the user may do that." order:"1"`
	BackfillWorkers   int               `json:"backfillWorkers,omitempty" title:"Backfill Workers" desc:"How many connections read existing rows at once. Zero means as many as this machine has cores." order:"2"`
	BackfillChunkRows int               `json:"backfillChunkRows,omitempty" title:"Backfill Chunk Rows" desc:"How many rows a backfill reads in one query. Zero means 20000." order:"3"`
	StatementTimeout  string            `json:"statementTimeout,omitempty" title:"Statement Timeout" desc:"How long one backfill query may take, such as 5m. Empty means 10 minutes; 0s means no limit." order:"4"`
	SkipBackfills     []string          `json:"skipBackfills,omitempty" title:"Skip Backfills" desc:"Tables whose existing rows are not wanted, only their changes: schema.table, with * for any characters." order:"5"`
	RediscoverEvery   string            `json:"rediscoverEvery,omitempty" title:"Rediscovery Interval" desc:"How often the captured tables are looked up in the catalog, to notice dropped and recreated ones. Empty means 5m." order:"6"`
	OnTruncate        string            `json:"onTruncate,omitempty" title:"On Truncate" desc:"What follows when a table is truncated, or loses a partition with its rows. No delete can be captured for each row, so ignore (empty) leaves them in the collection; backfill reads the table again from the beginning; stop ends the capture." enum:",ignore,backfill,stop" order:"7"`
	OnOversizedRow    string            `json:"onOversizedRow,omitempty" title:"On Oversized Row" desc:"What becomes of a row that is too large for a document, which can have 63 MiB: fail (the default) ends the capture; placeholder captures it with null for its largest values and their sizes in _meta.omitted; skip leaves it out. All of them name table and key in the log." enum:",fail,placeholder,skip" order:"8"`
	OnSlotLoss        string            `json:"onSlotLoss,omitempty" title:"On Slot Loss" desc:"What follows when the replication slot is lost: backfill (the default) captures all tables anew, stop ends the capture with advice." enum:",backfill,stop" order:"10"`
	Failover          bool              `json:"failover,omitempty" title:"Failover Slot" desc:"Have the slot copied to standbys, so that the capture goes on after a failover without a new backfill. Needs Postgres 17 or newer, with standbys that synchronize slots." order:"11"`
	MaxSlotLagBytes   int               `json:"maxSlotLagBytes,omitempty" title:"Slot Lag Limit" desc:"How many bytes of the server's log the slot may hold back before there is a warning, and what On Slot Lag says is done. Zero means no limit." order:"12"`
	OnSlotLag         string            `json:"onSlotLag,omitempty" title:"On Slot Lag" desc:"What follows when the slot holds back more than the limit and does not come closer to it for a minute: warn (the default), stop the capture, or drop the slot, to save the server's disk; On Slot Loss says what follows that." enum:",warn,stop,drop" order:"13"`
	ApplicationName   string            `json:"applicationName,omitempty" title:"Application Name" desc:"What the server lists the connections as. Empty means sluice." order:"20"`
	Options           map[string]string `json:"options,omitempty" title:"Server Settings" desc:"Settings of the server for the connections, such as work_mem: 256MB. Those that decide how values are printed or what is read are not yours to choose." order:"21"`
	Heartbeat         string            `json:"heartbeat,omitempty" title:"Heartbeat Interval" desc:"How often a small message is written to the server's log, such as 1m, so that the slot moves on where nothing else happens. Empty means never." order:"14"`
	Lossless          []string          `json:"lossless,omitempty" title:"Lossless Text" desc:"Values that come as the server's own text where JSON would lose something: times (infinities, BC, years beyond 9999, 24:00:00), arrays (bounds other than 1), json (json and jsonb columns as text, byte for byte). Choose it before the first backfill: it changes columns' schemas." order:"15"`
	ReadTimeout       string            `json:"readTimeout,omitempty" title:"Read Timeout" desc:"How long the server may say nothing on the replication connection, on which it is asked for a sign of life every few seconds, before the capture ends and is started again. Empty means 2m; 0s means for ever." order:"15"`
	StatusEvery       string            `json:"statusEvery,omitempty" title:"Status Interval" desc:"How often the capture says in its log what it is doing. Empty means 1m." order:"16"`

	StreamTransactions string `json:"streamTransactions,omitempty" title:"Stream Transactions" desc:"Whether large transactions are received while they are still open, and kept in the folder for temporary files until they commit: on (the default; needs Postgres 14 or newer) brings them sooner and costs the server less; off leaves them on the server's disk." enum:",on,off" order:"17"`
}

const (
	defaultPort             = 5432
	defaultStatementTimeout = 10 * time.Minute
)

// The choices of advanced.onSlotLoss.
const (
	onLossBackfill = "backfill"
	onLossStop     = "stop"
)

// The choices of advanced.streamTransactions.
const (
	streamOn  = "on"
	streamOff = "off"
)

// The choices of advanced.onSlotLag.
const (
	onLagWarn = "warn"
	onLagStop = "stop"
	onLagDrop = "drop"
)

// The server's own rules for names of slots: lower-case letters, digits and underscores, at most 63 bytes.
var slotNames = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate checks what types cannot. It reports every problem at once.
func (c config) Validate() error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	addr, err := c.address()
	switch {
	case c.Address == "":
		problem("Enter the server's address, such as db.example.com or db.example.com:5432.")
	case err != nil:
		errs = append(errs, err)
	default:
		if advice := poolerAdvice(addr); advice != "" {
			problem("The address %s is a connection pooler, which cannot carry a replication stream. %s", c.Address, advice)
		}
	}
	if c.Database == "" {
		problem("Enter the name of the database.")
	}
	if c.User == "" {
		problem("Enter the name of the user to connect as.")
	}
	errs = append(errs, c.tls(addr).Validate(), c.Auth.validate(addr, c.tls(addr), c.Password), c.Tunnel.Validate())
	return usererr.Join("The configuration has these problems:", append(errs, c.Advanced.problems()...))
}

func (a advanced) problems() []error {
	var errs []error
	problem := func(format string, args ...any) { errs = append(errs, usererr.New(nil, format, args...)) }
	if a.SlotName != "" && !slotNames.MatchString(a.SlotName) {
		problem("The slot name %q is not possible: the server allows lower-case letters, digits and underscores, 63 at most.", a.SlotName)
	}
	if len(a.PublicationName) > 63 || strings.ContainsRune(a.PublicationName, 0) {
		problem("The publication name %q is not possible: the server allows 63 bytes.", a.PublicationName)
	}
	errs = append(errs, a.optionProblems()...)
	if a.BackfillWorkers < 0 || a.BackfillWorkers > 64 {
		problem("The number of backfill workers must be between 0 and 64, not %d.", a.BackfillWorkers)
	}
	if a.BackfillChunkRows < 0 || a.BackfillChunkRows > 10_000_000 {
		problem("The number of rows of a backfill chunk must be between 0 and 10000000, not %d.", a.BackfillChunkRows)
	}
	if _, err := parseDuration(a.StatementTimeout, defaultStatementTimeout); err != nil {
		problem("The statement timeout %q is not a duration. Write it like 30s or 5m.", a.StatementTimeout)
	}
	if d, err := parseDuration(a.RediscoverEvery, time.Minute); err != nil || d < time.Second {
		problem("The rediscovery interval %q is not a duration of at least a second. Write it like 30s or 5m.", a.RediscoverEvery)
	}
	if !slices.Contains([]string{"", "ignore", "backfill", "stop"}, a.OnTruncate) {
		problem("The policy for truncations %q does not exist. Choose ignore, backfill or stop.", a.OnTruncate)
	}
	if !slices.Contains([]string{"", "fail", "placeholder", "skip"}, a.OnOversizedRow) {
		problem("The policy for oversized rows %q does not exist. Choose fail, placeholder or skip.", a.OnOversizedRow)
	}
	if a.OnSlotLoss != "" && a.OnSlotLoss != onLossBackfill && a.OnSlotLoss != onLossStop {
		problem("The choice %q of onSlotLoss does not exist. Choose backfill or stop.", a.OnSlotLoss)
	}
	if a.StreamTransactions != "" && a.StreamTransactions != streamOn && a.StreamTransactions != streamOff {
		problem("The choice %q of streamTransactions does not exist. Choose on or off.", a.StreamTransactions)
	}
	if a.MaxSlotLagBytes < 0 {
		problem("The limit of slot lag must not be negative, but is %d.", a.MaxSlotLagBytes)
	}
	switch a.OnSlotLag {
	case "":
	case onLagWarn, onLagStop, onLagDrop:
		if a.MaxSlotLagBytes == 0 {
			problem("The choice %q of onSlotLag needs a limit in maxSlotLagBytes.", a.OnSlotLag)
		}
	default:
		problem("The choice %q of onSlotLag does not exist. Choose warn, stop or drop.", a.OnSlotLag)
	}
	if every, err := parseDuration(a.Heartbeat, time.Minute); err != nil || every < time.Second {
		problem("The heartbeat interval %q is not a duration of at least a second. Write it like 30s or 5m.", a.Heartbeat)
	}
	for _, kind := range a.Lossless {
		if kind != losslessTimes && kind != losslessArrays && kind != losslessJSON {
			problem("The entry %q of lossless does not exist. Choose from times, arrays and json.", kind)
		}
	}
	if d, err := parseDuration(a.ReadTimeout, time.Minute); err != nil || d != 0 && d < time.Second {
		problem("The read timeout %q is not a duration of at least a second, or 0s. Write it like 30s or 2m.", a.ReadTimeout)
	}
	if d, err := parseDuration(a.StatusEvery, time.Minute); err != nil || d < time.Second {
		problem("The status interval %q is not a duration of at least a second. Write it like 30s or 1m.", a.StatusEvery)
	}
	for _, glob := range a.SkipBackfills {
		if !strings.Contains(glob, ".") {
			problem("The entry %q of skipBackfills names no table: write schema.table.", glob)
		}
	}
	return errs
}

// heartbeat is how often to send one; zero for never.
func (c config) heartbeat() time.Duration {
	every, err := parseDuration(c.Advanced.Heartbeat, 0)
	if err != nil {
		return 0 // Validate has said so
	}
	return every
}

// readTimeout is the core's option of this name: below zero for no timeout, zero for the default.
func (c config) readTimeout() time.Duration {
	d, err := parseDuration(c.Advanced.ReadTimeout, 0)
	if err == nil && d == 0 && c.Advanced.ReadTimeout != "" {
		return -1
	}
	return d
}

// askEvery is how often the server is asked for a sign of life: several times before it is taken for dead.
func (c config) askEvery() time.Duration {
	if d := c.readTimeout(); d > 0 {
		return min(statusEvery, d/4)
	}
	return statusEvery
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

func (c config) slotName(task string) string {
	if c.Advanced.SlotName != "" {
		return c.Advanced.SlotName
	}
	return derivedName(task)
}

func (c config) publicationName(task string) string {
	if c.Advanced.PublicationName != "" {
		return c.Advanced.PublicationName
	}
	return derivedName(task)
}

// derivedName makes a name for a slot or publication out of a task's name: what the server allows of it, and a hash that
// tells apart what would otherwise collide.
func derivedName(task string) string {
	const most = 40
	name := strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, task), "_")
	if len(name) > most {
		name = strings.Trim(name[len(name)-most:], "_")
	}
	sum := sha256.Sum256([]byte(task))
	return strings.TrimSuffix("sluice_"+name, "_") + "_" + hex.EncodeToString(sum[:4])
}
