package status

import "github.com/prometheus/client_golang/prometheus"

// Collector gives the board to Prometheus: every metric by kind, task and binding.
type Collector struct {
	board                                *Board
	documents, bytes, checkpoints        *prometheus.Desc
	lagSeconds, lagBytes, restarts, down *prometheus.Desc
	held                                 *prometheus.Desc

	// What connectors say of their sources, if they do.
	retained, reserve, oldest, waiting, reportAge *prometheus.Desc
}

// NewCollector makes a collector of a board.
func NewCollector(b *Board) *Collector {
	task := []string{"kind", "task"}
	binding := append(append([]string{}, task...), "binding", "collection")
	desc := func(name, help string, labels []string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_"+name, help, labels, nil)
	}
	return &Collector{
		board:       b,
		documents:   desc("documents_total", "Documents that were committed, since the process started.", binding),
		bytes:       desc("bytes_total", "Bytes of the documents that were committed, since the process started.", binding),
		lagSeconds:  desc("lag_seconds", "How long the oldest waiting document has been waiting; of a capture, how far it is behind the end of the source's log, or how old its newest document was on arrival.", binding),
		lagBytes:    desc("lag_bytes", "Bytes in the log that a materialization has not committed yet; of a capture, bytes of the source's log that it has not read yet, for each binding the same.", binding),
		checkpoints: desc("checkpoints_total", "Committed checkpoints of a capture, or transactions of a materialization.", task),
		restarts:    desc("restarts_total", "Failures of a task after which it was started again.", task),
		down:        desc("task_failing", "1 while a task waits for its next start after a failure.", task),
		held:        desc("log_held_bytes", "Bytes that the log keeps beyond its retention because a materialization has not read them.", []string{"task"}),
		retained:    desc("source_retained_bytes", "Bytes of log that the source keeps for a capture.", task),
		reserve:     desc("source_reserve_bytes", "Bytes that the source may still write before it gives up the log that it keeps for a capture.", task),
		oldest:      desc("source_oldest_transaction_seconds", "How long the oldest transaction that keeps the source from forgetting its log has been open.", task),
		waiting:     desc("source_waiting", "1 while the connector says that a capture is stuck.", task),
		reportAge:   desc("source_report_age_seconds", "How long ago the connector said the above.", task),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.documents, c.bytes, c.lagSeconds, c.lagBytes, c.checkpoints, c.restarts, c.down, c.held, c.retained, c.reserve, c.oldest, c.waiting, c.reportAge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	c.board.mu.Lock()
	held := c.board.held
	c.board.mu.Unlock()
	for task, bytes := range held {
		ch <- prometheus.MustNewConstMetric(c.held, prometheus.GaugeValue, float64(bytes), task)
	}
	for _, t := range c.board.Snapshot() {
		labels := []string{string(t.Kind), t.Name}
		ch <- prometheus.MustNewConstMetric(c.checkpoints, prometheus.CounterValue, float64(t.Checkpoints), labels...)
		ch <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(t.Restarts), labels...)
		failing := 0.0
		if t.State == Failing {
			failing = 1
		}
		ch <- prometheus.MustNewConstMetric(c.down, prometheus.GaugeValue, failing, labels...)
		c.source(ch, &t, labels)
		for _, b := range t.Bindings {
			of := append(append([]string{}, labels...), b.Name, b.Collection)
			ch <- prometheus.MustNewConstMetric(c.documents, prometheus.CounterValue, float64(b.Documents), of...)
			ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(b.Bytes), of...)
			ch <- prometheus.MustNewConstMetric(c.lagSeconds, prometheus.GaugeValue, b.LagSeconds, of...)
			ch <- prometheus.MustNewConstMetric(c.lagBytes, prometheus.GaugeValue, float64(b.LagBytes), of...)
		}
	}
}

// source gives what the connector said of its source; what it did not say is absent.
func (c *Collector) source(ch chan<- prometheus.Metric, t *TaskRow, labels []string) {
	s := t.Source
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(c.reportAge, c.board.now().Sub(s.At).Seconds())
	waiting := 0.0
	if s.Phase == stuck {
		waiting = 1
	}
	gauge(c.waiting, waiting)
	if s.RetainedBytes != nil {
		gauge(c.retained, float64(*s.RetainedBytes))
		oldest := 0.0
		if s.OldestSeconds != nil {
			oldest = *s.OldestSeconds
		}
		gauge(c.oldest, oldest)
	}
	if s.ReserveBytes != nil {
		gauge(c.reserve, float64(*s.ReserveBytes))
	}
}
