package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/model"
)

var anywheres = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// addDefaults gives each family a default route by the first gateway of some of the Pod's interfaces, unless one of all has a default
// route. some shares its entries with all.
func addDefaults(some, all []model.Attachment) {
	for _, anywhere := range anywheres {
		has := slices.ContainsFunc(all, func(at model.Attachment) bool {
			return slices.ContainsFunc(at.Routes, func(r model.PodRoute) bool { return r.To == anywhere })
		})
		first := -1
		var gateway netip.Addr
		for i, at := range some {
			for _, g := range at.Gateways {
				if first < 0 && g.Is4() == anywhere.Addr().Is4() {
					first, gateway = i, g
				}
			}
		}
		if !has && first >= 0 {
			some[first].Routes = append(some[first].Routes, model.PodRoute{To: anywhere, Via: gateway})
		}
	}
}

// routesFit refuses default routes that could not be had: by a gateway of a family without an address, and by a network's gateway where
// it has none. Which addresses another plugin gives is not known before.
func (p choice) routesFit() error {
	for _, it := range p.items {
		s := it.request.Selection
		if s == nil || !s.DefaultRoute {
			continue
		}
		if !givesAddresses(it.network) {
			if len(s.Gateways) == 0 {
				return fmt.Errorf("default-route on network %s, whose gateway only its plugin %s knows; name it", it.network.Key(), it.network.Type)
			}
			continue
		}
		families := map[bool]*model.Subnet{true: nil, false: nil} // of the interface's addresses, by whether they are IPv4
		if asked(it.request.IP) {
			families[true] = it.network.IPv4
		}
		if asked(it.request.IP6) {
			families[false] = it.network.IPv6
		}
		for _, g := range s.Gateways {
			if families[g.Is4()] == nil {
				return fmt.Errorf("default-route by %s on network %s, of which the interface has no address of that family", g, it.network.Key())
			}
		}
		has := func(f *model.Subnet, of model.AddressRequest) bool { // the Pod itself may be the gateway
			return f != nil && f.Gateway.IsValid() && f.Gateway != of.Addr
		}
		if len(s.Gateways) == 0 && !has(families[true], it.request.IP) && !has(families[false], it.request.IP6) {
			return fmt.Errorf("default-route on network %s, which has no gateway; name one", it.network.Key())
		}
	}
	return nil
}

// takeDefaults gives interface i the default routes, by the gateways that are named, or else by those of its network, and takes those
// of the same families from the others.
func takeDefaults(interfaces []model.Attachment, i int, gateways []netip.Addr) {
	if len(gateways) == 0 {
		gateways = interfaces[i].Gateways
	}
	for _, anywhere := range anywheres {
		at := slices.IndexFunc(gateways, func(g netip.Addr) bool { return g.Is4() == anywhere.Addr().Is4() })
		if at < 0 {
			continue
		}
		for j := range interfaces {
			interfaces[j].Routes = slices.DeleteFunc(slices.Clone(interfaces[j].Routes), func(r model.PodRoute) bool { return r.To == anywhere })
		}
		interfaces[i].Routes = append(interfaces[i].Routes, model.PodRoute{To: anywhere, Via: gateways[at]})
	}
}

// reroutes says how the default routes that the plugin of interface i sets are to change: those of some families go where the Pod asked for
// them on another interface, or come on this one by the gateways that it asked for.
func (p choice) reroutes(interfaces []model.Attachment, i int) (without []netip.Prefix, by []netip.Addr) {
	for j, it := range p.items {
		s := it.request.Selection
		if s == nil || !s.DefaultRoute {
			continue
		}
		gateways := s.Gateways
		if len(gateways) == 0 {
			gateways = interfaces[j].Gateways
		}
		for _, anywhere := range anywheres {
			if slices.ContainsFunc(gateways, func(g netip.Addr) bool { return g.Is4() == anywhere.Addr().Is4() }) {
				without = append(without, anywhere)
			}
		}
		if j == i {
			by = gateways
		}
	}
	return without, by
}

// withDefaults is a plugin's answer after its interface got other default routes. Those in other tables than main stay.
func withDefaults(r *types100.Result, call *model.DelegateCall) *types100.Result {
	out := *r
	out.Routes = slices.DeleteFunc(slices.Clone(r.Routes), func(route *types.Route) bool {
		to, ok := prefixOf(route.Dst)
		return ok && slices.Contains(call.NoDefault, to) && (route.Table == nil || *route.Table == unix.RT_TABLE_MAIN)
	})
	for _, g := range call.Gateways {
		at := slices.IndexFunc(anywheres, func(p netip.Prefix) bool { return p.Addr().Is4() == g.Is4() })
		out.Routes = append(out.Routes, &types.Route{Dst: ipNet(anywheres[at]), GW: g.AsSlice()})
	}
	return &out
}

// inPod are the interfaces that a plugin says it has made in the Pod, the attachment's before all.
func inPod(at model.Attachment, r *types100.Result) []string {
	names := []string{at.IfName}
	if r == nil {
		return names
	}
	for _, in := range r.Interfaces {
		if in.Sandbox != "" && !slices.Contains(names, in.Name) {
			names = append(names, in.Name)
		}
	}
	return names
}

// onDefaults does something to the default routes of each interface that a plugin has made in the Pod: the attachment's own one has some
// gateways, the others none.
func onDefaults(at model.Attachment, r *types100.Result, gateways []netip.Addr, do func(ifName string, families []netip.Prefix, gateways []netip.Addr) error) error {
	if len(at.Delegate.NoDefault) == 0 {
		return nil
	}
	for i, name := range inPod(at, r) {
		if i > 0 {
			gateways = nil
		}
		if err := do(name, at.Delegate.NoDefault, gateways); err != nil {
			return fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err)
		}
	}
	return nil
}

// reroute takes default routes from the interfaces that a plugin has made, and gives the attachment's own those by some gateways.
func (s *Server) reroute(ctx context.Context, pod attach.Pod, at model.Attachment, r *types100.Result, gateways []netip.Addr) error {
	return onDefaults(at, r, gateways, func(ifName string, families []netip.Prefix, gateways []netip.Addr) error {
		return s.opts.Attacher.Reroute(ctx, pod, ifName, families, gateways)
	})
}

// checkRerouted says whether the interfaces that a plugin has made have the default routes that they are to have.
func (s *Server) checkRerouted(ctx context.Context, pod attach.Pod, at model.Attachment, r *types100.Result) error {
	return onDefaults(at, r, at.Delegate.Gateways, func(ifName string, families []netip.Prefix, gateways []netip.Addr) error {
		return s.opts.Attacher.CheckRerouted(ctx, pod, ifName, families, gateways)
	})
}

// rerouteAll gives default routes where they are to be, when all plugins have set theirs, and keeps the plugins' answers as they are then,
// for whoever calls the plugins again.
func (s *Server) rerouteAll(ctx context.Context, pod attach.Pod, rec record, all []made) error {
	for i, at := range rec.Interfaces {
		if at.Delegate == nil || len(at.Delegate.NoDefault) == 0 {
			continue
		}
		if err := s.reroute(ctx, pod, at, all[i].result, at.Delegate.Gateways); err != nil {
			return err
		}
		now := withDefaults(all[i].result, at.Delegate)
		if !slices.Equal(now.Routes, all[i].result.Routes) {
			if err := s.opts.Delegates.Keep(at.Delegate.List, callOf(pod, rec, at), now); err != nil {
				return fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err)
			}
		}
		all[i].result = now
	}
	return nil
}
