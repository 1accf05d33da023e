//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// report prints rows and remembers whether one was over.
type report struct {
	out  io.Writer
	over bool
}

// row prints one measurement. ref is "-" where there is nothing beside it.
func (r *report) row(name, ours, ref string, ratio float64, budget string, ok bool) {
	verdict := "ok"
	if !ok {
		verdict, r.over = "OVER", true
	}
	rs := "-"
	if !math.IsNaN(ratio) {
		rs = fmt.Sprintf("%.2f", ratio)
	}
	fmt.Fprintf(r.out, "BENCH %s ours=%s ref=%s ratio=%s budget=%s %s\n", name, ours, ref, rs, budget, verdict)
}

// atMost is a row whose ratio ours/ref has a limit.
func (r *report) atMost(name string, ours, ref time.Duration, limit float64) {
	ratio := float64(ours) / float64(ref)
	r.row(name, show(ours), show(ref), ratio, fmt.Sprintf("<=%.2fx", limit), ratio <= limit)
}

// below is a row with an absolute limit.
func (r *report) below(name string, ours, limit time.Duration) {
	r.row(name, show(ours), "-", math.NaN(), "<="+limit.String(), ours <= limit)
}

func show(d time.Duration) string { return fmt.Sprintf("%.3fms", float64(d.Nanoseconds())/1e6) }

// quantile is the q-quantile of some durations, 0 < q ≤ 1; 0.5 is the median.
func quantile(ds []time.Duration, q float64) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	return s[int(math.Ceil(q*float64(len(s))))-1]
}

// timed measures one call.
func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}

// inTurns calls every function n times, in turns, so that what else the machine does hits all alike, and returns the
// medians. A function says itself what of it counts.
func inTurns(n int, fs ...func() (time.Duration, error)) ([]time.Duration, error) {
	times := make([][]time.Duration, len(fs))
	for i := range n + 2 { // the first two warm up
		for k := range fs {
			d, err := fs[(k+i)%len(fs)]()
			if err != nil {
				return nil, err
			}
			if i >= 2 {
				times[(k+i)%len(fs)] = append(times[(k+i)%len(fs)], d)
			}
		}
	}
	medians := make([]time.Duration, len(fs))
	for i, ds := range times {
		medians[i] = quantile(ds, 0.5)
	}
	return medians, nil
}
