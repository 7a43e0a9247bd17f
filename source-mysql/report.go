package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// progress is how far the stream is, for those who watch it.
type progress struct {
	at     place     // behind what was delivered, or passed over
	commit time.Time // of the last transaction
}

// Report implements cdc.Reporter.
func (d *driver) Report(ctx context.Context) (cdc.Report, error) {
	r := cdc.NewReport()
	err := d.conns.with(ctx, func(s *session) error {
		end, err := d.end(ctx, s)
		if err != nil {
			return err
		}
		r.LogEnd = end.String()
		row, err := s.row(ctx, "SELECT UNIX_TIMESTAMP(NOW(6))")
		if err != nil || len(row) == 0 {
			return fmt.Errorf("asking for the server's time: %w", err)
		}
		seconds, err := strconv.ParseFloat(row[0], 64)
		if err != nil {
			return fmt.Errorf("reading the server's time: %w", err)
		}
		r.Now = time.UnixMicro(int64(seconds * 1e6))
		v, err := s.variables(ctx, "binlog_expire_logs_seconds", "expire_logs_days")
		if err != nil {
			return err
		}
		kept := keptFor(v)
		if r.LogStatus = "kept for ever"; kept > 0 {
			r.LogStatus = "kept for " + kept.String()
		}
		return d.reportStream(ctx, s, &r, end, kept)
	})
	return r, err
}

// reportStream adds how far the stream is, if one is open.
func (d *driver) reportStream(ctx context.Context, s *session, r *cdc.Report, end place, kept time.Duration) error {
	live := d.live.Load()
	if live == nil {
		return nil
	}
	r.Processes = "stream " + strconv.FormatUint(uint64(live.s.id), 10)
	live.done.mu.Lock()
	seen := live.done.progress
	live.done.mu.Unlock()
	if seen.at.file == "" {
		return nil
	}
	r.Received = seen.at.String()
	if r.AtEnd = !seen.at.before(end); r.AtEnd {
		r.LagBytes = 0
		return nil
	}
	d.warnOfRetention(seen, r.Now, kept)
	files, err := s.texts(ctx, "SHOW BINARY LOGS")
	if err != nil {
		return d.statusAdvice(err)
	}
	r.LagBytes, err = between(files, seen.at, end)
	return err
}

// between counts the bytes of the log between two places.
func between(files [][]string, from, to place) (int64, error) {
	if from.file == to.file {
		return int64(to.at - from.at), nil //nolint:gosec // sizes of files
	}
	sum := int64(0)
	for _, f := range files {
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return -1, fmt.Errorf("reading the size of file %s: %w", f[0], err)
		}
		switch p := (place{file: f[0]}).number(); {
		case p == from.number():
			sum += n - int64(from.at) //nolint:gosec // sizes of files
		case p == to.number():
			sum += int64(to.at) //nolint:gosec // sizes of files
		case p > from.number() && p < to.number():
			sum += n
		}
	}
	return sum, nil
}

// warnOfRetention says when the server is about to throw away what is not captured yet.
func (d *driver) warnOfRetention(seen progress, now time.Time, kept time.Duration) {
	if kept <= 0 || seen.commit.IsZero() {
		return
	}
	const remind = 5 * time.Minute
	behind := now.Sub(seen.commit)
	last := d.warned.Load()
	if behind < kept/2 || last != 0 && time.Since(time.Unix(last, 0)) < remind || !d.warned.CompareAndSwap(last, time.Now().Unix()) {
		return
	}
	d.log.WithField("behindSeconds", int64(behind.Seconds())).WithField("keptSeconds", int64(kept.Seconds())).
		Warnf("the capture is %s behind, and the server throws its log away after %s: then everything has to be captured anew. "+
			"Have an administrator raise binlog_expire_logs_seconds, and see to it that what takes the capture's output keeps up.", behind.Round(time.Second), kept)
}

// Explain implements cdc.Waiter.
func (d *driver) Explain(ctx context.Context, _ cdc.TxnID) string {
	text := ""
	err := d.conns.with(ctx, func(s *session) error {
		row, err := s.row(ctx, "SELECT ID, USER, TIME, COUNT(*) OVER () FROM information_schema.PROCESSLIST WHERE STATE LIKE '%semi-sync%ACK%' ORDER BY TIME DESC LIMIT 1")
		if err != nil {
			return err
		}
		if len(row) == 4 {
			text = fmt.Sprintf("%s commits that a semi-synchronous replica has to acknowledge: the longest is process %s of user %s, since %s seconds", row[3], row[0], row[1], row[2])
			return nil
		}
		if !d.byFile.Load() || d.server.mariadb {
			return nil
		}
		row, err = s.row(ctx, "SELECT t.trx_mysql_thread_id, COALESCE(p.USER, '?'), TIMESTAMPDIFF(SECOND, t.trx_started, NOW()) FROM information_schema.INNODB_TRX t "+
			"LEFT JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id WHERE t.trx_id < 281474976710656 ORDER BY t.trx_started LIMIT 1")
		if len(row) == 3 {
			text = fmt.Sprintf("transactions that were open when it began: the oldest is of process %s of user %s, since %s seconds", row[0], row[1], row[2])
		}
		return err
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		d.log.WithField("err", err).Debug("could not find out what a transaction waits for")
	}
	return text
}
