package server

import (
	"context"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/spec/diag"
)

// takeDevices gives each interface on a network with a device pool one of the Pod's devices of it, in their order: the n-th interface
// the n-th device, so that a new sandbox of the Pod has them as the one before had.
func (s *Server) takeDevices(ctx context.Context, c call, p *choice) error {
	var has map[string][]string
	taken := map[string]int{}
	for i := range p.items {
		it := &p.items[i]
		pool := it.network.DevicePool
		if pool == "" {
			continue
		}
		if s.opts.Devices == nil || !c.args.named {
			return fail(CodeRequestRefused, diag.PodDeviceMissing, fmt.Errorf("network %s gives devices of %s, and there is no kubelet here that has given some to the Pod", it.network.Key(), pool))
		}
		if has == nil {
			var err error
			if has, err = s.opts.Devices(ctx, c.args.namespace, c.args.pod); err != nil {
				return fail(types.ErrTryAgainLater, diag.PodDeviceMissing, fmt.Errorf("find out which devices Pod %s/%s has: %w", c.args.namespace, c.args.pod, err))
			}
			if has == nil {
				has = map[string][]string{}
			}
		}
		n := taken[pool]
		if n >= len(has[pool]) {
			return fail(CodeRequestRefused, diag.PodDeviceMissing, fmt.Errorf("interface %s on network %s needs a device of %s, and the Pod has %d; give a container resources: {limits: {%q: %q}}",
				it.ifName, it.network.Key(), pool, len(has[pool]), pool, fmt.Sprint(wanted(p, pool))))
		}
		it.device = has[pool][n]
		taken[pool]++
	}
	return nil
}

// wanted is how many devices of a pool the Pod's interfaces need.
func wanted(p *choice, pool string) (n int) {
	for _, it := range p.items {
		if it.network.DevicePool == pool {
			n++
		}
	}
	return n
}
