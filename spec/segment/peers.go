package segment

import (
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// peersPerShard bounds a FabricPeers object to about 10 KB, so that a change of one node writes little.
const peersPerShard = 128

// Shard spreads the underlay addresses of a fabric's nodes over shards by the hash of the node's name: a node that comes or
// goes changes one shard. Shards without nodes are left out.
func Shard(fabric string, addresses map[string]netip.Addr) []model.FabricPeers {
	count := 1
	for len(addresses) > count*peersPerShard {
		count *= 2
	}
	shards := make([]model.FabricPeers, count)
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		h := fnv.New32a()
		h.Write([]byte(name))
		k := int(h.Sum32()) % count
		shards[k].Nodes = append(shards[k].Nodes, model.FabricPeer{Node: name, Address: addresses[name]})
	}
	var out []model.FabricPeers
	for k, s := range shards {
		if len(s.Nodes) > 0 {
			s.Fabric, s.Shard = fabric, k
			out = append(out, s)
		}
	}
	return out
}

// CanPeer says whether others can send to an address. A node's report is that node's word alone: what no kernel takes as a flood
// entry would keep every other node from its plan.
func CanPeer(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && !(a.Is6() && a.IsLinkLocalUnicast())
}
