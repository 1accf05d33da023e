//go:build linux

package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const shimOps = 600 // acquisitions a row and turn

// ipamShimRows give addresses through the CNI binary called as another plugin's IPAM, one process each, and beside it, in
// turns, host-local's, and those of a program that only prints a line. Releasing is not measured.
func ipamShimRows(o options, r *report) error {
	n, err := startNode(o)
	if err != nil {
		return err
	}
	defer n.stop()
	home, err := n.pod(0)
	if err != nil {
		return err
	}
	home.stdin = map[string][]byte{
		"danm":       fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"other","type":"macvlan","ipam":{"type":"danm","clusterNetwork":"bench","socket":%q}}`, n.socket()),
		"host-local": fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"ref","type":"macvlan","ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.78.0.0/16"}]]}}`, filepath.Join(n.dir, "host-local")),
	}
	home.plugins["host-local"], home.plugins["hello"] = n.o.cache, n.o.cache
	var count atomic.Int64
	run := func(plugin string, callers int) (perSecond float64, p99 time.Duration, err error) {
		ids := make([]string, shimOps)
		for i := range ids {
			ids[i] = fmt.Sprintf("shim-%d", count.Add(1))
		}
		took := make([]time.Duration, shimOps)
		start := time.Now()
		err = each(callers, shimOps, func(i int) (err error) {
			p := *home
			p.id = ids[i]
			took[i], err = p.callHere("ADD", plugin)
			return err
		})
		perSecond = shimOps / time.Since(start).Seconds()
		if plugin == "hello" {
			return perSecond, quantile(took, 0.99), err
		}
		derr := each(16, shimOps, func(i int) error {
			p := *home
			p.id = ids[i]
			_, err := p.callHere("DEL", plugin)
			return err
		})
		return perSecond, quantile(took, 0.99), errors.Join(err, derr)
	}
	for _, callers := range []int{8, 32, 128} {
		var ours, refs, starts []float64
		var p99s, ref99s, start99s []time.Duration
		for range 3 {
			rate, p99, err := run("danm", callers)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, n.logs())
			}
			ref, ref99, err := run("host-local", callers)
			if err != nil {
				return err
			}
			start, start99, err := run("hello", callers)
			if err != nil {
				return err
			}
			ours, refs, starts = append(ours, rate), append(refs, ref), append(starts, start)
			p99s, ref99s, start99s = append(p99s, p99), append(ref99s, ref99), append(start99s, start99)
		}
		us, them := middle(ours), middle(refs)
		r.row(fmt.Sprintf("ipam-shim-%d-at-once", callers), fmt.Sprintf("%.0f/s", us), fmt.Sprintf("%.0f/s", them), us/them, ">=600/s", us >= 600)
		floor := middle(starts) // no plugin can do more on this machine
		r.row(fmt.Sprintf("ipam-shim-%d-at-once-vs-hello", callers), fmt.Sprintf("%.0f/s", us), fmt.Sprintf("%.0f/s", floor), us/floor, "-", true)
		if callers == 128 {
			mine, theirs := quantile(p99s, 0.5), quantile(ref99s, 0.5)
			r.row("ipam-shim-128-at-once-p99", show(mine), show(theirs), float64(mine)/float64(theirs), "<=250ms", mine <= 250*time.Millisecond)
			started := quantile(start99s, 0.5)
			r.row("ipam-shim-128-at-once-p99-vs-hello", show(mine), show(started), float64(mine)/float64(started), "-", true)
		}
	}
	return nil
}

// each calls f for 0..n-1 from some callers at once, and returns the first error.
func each(callers, n int, f func(int) error) error {
	var next atomic.Int64
	var first error
	var once sync.Once
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					once.Do(func() { first = err })
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
