package status

import "github.com/prometheus/client_golang/prometheus"

// Collector gives the board to Prometheus: every metric by kind, task and binding.
type Collector struct {
	board                                *Board
	documents, bytes, checkpoints        *prometheus.Desc
	lagSeconds, lagBytes, restarts, down *prometheus.Desc
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
		lagSeconds:  desc("lag_seconds", "How long the oldest waiting document has been waiting; of a capture, how old its newest document was on arrival.", binding),
		lagBytes:    desc("lag_bytes", "Bytes in the log that a materialization has not committed yet.", binding),
		checkpoints: desc("checkpoints_total", "Committed checkpoints of a capture, or transactions of a materialization.", task),
		restarts:    desc("restarts_total", "Failures of a task after which it was started again.", task),
		down:        desc("task_failing", "1 while a task waits for its next start after a failure.", task),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.documents, c.bytes, c.lagSeconds, c.lagBytes, c.checkpoints, c.restarts, c.down} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, t := range c.board.Snapshot() {
		labels := []string{string(t.Kind), t.Name}
		ch <- prometheus.MustNewConstMetric(c.checkpoints, prometheus.CounterValue, float64(t.Checkpoints), labels...)
		ch <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(t.Restarts), labels...)
		failing := 0.0
		if t.State == Failing {
			failing = 1
		}
		ch <- prometheus.MustNewConstMetric(c.down, prometheus.GaugeValue, failing, labels...)
		for _, b := range t.Bindings {
			of := append(append([]string{}, labels...), b.Name, b.Collection)
			ch <- prometheus.MustNewConstMetric(c.documents, prometheus.CounterValue, float64(b.Documents), of...)
			ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(b.Bytes), of...)
			ch <- prometheus.MustNewConstMetric(c.lagSeconds, prometheus.GaugeValue, b.LagSeconds, of...)
			ch <- prometheus.MustNewConstMetric(c.lagBytes, prometheus.GaugeValue, float64(b.LagBytes), of...)
		}
	}
}
