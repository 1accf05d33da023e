package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
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
			return fail(CodeRequestRefused, diag.PodDeviceMissing, fmt.Errorf("network %s gives devices of %s, which a kubelet gives to Pods, and there is no kubelet here that has given some to this one", it.network.Key(), pool))
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
			need := wanted(p, pool)
			return fail(CodeRequestRefused, diag.PodDeviceMissing, fmt.Errorf("interface %s on network %s needs a device of %s, and the Pod's containers have %d of %d; add to one of them:\n%s",
				it.ifName, it.network.Key(), pool, len(has[pool]), need, lines(pool, need)))
		}
		if it.device = has[pool][n]; it.network.Driver() == model.SRIOV && !attach.IsPCI(it.device) {
			return fail(CodeRequestRefused, diag.PodDeviceMissing, fmt.Errorf("interface %s on network %s: the device %q of %s is no virtual function of a card; its device plugin offers something else",
				it.ifName, it.network.Key(), it.device, pool))
		}
		taken[pool]++
	}
	return nil
}

// Held is a device that an attached Pod has.
type Held struct {
	Device string // its ID, of a virtual function the PCI address
	Pool   string // resource, as the network said when the Pod was attached; "" = nobody is to have it, for it is not back from who had it
	Pod    string // "namespace/name", or who has had it
}

// Held are the devices of attached Pods, and those that are away, sorted.
func (s *Server) Held() []Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Held
	for _, p := range s.pods {
		out = append(out, p.held...)
	}
	for sandbox, functions := range s.away {
		for _, pci := range functions {
			out = append(out, Held{Device: pci, Pod: fmt.Sprintf("container %s, which is gone,", sandbox)})
		}
	}
	slices.SortFunc(out, func(a, b Held) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Pool, b.Pool))
	})
	return slices.Compact(out)
}

// lines are what a container of a Pod must say to have n devices of a pool. Extended resources are requested as they are limited.
func lines(pool string, n int) string {
	return fmt.Sprintf("resources:\n  requests:\n    %s: %q\n  limits:\n    %[1]s: %[2]q", pool, fmt.Sprint(n))
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

// soleUse is what a network's Pods take of the node that one interface can have at a time, "" if many can. Which virtual function an
// interface takes is not the network's to say: see functionUse.
func soleUse(n model.Network) string {
	switch {
	case n.Driver() == model.SRIOV:
		return ""
	case n.Driver() == model.TAGGED:
		return fmt.Sprintf("VLAN %d of %s", n.VLAN, n.Device)
	case n.ServesOne():
		return "the device " + n.Device
	}
	return ""
}

// functionUse is what the interface with a virtual function takes.
func functionUse(pci string) string { return "virtual function " + pci }

// sole is what an interface takes that no other can have, "" for nothing.
func (it chosen) sole() string {
	if it.network.Driver() == model.SRIOV {
		return functionUse(it.device)
	}
	return soleUse(it.network)
}

// useOf is the same of an attachment.
func useOf(at model.Attachment) string {
	switch {
	case at.Delegate != nil: // what another plugin does is its own to share
		return ""
	case at.VF != nil:
		return functionUse(at.DeviceID)
	}
	return soleUse(model.Network{Type: at.Type, Mode: at.Mode, Device: at.Device, VLAN: at.VLAN})
}
