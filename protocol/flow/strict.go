package flowpb

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluicedata/sluice/protocol/internal/fieldpath"
)

// ValidateStrict checks a capture's specification for everything that the connectors of others insist on. Those in Go end with an
// error, or a crash, on specifications which fail it. A runtime that drives foreign connectors sends none that does.
func (x *CaptureSpec) ValidateStrict() error {
	if err := x.Validate(); err != nil {
		return err
	}
	if err := strictTask(x.GetName(), x.GetShardTemplate(), x.GetRecoveryLogTemplate()); err != nil {
		return err
	}
	if x.GetConnectorType() == CaptureSpec_INVALID {
		return fieldpath.In("connectorType", ErrMissing)
	}
	if x.GetIntervalSeconds() == 0 {
		return fieldpath.In("intervalSeconds", ErrMissing)
	}
	for i, b := range x.GetBindings() {
		if err := b.GetCollection().ValidateStrict(); err != nil {
			return fieldpath.InAt("bindings", i, fieldpath.In("collection", err))
		}
	}
	return nil
}

// ValidateStrict is CaptureSpec.ValidateStrict for materializations.
func (x *MaterializationSpec) ValidateStrict() error {
	if err := x.Validate(); err != nil {
		return err
	}
	if err := strictTask(x.GetName(), x.GetShardTemplate(), x.GetRecoveryLogTemplate()); err != nil {
		return err
	}
	if x.GetConnectorType() == MaterializationSpec_INVALID {
		return fieldpath.In("connectorType", ErrMissing)
	}
	for i, b := range x.GetBindings() {
		if err := b.GetCollection().ValidateStrict(); err != nil {
			return fieldpath.InAt("bindings", i, fieldpath.In("collection", err))
		}
		if !slices.IsSorted(b.GetFieldSelection().GetValues()) {
			return fieldpath.InAt("bindings", i, fieldpath.In("fieldSelection.values", errNotSorted))
		}
	}
	return nil
}

var errNotSorted = errors.New("is not in ascending order")

func strictTask(name string, shard *ShardSpec, log *JournalSpec) error {
	if err := checkToken(name, 1); err != nil {
		return fieldpath.In("name", err)
	}
	if shard != nil {
		if err := shard.validateStrict(); err != nil {
			return fieldpath.In("shardTemplate", err)
		}
	}
	if log != nil {
		return fieldpath.In("recoveryLogTemplate", log.validateStrict())
	}
	return nil
}

// ValidateStrict checks a collection, given inline, for what the connectors of others insist on.
func (x *CollectionSpec) ValidateStrict() error {
	if err := x.Validate(); err != nil {
		return err
	}
	if err := checkToken(x.GetName(), 1); err != nil {
		return fieldpath.In("name", err)
	}
	primary, fields, last := map[string]bool{}, map[string]bool{}, ""
	for i, p := range x.GetProjections() {
		if i > 0 && p.GetField() <= last {
			return fieldpath.InAt("projections", i, fmt.Errorf("%q is not above %q", p.GetField(), last))
		}
		last = p.GetField()
		fields[last] = true
		if p.GetIsPrimaryKey() {
			primary[p.GetPtr()] = true
		}
	}
	for i, pointer := range x.GetKey() {
		if !primary[pointer] {
			return fieldpath.InAt("key", i, fmt.Errorf("%q has no projection that is marked isPrimaryKey", pointer))
		}
	}
	for i, field := range x.GetPartitionFields() {
		if !fields[field] {
			return fieldpath.InAt("partitionFields", i, fmt.Errorf("%q is not a projection", field))
		}
	}
	if !slices.IsSorted(x.GetPartitionFields()) {
		return fieldpath.In("partitionFields", errNotSorted)
	}
	if x.GetPartitionTemplate() == nil {
		return fieldpath.In("partitionTemplate", ErrMissing)
	}
	return fieldpath.In("partitionTemplate", x.GetPartitionTemplate().validateStrict())
}

