package sync

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"danm.io/danm/reconcile/publish"
	"danm.io/danm/reconcile/status"
)

// Metrics of the loop; each stands with its meaning in docs/metrics.md. A nil one counts nothing.
type Metrics struct {
	fetches      *prometheus.CounterVec
	fetchSeconds *prometheus.HistogramVec
	renders      *prometheus.CounterVec
	renderTime   *prometheus.HistogramVec
	nodes        *prometheus.GaugeVec
	wave         *prometheus.GaugeVec
	quarantined  *prometheus.GaugeVec
	late         *prometheus.GaugeVec
	writes       *prometheus.CounterVec
	ready        *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	histograms := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 15, 60}}, []string{"bundle"})
	}
	m := &Metrics{
		fetches:      counters("danm_bundle_fetches_total", "Looks at a bundle's source by result, ok or failed.", "bundle", "result"),
		fetchSeconds: histograms("danm_bundle_fetch_seconds", "Time of one look at a bundle's source."),
		renders:      counters("danm_bundle_renders_total", "Renderings of a bundle by result, ok or failed.", "bundle", "result"),
		renderTime:   histograms("danm_bundle_render_seconds", "Time to validate and render a bundle."),
		nodes:        gauges("danm_bundle_nodes", "Nodes of a bundle: planned, and confirmed.", "bundle", "state"),
		wave:         gauges("danm_bundle_wave", "Wave of the rollout under way, 0 if none is.", "bundle"),
		quarantined:  gauges("danm_bundle_quarantined", "Quarantined plans of a bundle.", "bundle"),
		late:         gauges("danm_bundle_late_nodes", "Nodes that did not confirm in time.", "bundle"),
		writes:       counters("danm_bundle_writes_total", "Node plans and objects written.", "bundle"),
		ready:        gauges("danm_bundle_ready", "1 if the bundle's newest revision is on its nodes, or it is suspended.", "bundle"),
	}
	r.MustRegister(m.fetches, m.fetchSeconds, m.renders, m.renderTime, m.nodes, m.wave, m.quarantined, m.late, m.writes, m.ready)
	return m
}

// count makes both series at once: of one that begins at 1 nobody sees the first increase.
func count(v *prometheus.CounterVec, bundle string, err error) {
	ok, failed := v.WithLabelValues(bundle, "ok"), v.WithLabelValues(bundle, "failed")
	if err != nil {
		failed.Inc()
		return
	}
	ok.Inc()
}

func (m *Metrics) fetched(bundle string, err error, took time.Duration) {
	if m != nil {
		count(m.fetches, bundle, err)
		m.fetchSeconds.WithLabelValues(bundle).Observe(took.Seconds())
	}
}

func (m *Metrics) rendered(bundle string, err error, took time.Duration) {
	if m != nil {
		count(m.renders, bundle, err)
		m.renderTime.WithLabelValues(bundle).Observe(took.Seconds())
	}
}

func (m *Metrics) published(bundle string, n int) {
	if m != nil {
		m.writes.WithLabelValues(bundle).Add(float64(n))
	}
}

func (m *Metrics) rollout(bundle string, d publish.Decision) {
	if m == nil {
		return
	}
	m.nodes.WithLabelValues(bundle, "planned").Set(float64(d.Planned))
	m.nodes.WithLabelValues(bundle, "confirmed").Set(float64(d.Confirmed))
	wave := 0
	if d.Phase != publish.Complete {
		wave = d.Rollout.Wave
	}
	m.wave.WithLabelValues(bundle).Set(float64(wave))
	m.quarantined.WithLabelValues(bundle).Set(float64(len(d.Quarantined)))
	m.late.WithLabelValues(bundle).Set(float64(len(d.Rollout.Late)))
}

func (m *Metrics) concluded(bundle string, o status.Outcome) {
	if m == nil {
		return
	}
	ready := 0.0
	if o.Failure == nil && o.Progress == "" {
		ready = 1
	}
	m.ready.WithLabelValues(bundle).Set(ready)
}

func (m *Metrics) forget(bundle string) {
	if m == nil {
		return
	}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.fetches, m.fetchSeconds, m.renders, m.renderTime, m.nodes, m.wave, m.quarantined, m.late, m.writes, m.ready} {
		v.DeletePartialMatch(prometheus.Labels{"bundle": bundle})
	}
}
