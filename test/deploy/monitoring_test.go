package deploy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	_ "sigs.k8s.io/controller-runtime/pkg/metrics/server" // registers as the controller does
	"sigs.k8s.io/yaml"
)

type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) (f ruleFile) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "deploy/monitoring/rules.yaml"))
	must(t, err)
	must(t, yaml.UnmarshalStrict(b, &f))
	return f
}

// documented are the metrics of docs/metrics.md with their labels. That it is the truth is held by the tests of node/agent and
// reconcile/sync.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	must(t, err)
	out := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`(?: \\{([^}]*)\\})?[^|]*\\|").FindAllStringSubmatch(string(b), -1) {
		labels, _, _ := strings.Cut(m[2], ":")
		out[m[1]] = strings.FieldsFunc(labels, func(r rune) bool { return r == ',' || r == ' ' })
	}
	return out
}

// problemsOf an expression: it does not parse, or names a metric or a label that does not exist.
func problemsOf(text string, known map[string][]string) (out []string, metricsUsed []string) {
	expr, err := parser.ParseExpr(text)
	if err != nil {
		return []string{err.Error()}, nil
	}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		v, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		have, ok := known[v.Name]
		if !ok {
			out = append(out, "no metric "+v.Name)
		}
		metricsUsed = append(metricsUsed, v.Name)
		for _, m := range v.LabelMatchers {
			if m.Name != labels.MetricName && !slices.Contains(have, m.Name) {
				out = append(out, v.Name+" has no label "+m.Name)
			}
		}
		return nil
	})
	return out, metricsUsed
}

// TestAlerts: each rule parses, uses metrics and labels that exist, tells people what happened on which object, and leads to a
// section of the runbook that is there; each section is of an alert.
func TestAlerts(t *testing.T) {
	known := documented(t)
	if len(known) < 20 {
		t.Fatalf("control: %d metrics are documented", len(known))
	}
	runbook, err := os.ReadFile(filepath.Join(root, "docs/operations.md"))
	must(t, err)
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (Danm[A-Za-z]+)$`).FindAllStringSubmatch(string(runbook), -1) {
		headings[strings.ToLower(m[1])] = true
	}
	seen, used := map[string]bool{}, map[string]bool{}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			problems, names := problemsOf(r.Expr, known)
			for _, p := range problems {
				t.Errorf("%s: %s", r.Alert, p)
			}
			var about []string
			for _, n := range names {
				used[n] = true
				about = append(about, known[n]...)
			}
			if !strings.HasPrefix(r.Alert, "Danm") || seen[r.Alert] || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s says too little, or twice", r.Alert)
			}
			seen[r.Alert] = true
			if s := r.Labels["severity"]; s != "warning" && s != "critical" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			for _, m := range regexp.MustCompile(`\$labels\.([a-z_]+)`).FindAllStringSubmatch(fmt.Sprint(r.Annotations), -1) {
				if m[1] != "instance" && !slices.Contains(about, m[1]) {
					t.Errorf("%s speaks of a label %s that its metrics do not have", r.Alert, m[1])
				}
			}
			file, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
			if file != "docs/operations.md" || anchor != strings.ToLower(r.Alert) || !headings[anchor] {
				t.Errorf("%s: no runbook at %s", r.Alert, r.Annotations["runbook_url"])
			}
			delete(headings, anchor)
		}
	}
	for _, wanted := range []string{"danm_bundle_late_nodes", "danm_plan_verdicts_total", "danm_bundle_quarantined", "danm_bundle_fetches_total", "leader_election_master_status", "danm_drift_fights"} {
		if !used[wanted] {
			t.Errorf("nobody is woken by %s", wanted)
		}
	}
	if len(headings) > 0 {
		t.Errorf("runbooks without an alert: %v", headings)
	}
	for _, wrong := range []string{"danm_none > 0", `danm_bundle_ready{node="x"} == 0`, "danm_bundle_ready ==", "rate(danm_bundle_ready)"} {
		if p, _ := problemsOf(wrong, known); len(p) == 0 {
			t.Errorf("control: %s passes", wrong)
		}
	}
}

// TestAlertsOfTheOperator: the manifest for the Prometheus operator has the same rules.
func TestAlertsOfTheOperator(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "deploy/monitoring/prometheusrule.yaml"))
	must(t, err)
	var m struct {
		APIVersion, Kind string
		Metadata         struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Spec ruleFile
	}
	must(t, yaml.UnmarshalStrict(b, &m))
	if m.APIVersion != "monitoring.coreos.com/v1" || m.Kind != "PrometheusRule" || fmt.Sprint(m.Spec) != fmt.Sprint(readRules(t)) {
		t.Errorf("%+v\n is not rules.yaml", m)
	}
}

// TestForeignMetric: controller-runtime has the metric of leadership under the name and label that the alert uses.
func TestForeignMetric(t *testing.T) {
	descs := make(chan *prometheus.Desc, 10_000)
	metrics.Registry.(prometheus.Collector).Describe(descs)
	close(descs)
	for d := range descs {
		if strings.Contains(d.String(), `fqName: "leader_election_master_status"`) && strings.Contains(d.String(), "variableLabels: {name}") {
			return
		}
	}
	t.Error("controller-runtime has no leader_election_master_status{name}")
}
