package sync

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/publish"
	"danm.io/danm/reconcile/status"
)

// TestMetricsAreDocumented: docs/metrics.md lists every metric of the loop with its labels and its help text, and nothing else.
func TestMetricsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## danm-controller\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(danm_[a-z_]+)` \\{([^}]*)\\}[^|]*\\| (.+) \\|$").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = m[2] + ": " + m[3]
	}
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	m.fetched("b", nil, time.Second)
	descs := make(chan *prometheus.Desc, 1000)
	registry.Describe(descs)
	close(descs)
	exported := map[string]string{}
	form := regexp.MustCompile(`fqName: "(danm_[a-z_]+)", help: "([^"]+)", .*constLabels: \{\}, variableLabels: \{([^}]*)\}`)
	for d := range descs {
		if f := form.FindStringSubmatch(d.String()); f != nil {
			exported[f[1]] = strings.ReplaceAll(f[3], ",", ", ") + ": " + f[2]
		}
	}
	if len(exported) < 8 || fmt.Sprint(exported) != fmt.Sprint(documented) {
		t.Errorf("docs/metrics.md says\n%v\nthe loop exports\n%v", documented, exported)
	}
}

// TestMetricsSay: a bundle's series are there from its first round, say how it stands, and go with it.
func TestMetricsSay(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	m.fetched("b", errors.New("x"), time.Second)
	if testutil.ToFloat64(m.fetches.WithLabelValues("b", "failed")) != 1 || testutil.CollectAndCount(m.fetches) != 2 {
		t.Error("both results of a fetch are not there at once")
	}
	m.fetched("b", nil, time.Second)
	if testutil.ToFloat64(m.fetches.WithLabelValues("b", "ok")) != 1 || testutil.ToFloat64(m.fetches.WithLabelValues("b", "failed")) != 1 {
		t.Error("a good fetch is not counted as one")
	}
	for _, c := range []struct {
		outcome status.Outcome
		want    float64
	}{
		{status.Outcome{Reason: "RolledOut"}, 1},
		{status.Outcome{Progress: "RollingOut"}, 0},
		{status.Outcome{Failure: &fail.Failure{Reason: "BundleInvalid", Err: errors.New("x")}}, 0},
		{status.Outcome{Reason: "Suspended"}, 1},
	} {
		m.concluded("b", c.outcome)
		if got := testutil.ToFloat64(m.ready.WithLabelValues("b")); got != c.want {
			t.Errorf("%+v: ready %v", c.outcome, got)
		}
	}
	m.rollout("b", publish.Decision{Planned: 3, Confirmed: 2})
	m.forget("b")
	if n := testutil.CollectAndCount(m.ready) + testutil.CollectAndCount(m.nodes) + testutil.CollectAndCount(m.fetches); n != 0 {
		t.Errorf("%d series outlive their bundle", n)
	}
	(*Metrics)(nil).concluded("b", status.Outcome{})
}
