package tenancy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of the loop; each stands with its meaning in docs/metrics.md. A nil one counts nothing.
type Metrics struct {
	rounds   *prometheus.CounterVec
	networks *prometheus.GaugeVec
	reserved *prometheus.GaugeVec
	yields   prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		rounds:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "danm_tenancy_rounds_total", Help: "Rounds of the tenancy loop by result."}, []string{"result"}),
		networks: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "danm_tenancy_networks", Help: "Networks made through the API by the reason of their condition Assigned."}, []string{"reason"}),
		reserved: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "danm_tenancy_reservations", Help: "Reservations in a TenantConfig's status."}, []string{"tenantconfig"}),
		yields:   prometheus.NewCounter(prometheus.CounterOpts{Name: "danm_tenancy_yields_total", Help: "Numbers given up because somebody else came to the same one."}),
	}
	r.MustRegister(m.rounds, m.networks, m.reserved, m.yields)
	return m
}

func (m *Metrics) round(d Decision, in Input, yielded int, err error) {
	if m == nil {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.rounds.WithLabelValues(outcome).Inc()
	m.yields.Add(float64(yielded))
	m.networks.Reset()
	for _, v := range d.Verdicts {
		m.networks.WithLabelValues(string(v.Reason)).Inc()
	}
	m.reserved.Reset()
	for i := range in.Configs {
		m.reserved.WithLabelValues(in.Configs[i].Name).Set(float64(len(in.Configs[i].Status.Reserved)))
	}
}
