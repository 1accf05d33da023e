//go:build linux

// Command bench measures the budgets of the design and prints one line each:
//
//	BENCH <name> ours=<v> ref=<v> ratio=<r> budget=<b> ok|OVER
//
// Each measurement is paired with a floor program or with the reference plugins, in turns in the same run, in namespaces of
// its own; medians are compared. It exits with 1 if a row is over its budget or could not be measured. It does not judge
// whether results are right; tests do.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"danm.io/danm/test/lab"
)

type options struct {
	bin   string // our binaries
	cache string // the floor and reference programs
	only  *regexp.Regexp
	n     int // pairs a measurement
}

func main() {
	ctrl.SetLogger(logr.Discard())
	bin := flag.String("bin", "bin", "directory of our binaries")
	only := flag.String("only", "", "regular expression of the groups to run")
	n := flag.Int("n", 60, "pairs a measurement")
	child := flag.String("child", "", "internal: measure one thing in this process")
	flag.Parse()
	if *child != "" {
		os.Exit(runChild(*child))
	}
	re, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	os.Exit(run(options{bin: *bin, only: re, n: *n}))
}

func run(o options) int {
	var err error
	if o.cache, err = prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 2
	}
	code, done, err := lab.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if done {
		return code
	}
	if err := measure(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

var errOver = errors.New("over budget, see above")

func measure(o options) error {
	r := &report{out: os.Stdout}
	for _, g := range []struct {
		name string
		run  func(options, *report) error
	}{
		{"shim", shimRows}, {"add", addRows}, {"functions", functionRows}, {"add-vf", addFunctionRows}, {"agent", agentRows}, {"noop", noopRows}, {"ipam", ipamRows}, {"render", renderRows}, {"documents", documentRows}, {"plan", planRows}, {"apply", applyRows}, {"drift", driftRows}, {"cluster-node", onCluster(oneNodeRows)}, {"cluster-fleet", onCluster(manyNodeRows)}, {"cluster-scale", onCluster(scaleRows)}, {"ipam-shim", ipamShimRows}, {"ipam-million", millionRows}, {"cluster-ipam", onCluster(singleRows)},
	} {
		if !o.only.MatchString(g.name) {
			continue
		}
		if err := g.run(o, r); err != nil {
			fmt.Fprintf(os.Stdout, "BENCH %s could not be measured: %v OVER\n", g.name, err)
			r.over = true
		}
	}
	if r.over {
		return errOver
	}
	return nil
}
