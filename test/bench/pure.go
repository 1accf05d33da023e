//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// peakMemory is VmHWM of proc(5), in KiB.
func peakMemory() int {
	status, _ := os.ReadFile("/proc/self/status")
	kib := math.MaxInt
	for line := range bytes.Lines(status) {
		if v, ok := strings.CutPrefix(string(line), "VmHWM:"); ok {
			_, _ = fmt.Sscan(v, &kib)
		}
	}
	return kib
}

// planRows plans 1,000 links from nothing, and finds nothing to do once they are there.
func planRows(o options, r *report) error {
	var want plan.Desired
	seen := plan.Observed{Links: []plan.ObservedLink{{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 9000, Up: true}}}}
	want.Plan.Links = append(want.Plan.Links, model.Link{Name: "eth0", Kind: model.Physical, Up: true})
	for i := range 1000 {
		l := model.Link{Name: fmt.Sprintf("eth0.%d", i+1), Kind: model.VLAN, Parent: "eth0", VLANID: uint16(i + 1)}
		if i%2 == 0 {
			l = model.Link{Name: fmt.Sprintf("vx_%d", i), Kind: model.VXLAN, Parent: "eth0",
				VXLAN: &model.VXLANOptions{VNI: uint32(i + 1), Port: 4789, Group: netip.MustParseAddr("239.1.1.1")}}
		}
		want.Plan.Links = append(want.Plan.Links, l)
	}
	var steps, left int
	ds, err := inTurns(min(o.n, 20), func() (time.Duration, error) {
		return timed(func() error { steps = len(plan.Diff(want, seen).Steps); return nil })
	})
	if err != nil {
		return err
	}
	if steps < 1000 {
		return fmt.Errorf("plan of 1,000 links has %d steps", steps)
	}
	r.below("plan-1000-links", ds[0], 50*time.Millisecond)
	p := plan.Diff(want, seen)
	after := plan.Simulate(seen, p.Steps)
	after.Owned = append(after.Owned, p.Claims...)
	left = len(plan.Diff(want, after).Steps)
	r.row("plan-1000-links-again", fmt.Sprintf("%dsteps", left), "-", math.NaN(), "0steps", left == 0)
	return nil
}

// ipamRows measure IPAM in process, with many callers and a journal on disk.
func ipamRows(o options, r *report) error {
	dir, err := os.MkdirTemp(o.cache, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := ipam.Open(dir+"/ipam", ipam.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	const callers, total = 128, 40_000
	n := benchNetwork()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1); i <= total; i = next.Add(1) {
				in := ipam.Intent{Sandbox: fmt.Sprintf("%064d", i), PodUID: fmt.Sprintf("%036d", i), Namespace: "bench", Pod: "pod",
					Wants:  []ipam.Want{{IfName: "eth0", Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}},
					Record: func([]ipam.Grant) ([]byte, error) { return make([]byte, 400), nil }}
				if _, err := s.Acquire(context.Background(), in); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	rate := float64(total) / time.Since(start).Seconds()
	r.row("ipam-in-process", fmt.Sprintf("%.0f/s", rate), "-", math.NaN(), ">=20000/s", rate >= 20000)
	return nil
}

func benchNetwork() model.Network {
	return model.Network{Kind: model.ClusterNetwork, Name: "bench", NetworkID: "bench", Type: model.MACVLAN, SpaceDomain: "eth0",
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/8")}}
}
