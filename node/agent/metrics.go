package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"danm.io/danm/cni/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the agent's; each stands with its meaning in docs/metrics.md, held there by a test.
type metrics struct {
	registry      *prometheus.Registry
	guardUp       prometheus.Gauge
	stateRefused  prometheus.Gauge
	ready         prometheus.Gauge
	confirmedInfo *prometheus.GaugeVec
	plans         *prometheus.CounterVec
	verdicts      *prometheus.CounterVec
	probeFailures *prometheus.CounterVec
	repairs       prometheus.Counter
	repairSeconds prometheus.Histogram
	fights        prometheus.Gauge
	mended        prometheus.Counter
	blocked       prometheus.Gauge
	held          prometheus.Gauge
	cniCalls      *prometheus.CounterVec
	cniSeconds    *prometheus.HistogramVec
	compared      *prometheus.GaugeVec
	reclaimed     *prometheus.CounterVec
	addressProbes *prometheus.CounterVec
	registrations *prometheus.CounterVec
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		registry:     prometheus.NewRegistry(),
		guardUp:      gauge("danm_guard_up", "1 if the guard answered in the last round."),
		stateRefused: gauge("danm_state_refused", "1 if the newest state file is damaged or too new and an older one is used."),
		ready:        gauge("danm_agent_ready", "1 if Pods can be attached."),
		confirmedInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "danm_plan_confirmed_info",
			Help: "1, labelled with the state Pods are attached by."}, []string{"bundle", "revision", "digest"}),
		plans:         counters("danm_plans_total", "Submitted plans by result.", "result"),
		verdicts:      counters("danm_plan_verdicts_total", "Reverted plans by verdict.", "verdict"),
		probeFailures: counters("danm_probe_failures_total", "Failures of counting probes in a window.", "probe"),
		repairs:       prometheus.NewCounter(prometheus.CounterOpts{Name: "danm_drift_repairs_total", Help: "Repaired objects."}),
		repairSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "danm_drift_repair_seconds",
			Help: "Time from waking to repaired.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 5}}),
		mended: prometheus.NewCounter(prometheus.CounterOpts{Name: "danm_attachments_mended_total",
			Help: "Interfaces of attached Pods made again after their host link was."}),
		fights:  gauge("danm_drift_fights", "Objects left alone because another program keeps changing them."),
		blocked: gauge("danm_plan_blocked_objects", "Declared objects that something foreign stands in the way of."),
		held:    gauge("danm_plan_held_steps", "Steps that wait until Pods have left."),
		cniCalls: counters("danm_cni_calls_total", "Answered calls of the CNI binary by the error's CNI code, 0 for success.",
			"command", "code"),
		cniSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "danm_cni_call_seconds",
			Help: "Time from a CNI call's arrival to its answer.", Buckets: prometheus.ExponentialBuckets(.001, 2, 15)}, []string{"command"}),
		compared: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "danm_attachments_compared",
			Help: "Sandboxes with records when the agent started, by what the kernel had of them: same, differs, gone."}, []string{"result"}),
		reclaimed:     counters("danm_ipam_reclaimed_total", "Records freed without a DEL, because nobody needed them any more.", "reason"),
		addressProbes: counters("danm_ipam_address_probes_total", "Addresses asked for on the network before a Pod got them, by result.", "result"),
		registrations: counters("danm_device_plugin_registrations_total", "Registrations of a resource at the kubelet, by result.", "resource", "result"),
	}
	m.registry.MustRegister(m.compared, m.guardUp, m.stateRefused, m.ready, m.confirmedInfo, m.plans, m.verdicts, m.probeFailures,
		m.repairs, m.repairSeconds, m.fights, m.mended, m.blocked, m.held, m.cniCalls, m.cniSeconds, m.reclaimed, m.addressProbes, m.registrations,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, verdict := range []string{"guilty", "inconclusive"} { // of a series that begins at 1 nobody sees the first increase
		m.verdicts.WithLabelValues(verdict)
	}
	for _, result := range []string{server.ProbeFree, server.ProbeInUse, server.ProbeFailed} {
		m.addressProbes.WithLabelValues(result)
	}
	for _, reason := range []string{reasonSandbox, reasonPod, reasonReboot, "gc"} {
		m.reclaimed.WithLabelValues(reason)
	}
	return m
}

// notReady says why no Pod can be attached, "" if it can. A guard that is away does not matter.
func (a *Agent) notReady() string {
	switch {
	case a.confirmed.Load() == nil:
		if p := a.problem.Load(); p != nil && *p != "" {
			return "no plan is confirmed yet: " + *p
		}
		return "no plan is confirmed yet"
	case a.opts.Attachments != nil && !a.serving.Load():
		return "the CNI socket is not served yet"
	}
	return ""
}

// serveHTTP serves /metrics, /healthz and /readyz until ctx ends; it returns once it listens.
func (a *Agent) serveHTTP(ctx context.Context) error {
	if a.opts.MetricsAddr == "" || a.opts.MetricsAddr == "0" {
		return nil
	}
	l, err := net.Listen("tcp", a.opts.MetricsAddr)
	if err != nil {
		return fmt.Errorf("listen for metrics: %w", err)
	}
	srv := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			a.log.Error("metrics are no longer served", "reason", err)
		}
	}()
	return nil
}

func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	metrics := promhttp.HandlerFor(a.m.registry, promhttp.HandlerOpts{})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		a.m.ready.Set(boolean(a.notReady() == ""))
		metrics.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := a.notReady(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
