//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// shimRows: the size of the plugin, and its start beside a program that only prints a line.
func shimRows(o options, r *report) error {
	shim, hello := filepath.Join(o.bin, "danm"), filepath.Join(o.cache, "hello")
	info, err := os.Stat(shim)
	if err != nil {
		return err
	}
	r.row("shim-size", fmt.Sprintf("%dB", info.Size()), "-", math.NaN(), "<=3000000B", info.Size() <= 3_000_000)
	run := func(path string, stdin string) func() (time.Duration, error) {
		return func() (time.Duration, error) {
			cmd := exec.Command(path)
			cmd.Env = []string{"CNI_COMMAND=VERSION"}
			var out bytes.Buffer
			cmd.Stdin, cmd.Stdout = bytes.NewReader([]byte(stdin)), &out
			return timed(cmd.Run)
		}
	}
	ds, err := inTurns(4*o.n, run(shim, `{"cniVersion":"1.0.0"}`), run(hello, `{"cniVersion":"1.0.0"}`))
	if err != nil {
		return err
	}
	r.atMost("shim-version-vs-hello", ds[0], ds[1], 1.3)
	return nil
}

// addRows: ADD and DEL of one macvlan beside the floor and the reference plugins; of more interfaces; of many Pods.
func addRows(o options, r *report) error {
	n, err := startNode(o)
	if err != nil {
		return err
	}
	defer n.stop()
	f, err := newFloor(n)
	if err != nil {
		return err
	}
	defer f.close()
	var dels [2][]time.Duration
	attach := func(plugin string, which int) func() (time.Duration, error) {
		return func() (time.Duration, error) { return n.addAndDelete(plugin, 1, &dels[which]) }
	}
	ds, err := inTurns(o.n, attach("danm", 0), f.add, attach("macvlan", 1))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.logs())
	}
	r.atMost("add-macvlan-vs-floor", ds[0], ds[1], 1.6)
	r.atMost("add-macvlan-vs-reference", ds[0], ds[2], 1/2.5)
	r.atMost("del-macvlan-vs-reference", quantile(dels[0], 0.5), quantile(dels[1], 0.5), 1.1) // both wait for the kernel's grace periods
	var none []time.Duration
	several := func(k int) func() (time.Duration, error) {
		return func() (time.Duration, error) { return n.addAndDelete("danm", k, &none) }
	}
	if ds, err = inTurns(o.n/2, several(2), several(8)); err != nil {
		return fmt.Errorf("%w\n%s", err, n.logs())
	}
	r.below("add-2-interfaces", ds[0], 8*time.Millisecond)
	r.below("add-8-interfaces-each-further", (ds[1]-ds[0])/6, time.Millisecond)
	const pods, each = 40, 8
	var p99s []time.Duration
	for range 3 {
		times, err := n.crowd(pods, each)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, n.logs())
		}
		p99s = append(p99s, quantile(times, 0.99))
	}
	r.below(fmt.Sprintf("add-%d-pods-of-%d-at-once-p99", pods, each), quantile(p99s, 0.5), 400*time.Millisecond)
	return nil
}

// addAndDelete attaches and detaches a fresh Pod; the ADD counts, the DEL is noted.
func (n *node) addAndDelete(plugin string, interfaces int, dels *[]time.Duration) (time.Duration, error) {
	p, err := n.pod(interfaces)
	if err != nil {
		return 0, err
	}
	add, err := p.call("ADD", plugin)
	if err != nil {
		return 0, err
	}
	del, err := p.call("DEL", plugin)
	*dels = append(*dels, del)
	return add, errors.Join(err, p.remove())
}

// crowd attaches many Pods at once and returns how long each took.
func (n *node) crowd(pods, interfaces int) ([]time.Duration, error) {
	all := make([]*pod, pods)
	for i := range all {
		p, err := n.pod(interfaces)
		if err != nil {
			return nil, err
		}
		all[i] = p
	}
	times, errs := make([]time.Duration, pods), make([]error, pods)
	var wg sync.WaitGroup
	for i, p := range all {
		wg.Go(func() { times[i], errs[i] = p.call("ADD", "danm") })
	}
	wg.Wait()
	for _, p := range all {
		_, err := p.call("DEL", "danm")
		errs = append(errs, err, p.remove())
	}
	return times, errors.Join(errs...)
}
