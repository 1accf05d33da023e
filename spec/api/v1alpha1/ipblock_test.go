package v1alpha1

import (
	"net/netip"
	"strings"
	"testing"
)

// A Range is what an IPBlock may say under its own name, and nothing else is one.
func TestRange(t *testing.T) {
	v4, v6 := IPSpace{Domain: "edge", ID: 7, CIDR: "10.0.0.0/24"}, IPSpace{Domain: "edge", ID: 7, CIDR: "fd00::/64"}
	name := func(s IPSpace, cidr string) string {
		return s.Hash() + "-" + strings.NewReplacer("/", "-", ":", "x").Replace(cidr)
	}
	for _, c := range []struct {
		what, role string
		space      IPSpace
		cidr, name string
		bits       int32
		ok         bool
	}{
		{"a block", RoleBlock, v4, "10.0.0.64/26", "", 0, true},
		{"a block of IPv6", RoleBlock, v6, "fd00::40/122", "", 0, true},
		{"the whole space", RoleBlock, v4, "10.0.0.0/24", "", 0, true},
		{"a single", RoleSingle, v4, "10.0.0.9/32", "", 0, true},
		{"a root", RoleRoot, v4, "10.0.0.0/24", v4.RootName(), 26, true},
		{"a root of single addresses", RoleRoot, v6, "fd00::/64", v6.RootName(), 128, true},
		{"another space's name", RoleBlock, v4, "10.0.0.64/26", name(v6, "10.0.0.64/26"), 0, false},
		{"another block's name", RoleBlock, v4, "10.0.0.64/26", name(v4, "10.0.0.0/26"), 0, false},
		{"any name", RoleSingle, v4, "10.0.0.9/32", "x-10.0.0.9-32", 0, false},
		{"outside", RoleBlock, v4, "10.0.1.0/26", "", 0, false},
		{"larger than the space", RoleBlock, v4, "10.0.0.0/23", "", 0, false},
		{"of the other family", RoleBlock, v4, "::/26", "", 0, false},
		{"not masked", RoleBlock, v4, "10.0.0.65/26", name(v4, "10.0.0.64/26"), 0, false},
		{"written otherwise", RoleBlock, v6, "fd00:0::40/122", name(v6, "fd00::40/122"), 0, false},
		{"nothing", RoleBlock, v4, "x", "", 0, false},
		{"nothing in nothing", RoleBlock, IPSpace{Domain: "edge", CIDR: "y"}, "10.0.0.0/26", "", 0, false},
		{"a space that is not masked", RoleBlock, IPSpace{Domain: "edge", CIDR: "10.0.0.1/24"}, "10.0.0.0/26", "", 0, false},
		{"a single that is more", RoleSingle, v4, "10.0.0.8/31", "", 0, false},
		{"a root that is less", RoleRoot, v4, "10.0.0.0/25", v4.RootName(), 26, false},
		{"a root under a block's name", RoleRoot, v4, "10.0.0.0/24", "", 26, false},
		{"a block under a root's name", RoleBlock, v4, "10.0.0.0/24", v4.RootName(), 0, false},
		{"blocks larger than the space", RoleRoot, v4, "10.0.0.0/24", v4.RootName(), 23, false},
		{"blocks of the other family", RoleRoot, v4, "10.0.0.0/24", v4.RootName(), 64, false},
		{"no role", "Odd", v4, "10.0.0.64/26", "", 0, false},
	} {
		b := IPBlock{Spec: IPBlockSpec{Role: c.role, Space: c.space, CIDR: c.cidr, BlockBits: c.bits}}
		if b.Name = c.name; c.name == "" {
			b.Name = name(c.space, c.cidr)
		}
		space, r, err := b.Range()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.what, err)
		}
		if err == nil && (space != netip.MustParsePrefix(c.space.CIDR) || r != netip.MustParsePrefix(c.cidr)) {
			t.Errorf("%s: %s in %s", c.what, r, space)
		}
	}
}
