package blocks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the loop; each stands with its meaning in docs/metrics.md. A nil one counts nothing.
type Metrics struct {
	rounds   *prometheus.CounterVec
	seconds  prometheus.Histogram
	writes   *prometheus.CounterVec
	used     *prometheus.GaugeVec
	capacity *prometheus.GaugeVec
	free     *prometheus.GaugeVec
	blocks   *prometheus.GaugeVec
	lost     prometheus.Gauge
	unclear  prometheus.Gauge
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		rounds:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "danm_address_rounds_total", Help: "Rounds of the loop of addresses by result."}, []string{"result"}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "danm_address_round_seconds", Help: "Time of one round of the loop of addresses.", Buckets: []float64{.001, .01, .05, .1, .5, 1, 5, 15}}),
		writes:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "danm_address_writes_total", Help: "Objects written for addresses by what was done and why."}, []string{"verb", "reason"}),
		used:     gauges("danm_address_used", "Addresses of a space that Pods have, or that are kept for them.", "space"),
		capacity: gauges("danm_address_capacity", "Addresses of a space that may be chosen dynamically.", "space"),
		free:     gauges("danm_address_free_blocks", "Blocks of a space that nobody has claimed.", "space"),
		blocks:   gauges("danm_address_blocks", "IPBlocks by whose they are: node, controller, single, parked, root.", "owner"),
		lost:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "danm_address_lost_nodes", Help: "Nodes that are lost and whose blocks wait for their lease to pass."}),
		unclear:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "danm_address_unclear_spaces", Help: "Spaces in which blocks of several sizes stand."}),
	}
	r.MustRegister(m.rounds, m.seconds, m.writes, m.used, m.capacity, m.free, m.blocks, m.lost, m.unclear)
	return m
}

func (m *Metrics) wrote(a *Action) {
	if m != nil {
		m.writes.WithLabelValues(string(a.Verb), a.Why).Inc()
	}
}

func (m *Metrics) round(d Decision, took time.Duration, err error) {
	if m == nil {
		return
	}
	outcome := "ok"
	switch {
	case err != nil && expected(err):
		outcome = "again"
	case err != nil:
		outcome = "failed"
	}
	m.rounds.WithLabelValues(outcome).Inc()
	m.seconds.Observe(took.Seconds())
	if d.Report.Blocks == nil {
		return // nothing was read
	}
	m.used.Reset()
	m.capacity.Reset()
	m.free.Reset()
	for _, s := range d.Report.Spaces {
		name := s.Space.String()
		m.used.WithLabelValues(name).Set(float64(s.Used))
		m.capacity.WithLabelValues(name).Set(float64(s.Capacity))
		m.free.WithLabelValues(name).Set(float64(s.Free))
	}
	for _, owner := range []string{"node", "controller", "single", "parked", "root"} {
		m.blocks.WithLabelValues(owner).Set(float64(d.Report.Blocks[owner]))
	}
	m.lost.Set(float64(d.Report.Lost))
	m.unclear.Set(float64(d.Report.Unclear))
}
