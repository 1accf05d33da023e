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

// reserved checks the addresses that are kept under a name.
func (c *checker) reserved(n *network, s spot, v *v1.NetworkSpec) {
	names, taken := map[[2]string]bool{}, map[netip.Addr]string{}
	for i, r := range v.Reserved {
		rs := s.nth(i)
		c.reservedName(rs, r)
		if names[[2]string{r.Namespace, r.Name}] {
			c.error(diag.DuplicateName, rs.in("name"), fmt.Sprintf("network %s reserves something under the name %q already", n.Key(), r.Name), "rename or remove one of them")
			continue
		}
		names[[2]string{r.Namespace, r.Name}] = true
		if r.IP == "" && r.IP6 == "" && !s.broken() {
			c.error(diag.ReservedEmpty, rs, fmt.Sprintf("the reservation %s has no address", r.Name), "give ip, ip6 or both")
		}
		if n.Namespace != "" && r.Namespace != "" && r.Namespace != n.Namespace {
			c.error(diag.ReservedForNobody, rs.in("namespace"), fmt.Sprintf("network %s is for Pods of namespace %s alone, so those of %s cannot use the reservation %s", n.Key(), n.Namespace, r.Namespace, r.Name), "remove the namespace, or make it a network of the cluster")
		}
		out := model.Reservation{Name: r.Name, Namespace: r.Namespace}
		if r.IP != "" {
			out.IP = c.reservedAddress(rs.in("ip"), r.IP, r.Name, n.IPv4, v.IPv4, taken)
		}
		if r.IP6 != "" {
			out.IP6 = c.reservedAddress(rs.in("ip6"), r.IP6, r.Name, n.IPv6, v.IPv6, taken)
		}
		n.Reserved = append(n.Reserved, out)
	}
	slices.SortFunc(n.Reserved, func(a, b model.Reservation) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// reservedName checks what Pods ask by, in the place where an address or one of two words may stand.
func (c *checker) reservedName(s spot, r v1.Reservation) {
	if r.Name == "dynamic" || r.Name == "none" {
		c.error(diag.InvalidName, s.in("name"), fmt.Sprintf("%q has a meaning of its own where Pods ask for addresses", r.Name), "choose another name")
	} else {
		c.label(s.in("name"), r.Name)
	}
	if r.Namespace != "" {
		c.label(s.in("namespace"), r.Namespace)
	}
}

// reservedAddress checks one address. subnet is nil if the network has none, or none that could be read (written).
func (c *checker) reservedAddress(s spot, text, name string, subnet *model.Subnet, written *v1.Subnet, taken map[netip.Addr]string) netip.Addr {
	a, ok := c.addr(s, text)
	if !ok {
		return netip.Addr{}
	}
	other, twice := taken[a]
	switch {
	case subnet == nil:
		if written == nil && !s.broken() {
			c.error(diag.ReservedOutside, s, fmt.Sprintf("%s is reserved, but the network has no subnet of its family", a), "add the subnet, or remove the address")
		}
	case !subnet.CIDR.Contains(a):
		c.error(diag.ReservedOutside, s, fmt.Sprintf("%s is not inside %s", a, subnet.CIDR), fmt.Sprintf("%s reaches from %s to %s", subnet.CIDR, subnet.CIDR.Addr(), lastOf(subnet.CIDR)))
	case isEnd(subnet.CIDR, a):
		c.error(diag.ReservedUnusable, s, fmt.Sprintf("%s is the first or last address of %s, which no host may have", a, subnet.CIDR), "take one in between")
	case a == subnet.Gateway:
		c.error(diag.ReservedTaken, s, fmt.Sprintf("%s is the gateway", a), "take another address")
	case twice:
		c.error(diag.ReservedTaken, s, fmt.Sprintf("%s is reserved as %s already", a, other), "take another address")
	}
	taken[a] = name
	return a
}

// isEnd says whether no host may have an address because of its place in the subnet.
func isEnd(cidr netip.Prefix, a netip.Addr) bool {
	first, last := reserved(cidr)
	return a == first || a == last
}

// reservedTwice finds an address that two networks which draw from the same addresses both reserve.
func reservedTwice(m, n *network, v4 bool) (spot, string) {
	have := map[netip.Addr]string{}
	for _, r := range m.Reserved {
		if v4 {
			have[r.IP] = r.Name
		} else {
			have[r.IP6] = r.Name
		}
	}
	delete(have, netip.Addr{})
	for i, r := range n.used.Reserved {
		field, text := "ip6", r.IP6
		if v4 {
			field, text = "ip", r.IP
		}
		if a, err := netip.ParseAddr(text); err == nil && have[a] != "" {
			return n.in("spec").in("reserved").nth(i).in(field), have[a]
		}
	}
	return spot{}, ""
}
