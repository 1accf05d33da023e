package server

import (
	"fmt"
	"net/netip"
	"slices"

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

// routesFit refuses default routes that could not be had: by a gateway of a family without an address, by a network's gateway where
// it has none, and beside a plugin whose routes would have to give way.
func (p choice) routesFit() error {
	for i, it := range p.items {
		s := it.request.Selection
		if s == nil || !s.DefaultRoute {
			continue
		}
		for j, other := range p.items {
			if j != i && !givesAddresses(other.network) {
				return fmt.Errorf("default-route on network %s: the routes of %s are set by the plugin %s, and cannot be taken away; give network %s a cidr, or the route in its plugin's configuration",
					it.network.Key(), other.ifName, other.network.Type, other.network.Key())
			}
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
		has := func(f *model.Subnet) bool { return f != nil && f.Gateway.IsValid() }
		if len(s.Gateways) == 0 && !has(families[true]) && !has(families[false]) {
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