func (x *JournalSpec) validateStrict() error {
	if err := checkJournalName(x.GetName()); err != nil {
		return fieldpath.In("name", err)
	}
	if err := checkLabels(x.GetLabels(), "name", "prefix"); err != nil {
		return fieldpath.In("labels", err)
	}
	switch {
	case x.GetReplication() < 1 || x.GetReplication() > 5:
		return fieldpath.In("replication", fmt.Errorf("is %d, has to be 1 to 5", x.GetReplication()))
	case !slices.Contains([]uint32{0, 1, 2, 4}, x.GetFlags()):
		return fieldpath.In("flags", fmt.Errorf("is %d, has to be 0, 1, 2 or 4", x.GetFlags()))
	case x.GetMaxAppendRate() < 0:
		return fieldpath.In("maxAppendRate", errors.New("is negative"))
	}
	return fieldpath.In("fragment", x.GetFragment().validateStrict())
}

func (x *JournalSpec_Fragment) validateStrict() error {
	if l := x.GetLength(); l < 1<<10 || l > 1<<34 {
		return fieldpath.In("length", fmt.Errorf("is %d, has to be 1024 to 17179869184", l))
	}
	if x.GetCompressionCodec() == CompressionCodec_INVALID {
		return fieldpath.In("compressionCodec", ErrMissing)
	}
	if err := checkDuration(x.GetRefreshInterval(), time.Second, 24*time.Hour); err != nil {
		return fieldpath.In("refreshInterval", err)
	}
	if flush := x.GetFlushInterval(); flush != nil && flush.AsDuration() != 0 {
		return fieldpath.In("flushInterval", checkDuration(flush, time.Minute, 0))
	}
	return nil
}

func (x *ShardSpec) validateStrict() error {
	if err := checkToken(x.GetId(), 4); err != nil {
		return fieldpath.In("id", err)
	}
	if (x.GetRecoveryLogPrefix() == "") != (x.GetHintPrefix() == "") {
		return fieldpath.In("hintPrefix", errors.New("and recoveryLogPrefix: both or neither"))
	}
	if h := x.GetHintPrefix(); h != "" && (h[0] != '/' || path.Clean(h) != h) {
		return fieldpath.In("hintPrefix", fmt.Errorf("%q is not an absolute clean path", h))
	}
	if err := checkDuration(x.GetMaxTxnDuration(), 1, 0); err != nil {
		return fieldpath.In("maxTxnDuration", err)
	}
	return fieldpath.In("labels", checkLabels(x.GetLabels(), "id"))
}

// checkToken checks a name: least to 512 letters, digits and some signs.
func checkToken(name string, least int) error {
	return checkName(name, least, "-_+/.")
}

// checkJournalName checks a name that is a path, too.
func checkJournalName(name string) error {
	if err := checkName(name, 4, "-_+/.=%"); err != nil {
		return err
	}
	if name[0] == '/' || path.Clean(name) != name {
		return fmt.Errorf("%q is not a relative clean path", name)
	}
	return nil
}

func checkName(name string, least int, signs string) error {
	if name == "" {
		return ErrMissing
	}
	if len(name) < least || len(name) > 512 {
		return fmt.Errorf("has %d characters, %d to 512 are allowed", len(name), least)
	}
	for _, c := range name {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune(signs, c) {
			return fmt.Errorf("%q holds %q: letters, digits and %s are allowed", name, c, signs)
		}
	}
	return nil
}

// checkDuration checks that a duration is there and within bounds; most may be 0 for no bound.
func checkDuration(d *durationpb.Duration, least, most time.Duration) error {
	if d == nil {
		return ErrMissing
	}
	switch v := d.AsDuration(); {
	case most == 0 && v < least:
		return fmt.Errorf("is %v, has to be %v or more", v, least)
	case most > 0 && (v < least || v > most):
		return fmt.Errorf("is %v, has to be %v to %v", v, least, most)
	}
	return nil
}

// checkLabels checks that labels are in order, and that none has a name which is taken.
func checkLabels(set *LabelSet, taken ...string) error {
	last := ""
	for i, l := range set.GetLabels() {
		if slices.Contains(taken, l.GetName()) {
			return fieldpath.InAt("labels", i, fmt.Errorf("a label may not be named %q", l.GetName()))
		}
		key := l.GetName() + "\x00" + l.GetValue()
		if i > 0 && key <= last {
			return fieldpath.In("labels", errNotSorted)
		}
		last = key
	}
	return nil
}
