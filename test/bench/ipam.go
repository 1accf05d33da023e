//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/kube"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/cluster/bed"
)

// millionRows compare one acquisition among a million live addresses with one among a hundred.
func millionRows(o options, r *report) error {
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
	var next atomic.Int64
	one := func() error {
		i := next.Add(1)
		_, err := s.Acquire(context.Background(), benchIntent(i, benchNetwork(), false))
		return err
	}
	few := make([]time.Duration, 0, 1000)
	pairs := func(n int) (out []time.Duration, err error) {
		for range n {
			d, err := timed(one)
			if err == nil {
				err = s.Release(context.Background(), sandboxName(next.Load()))
			}
			if err != nil {
				return nil, err
			}
			out = append(out, d)
		}
		return out, nil
	}
	if err := many(100, 8, one); err != nil {
		return err
	}
	if few, err = pairs(500); err != nil {
		return err
	}
	if err := many(1_000_000-100, 128, one); err != nil {
		return err
	}
	lots, err := pairs(500)
	if err != nil {
		return err
	}
	r.atMost("ipam-at-1000000-live", quantile(lots, 0.5), quantile(few, 0.5), 2)
	return nil
}

// many calls f n times, from some callers at once.
func many(n, callers int, f func() error) error {
	var left atomic.Int64
	var failed atomic.Pointer[error]
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func sandboxName(i int64) string { return fmt.Sprintf("%064d", i) }

func benchIntent(i int64, n model.Network, claimed bool) ipam.Intent {
	return ipam.Intent{Sandbox: sandboxName(i), PodUID: fmt.Sprintf("%036d", i), Namespace: "bench", Pod: "pod", Claimed: claimed,
		Wants:  []ipam.Want{{IfName: "eth0", Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}},
		Record: func([]ipam.Grant) ([]byte, error) { return make([]byte, 100), nil }}
}

const (
	singleNodes = 32  // nodes that claim at once
	singleEach  = 100 // addresses each of them claims, one by one
)

// singleRows let 32 nodes claim every address of theirs with an API call of its own, beside plain creations of the same
// objects under names that nobody else wants, in turns.
func singleRows(k *cluster, r *report) error {
	config := k.api.Config(bed.AdminToken)
	n := benchNetwork()
	n.VLAN = 7
	space := v1alpha1.IPSpace{Domain: n.SpaceDomain, ID: 7, CIDR: n.IPv4.CIDR.String()}
	root := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleRoot, Space: space, CIDR: space.CIDR, BlockBits: 32}}
	root.Name = space.RootName()
	ctx := context.Background()
	var keepers []*ipam.Keeper
	var clients []*kube.Client
	for i := range singleNodes {
		node := "single-" + strconv.Itoa(i)
		c, err := kube.New(config, node, "danm-system", "machine-"+node)
		if err != nil {
			return err
		}
		if i == 0 {
			if _, err := c.Create(ctx, root); err != nil {
				return err
			}
		}
		s, err := ipam.Open(filepath.Join(k.dir, "ipam-"+node), ipam.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		keeper := ipam.NewKeeper(ipam.KeeperOptions{Service: s, API: identified{c, "machine-" + node}, Node: node,
			Sandboxes: func(context.Context) ([]string, error) { return nil, nil }})
		if _, err := keeper.Round(ctx); err != nil {
			return err
		}
		clients, keepers = append(clients, c), append(keepers, keeper)
	}
	var rates, floors []float64
	for turn := range 4 {
		var next atomic.Int64
		claimed, err := rate(func(i int) error {
			_, err := keepers[i].Acquire(ctx, benchIntent(int64(turn+1)*1_000_000+next.Add(1), n, true))
			return err
		})
		if err != nil {
			return err
		}
		plain := space
		plain.ID = int64(100 + turn)
		created, err := rate(func(i int) error {
			a := netip.AddrFrom4([4]byte{10, byte(i), byte(next.Load() >> 8), byte(next.Add(1))}) //nolint:gosec // a byte is meant
			p := netip.PrefixFrom(a, 32)
			o := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleBlock, Space: plain, CIDR: p.String(), Owner: "floor"}}
			o.Name, o.Finalizers = plain.BlockName(p), []string{v1alpha1.IPFinalizer}
			o.Labels = map[string]string{v1alpha1.LabelSpace: plain.Hash(), v1alpha1.LabelOwner: "floor"}
			_, err := clients[i].Create(ctx, o)
			return err
		})
		if err != nil {
			return err
		}
		rates, floors = append(rates, claimed), append(floors, created)
	}
	ours, floor := middle(rates), middle(floors)
	r.row("ipam-32-nodes-claimed-singly", fmt.Sprintf("%.0f/s", ours), fmt.Sprintf("%.0f/s", floor), ours/floor, ">=0.60x", ours >= 0.6*floor)
	return nil
}

// identified is a client of a node that has no Node object.
type identified struct {
	*kube.Client
	id string
}

// Identity is ipam.API's.
func (c identified) Identity(context.Context) (string, error) { return c.id, nil }

// rate is how often a second f succeeds when every node calls it singleEach times.
func rate(f func(node int) error) (float64, error) {
	var wg sync.WaitGroup
	errs := make([]error, singleNodes)
	start := time.Now()
	for i := range singleNodes {
		wg.Go(func() {
			for range singleEach {
				if err := f(i); err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return singleNodes * singleEach / time.Since(start).Seconds(), errors.Join(errs...)
}

// middle is the mean without the fastest and the slowest turn.
func middle(xs []float64) float64 {
	sum, lo, hi := 0.0, math.Inf(1), math.Inf(-1)
	for _, x := range xs {
		sum, lo, hi = sum+x, min(lo, x), max(hi, x)
	}
	return (sum - lo - hi) / float64(len(xs)-2)
}
