package validate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// subnet checks one address family of a network; nil if there is none or its CIDR is unusable.
func (c *checker) subnet(s spot, v *v1.Subnet, v4 bool) *model.Subnet {
	if v == nil {
		return nil
	}
	cidr, ok := c.cidr(s.in("cidr"), v.CIDR)
	if !ok {
		return nil
	}
	if !c.usable(s.in("cidr"), cidr, v4) {
		return nil
	}
	out := &model.Subnet{CIDR: cidr}
	pools := c.ranges(s.in("pools"), v.Pools, cidr, diag.PoolOutside)
	c.poolRules(pools, cidr)
	out.Pools = plain(pools)
	out.Exclude = plain(c.ranges(s.in("exclude"), v.Exclude, cidr, diag.ExcludeOutside))
	if v.Gateway != "" {
		c.gateway(s.in("gateway"), v.Gateway, out)
	}
	for i, r := range v.Routes {
		c.podRoute(s.in("routes").nth(i), r, out, v.Gateway != "")
	}
	slices.SortFunc(out.Routes, func(a, b model.PodRoute) int {
		return cmp.Or(a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()))
	})
	return out
}

func (c *checker) usable(s spot, cidr netip.Prefix, v4 bool) bool {
	a := cidr.Addr()
	switch {
	case a.Is4() != v4:
		c.error(diag.InvalidCIDR, s, fmt.Sprintf("%s is of the other address family", cidr), "ipv4 and ipv6 are two fields")
	case a.IsMulticast() || a.IsLoopback() || cidr.Bits() == 0 || cidr.Overlaps(linkLocal6):
		c.error(diag.InvalidCIDR, s, fmt.Sprintf("%s cannot be given to Pods", cidr), "take a private or routed unicast network (RFC 1918, RFC 4193)")
	default:
		return true
	}
	return false
}

// linkLocal6 is every IPv6 link's own (RFC 4291, section 2.5.6).
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// placed is a range with the place it came from.
type placed struct {
	model.AddrRange
	spot
}

// ranges parses ranges that have to lie in the CIDR, and sorts them.
func (c *checker) ranges(s spot, texts []string, cidr netip.Prefix, outside diag.Code) []placed {
	var out []placed
	for i, text := range texts {
		r, ok := c.addrRange(s.nth(i), text)
		if !ok {
			continue
		}
		if !cidr.Contains(r.First) || !cidr.Contains(r.Last) {
			c.error(outside, s.nth(i), fmt.Sprintf("%s is not inside %s", text, cidr), fmt.Sprintf("%s reaches from %s to %s", cidr, cidr.Addr(), lastOf(cidr)))
			continue
		}
		out = append(out, placed{r, s.nth(i)})
	}
	slices.SortStableFunc(out, func(a, b placed) int { return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) })
	return out
}

func plain(ranges []placed) []model.AddrRange {
	var out []model.AddrRange
	for _, r := range ranges {
		out = append(out, r.AddrRange)
	}
	return out
}

// poolRules: pools are disjoint, since two that overlap are most likely a slip, and leave out what no host may have.
func (c *checker) poolRules(pools []placed, cidr netip.Prefix) {
	first, last := reserved(cidr)
	var before model.AddrRange // the one that reaches farthest so far
	for i, r := range pools {
		if i > 0 && r.First.Compare(before.Last) <= 0 {
			c.error(diag.PoolOverlap, r.spot, fmt.Sprintf("the pool overlaps %s-%s", before.First, before.Last), "make one pool of them")
		}
		if first.IsValid() && r.Contains(first) || last.IsValid() && r.Contains(last) {
			c.error(diag.PoolUnusable, r.spot, fmt.Sprintf("the pool contains the first or last address of %s, which no host may have", cidr), "leave it out of the pool")
		}
		if i == 0 || r.Last.Compare(before.Last) > 0 {
			before = r.AddrRange
		}
	}
}

// reserved are the addresses of a subnet that no host may have: IPv4's network and broadcast address (RFC 1122, section
// 3.2.1.3; not with /31, RFC 3021), IPv6's subnet-router anycast address (RFC 4291, section 2.6.1; not with /127, RFC 6164).
func reserved(cidr netip.Prefix) (first, last netip.Addr) {
	if cidr.Bits() >= cidr.Addr().BitLen()-1 {
		return netip.Addr{}, netip.Addr{}
	}
	if cidr.Addr().Is4() {
		last = lastOf(cidr)
	}
	return cidr.Addr(), last
}

// lastOf is the last address of a masked prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (c *checker) gateway(s spot, text string, subnet *model.Subnet) {
	a, ok := c.addr(s, text)
	if !ok {
		return
	}
	if !subnet.CIDR.Contains(a) {
		c.error(diag.GatewayOutside, s, fmt.Sprintf("gateway %s is not inside %s", a, subnet.CIDR), "Pods reach a gateway on their own subnet only")
		return
	}
	subnet.Gateway = a
	if first, last := reserved(subnet.CIDR); a.Is4() && (a == first || a == last) {
		c.warn(diag.GatewayUnusual, s, fmt.Sprintf("gateway %s is the first or last address of %s, which no host may have", a, subnet.CIDR), "check the address and the prefix length")
	}
	for _, r := range subnet.Pools {
		if r.Contains(a) {
			c.warn(diag.GatewayInPool, s, fmt.Sprintf("gateway %s lies in the pool %s-%s; it is not handed out", a, r.First, r.Last), "begin the pool behind it")
		}
	}
}

// podRoute adds a route. Without via it leads to the gateway; one that was given but refused is not missing.
func (c *checker) podRoute(s spot, r v1.Route, subnet *model.Subnet, gateway bool) {
	to, ok := c.cidr(s.in("to"), r.To)
	if !ok {
		return
	}
	out := model.PodRoute{To: to, Via: subnet.Gateway}
	if r.Via != "" {
		if out.Via, ok = c.addr(s.in("via"), r.Via); !ok {
			return
		}
	}
	switch {
	case to.Bits() == 0 && subnet.Gateway.IsValid() && to.Addr().Is4() == subnet.CIDR.Addr().Is4():
		c.error(diag.DuplicateRoute, s.in("to"), fmt.Sprintf("the gateway %s is the default route already", subnet.Gateway), "remove the route, or the gateway")
	case to.Addr().Is4() != subnet.CIDR.Addr().Is4():
		c.error(diag.InvalidCIDR, s.in("to"), fmt.Sprintf("destination %s is not of the family of %s", to, subnet.CIDR), "")
	case !out.Via.IsValid() && !gateway && !s.broken():
		c.error(diag.MissingField, s, fmt.Sprintf("the route to %s has no via, and the subnet no gateway", to), "add via, an address inside "+subnet.CIDR.String())
	case out.Via.IsValid() && !subnet.CIDR.Contains(out.Via):
		c.error(diag.ViaOutside, s.in("via"), fmt.Sprintf("gateway %s of the route to %s is not inside %s", out.Via, to, subnet.CIDR), "")
	case slices.ContainsFunc(subnet.Routes, func(o model.PodRoute) bool { return o.To == to }):
		c.error(diag.DuplicateRoute, s.in("to"), fmt.Sprintf("there is a route to %s already", to), "keep one of them")
	default:
		subnet.Routes = append(subnet.Routes, out)
	}
}
