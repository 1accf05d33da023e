package blocks

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsAreDocumented: docs/metrics.md lists every metric of the loop with its labels and help text, and nothing else in its section.
func TestMetricsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## danm-controller: addresses\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(danm_[a-z_]+)`( \\{[^}]*\\})?(?: \\(histogram\\))? \\| (.+) \\|$").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = strings.Trim(m[2], " {}") + ": " + m[3]
	}
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	m.round(Decision{}, time.Second, errors.New("x"))
	m.wrote(&Action{})
	descs := make(chan *prometheus.Desc, 100)
	registry.Describe(descs)
	close(descs)
	exported := map[string]string{}
	form := regexp.MustCompile(`fqName: "(danm_[a-z_]+)", help: "([^"]+)", .*variableLabels: \{([^}]*)\}`)
	for d := range descs {
		if f := form.FindStringSubmatch(d.String()); f != nil {
			exported[f[1]] = strings.ReplaceAll(f[3], ",", ", ") + ": " + f[2]
		}
	}
	if len(exported) != 9 || fmt.Sprint(exported) != fmt.Sprint(documented) {
		t.Errorf("docs/metrics.md says\n%v\nthe loop exports\n%v", documented, exported)
	}
}
