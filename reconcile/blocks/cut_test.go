package blocks

import (
	"net/netip"
	"testing"

	"danm.io/danm/spec/model"
)

// TestNoBlockOfOne: the only address of a block could be asked for by nobody, since what is asked for is an object of the same name.
func TestNoBlockOfOne(t *testing.T) {
	one := func(a string) []model.AddrRange {
		return []model.AddrRange{{First: netip.MustParseAddr(a), Last: netip.MustParseAddr(a)}}
	}
	for _, c := range []struct {
		cidr  string
		pools []model.AddrRange
		size  int
		nodes int
		want  int
	}{
		{"10.0.0.0/24", one("10.0.0.10"), 0, 2, 31},
		{"10.0.0.0/24", nil, 1, 2, 31},
		{"10.0.0.0/30", nil, 0, 5000, 31},
		{"fd00::/64", one("fd00::1"), 0, 2, 127},
		{"10.0.0.7/32", nil, 0, 2, 32}, // there is no other
		{"10.0.0.0/24", nil, 0, 2, 27},
	} {
		s := &space{cidr: netip.MustParsePrefix(c.cidr), size: c.size, subnets: []model.Subnet{{CIDR: netip.MustParsePrefix(c.cidr), Pools: c.pools}}}
		if got := s.cut(c.nodes); got != c.want {
			t.Errorf("%s with pools %v and blockSize %d, %d nodes: /%d, want /%d", c.cidr, c.pools, c.size, c.nodes, got, c.want)
		}
	}
}
