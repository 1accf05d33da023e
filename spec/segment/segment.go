// Package segment cuts what many nodes share into pieces that an API server can store, and puts a node's state together
// from its own part and those pieces.
//
// A plan of 1,000 networks is 110 to 180 KB; copied into 5,000 objects it outgrows etcd. So what a class of nodes shares is
// stored once, in segments named by their content, and each node has a small part of its own that names them. Items are
// spread over segments by the hash of their key: a changed network changes the one segment that it is in.
//
// The package is pure and does not know objects of an API.
package segment

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// Sizes in bytes of canonical JSON: the largest segment, the size below which segments are kept on average, and the largest
// part of a node. An etcd request is at most 1.5 MiB.
const (
	MaxSegment = 512 << 10
	aim        = 256 << 10
	MaxPart    = 32 << 10
)

var (
	// ErrTooBig says that one item alone, or a node's own part, is over its bound.
	ErrTooBig = errors.New("too big to store")
	// ErrName says that a segment's content is not what its name says.
	ErrName = errors.New("content does not agree with the segment's name")
	// ErrDigest says that part and segments do not make the plan the part was cut from: one of them is missing or old.
	ErrDigest = errors.New("part and segments do not make the plan with the part's digest")
)

// Encode returns a segment's name and its bytes. Equal contents have equal names, whatever the order of their lists.
func Encode(s model.Segment) (name string, data []byte) {
	sortAll(&s)
	data, err := json.Marshal(s)
	if err != nil { // plain data: a failure is a programming error
		panic("segment: does not marshal: " + err.Error())
	}
	return nameOf(data), data
}

func nameOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "segment-" + hex.EncodeToString(sum[:16])
}

// Decode reads a segment and holds it to its name.
func Decode(name string, data []byte) (model.Segment, error) {
	var s model.Segment
	if nameOf(data) != name {
		return s, fmt.Errorf("segment %s: %w", name, ErrName)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("segment %s: %w", name, err)
	}
	return s, nil
}

// Cut spreads what nodes share over as few segments as keep each below MaxSegment, none if there is nothing. ErrTooBig if
// one item alone is larger.
func Cut(shared model.Segment) ([]model.Segment, error) {
	_, data := Encode(shared)
	if string(data) == "{}" {
		return nil, nil
	}
	for n := 1; ; n *= 2 {
		if len(data)/n > aim {
			continue
		}
		pieces := spread(shared, uint64(n))
		if fits(pieces) {
			return slices.DeleteFunc(pieces, empty), nil
		}
		if n > 2*items(shared) {
			return nil, fmt.Errorf("an item is over %d bytes: %w", MaxSegment, ErrTooBig)
		}
	}
}

func fits(pieces []model.Segment) bool {
	for _, p := range pieces {
		if _, data := Encode(p); len(data) > MaxSegment {
			return false
		}
	}
	return true
}

func empty(s model.Segment) bool { return items(s) == 0 }

func items(s model.Segment) int {
	return len(s.Links) + len(s.Routes) + len(s.Rules) + len(s.Sysctls) + len(s.Networks) + len(s.Tenants) + len(s.Pools) + len(s.Probes) + len(s.Fabrics)
}

// spread puts each item into the piece that its key's hash says.
func spread(s model.Segment, n uint64) []model.Segment {
	out := make([]model.Segment, n)
	piece := func(kind string, key any) *model.Segment {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s\x00%v", kind, key)
		return &out[mix(h.Sum64())%n]
	}
	for _, x := range s.Links {
		p := piece("link", x.Name)
		p.Links = append(p.Links, x)
	}
	for _, x := range s.Routes {
		p := piece("route", x)
		p.Routes = append(p.Routes, x)
	}
	for _, x := range s.Rules {
		p := piece("rule", x)
		p.Rules = append(p.Rules, x)
	}
	for _, x := range s.Sysctls {
		p := piece("sysctl", x.Key)
		p.Sysctls = append(p.Sysctls, x)
	}
	for _, x := range s.Networks {
		p := piece("network", x.Key())
		p.Networks = append(p.Networks, x)
	}
	for _, x := range s.Tenants {
		p := piece("tenant", x.Name)
		p.Tenants = append(p.Tenants, x)
	}
	for _, x := range s.Pools {
		p := piece("pool", x.Name)
		p.Pools = append(p.Pools, x)
	}
	for _, x := range s.Probes {
		p := piece("probe", x.Name)
		p.Probes = append(p.Probes, x)
	}
	for _, x := range s.Fabrics {
		p := piece("fabric", x.Name)
		p.Fabrics = append(p.Fabrics, x)
	}
	return out
}

// mix spreads FNV's weak low bits (the finaliser of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}

// sortAll puts copies of the lists into the order of the model.
func sortAll(s *model.Segment) {
	s.Links = sorted(s.Links, func(a, b model.SharedLink) int { return cmp.Compare(a.Name, b.Name) })
	s.Routes = sorted(s.Routes, model.CompareRoutes)
	s.Rules = sorted(s.Rules, model.CompareRules)
	s.Sysctls = sorted(s.Sysctls, func(a, b model.Sysctl) int { return cmp.Compare(a.Key, b.Key) })
	s.Networks = sorted(s.Networks, func(a, b model.Network) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	s.Tenants = sorted(s.Tenants, func(a, b model.Tenant) int { return cmp.Compare(a.Name, b.Name) })
	s.Pools = sorted(s.Pools, func(a, b model.SRIOVPool) int { return cmp.Compare(a.Name, b.Name) })
	s.Probes = sorted(s.Probes, func(a, b model.Probe) int { return cmp.Compare(a.Name, b.Name) })
	s.Fabrics = sorted(s.Fabrics, func(a, b model.Fabric) int { return cmp.Compare(a.Name, b.Name) })
}

func sorted[T any](list []T, less func(a, b T) int) []T {
	out := slices.Clone(list)
	slices.SortFunc(out, less)
	return out
}

// Assemble fills plan, networks, tenants, pools and probes of a state from a node's part and its segments, in any order.
// ErrDigest if the plan is not the one that the part was cut from.
func Assemble(part model.NodePart, segments []model.Segment) (model.NodeState, error) {
	var all model.Segment
	for _, s := range segments {
		all.Links, all.Routes = append(all.Links, s.Links...), append(all.Routes, s.Routes...)
		all.Rules, all.Sysctls = append(all.Rules, s.Rules...), append(all.Sysctls, s.Sysctls...)
		all.Networks, all.Tenants = append(all.Networks, s.Networks...), append(all.Tenants, s.Tenants...)
		all.Pools, all.Probes = append(all.Pools, s.Pools...), append(all.Probes, s.Probes...)
	}
	sortAll(&all)
	out := model.NodeState{
		Node: part.Node, Digest: part.Digest, Networks: all.Networks, Tenants: all.Tenants, Probes: all.Probes,
		Plan: model.NodePlan{Routes: all.Routes, Rules: all.Rules, Sysctls: all.Sysctls, Pools: all.Pools},
	}
	for _, l := range all.Links {
		out.Plan.Links = append(out.Plan.Links, own(part, l))
	}
	if out.Plan.Digest() != part.Digest {
		return model.NodeState{}, fmt.Errorf("node %s: %w", part.Node, ErrDigest)
	}
	return out, nil
}

// own is the link as the node has it.
func own(part model.NodePart, l model.SharedLink) model.Link {
	if more := part.Addresses[l.Name]; len(more) > 0 {
		l.Addresses = append(slices.Clone(l.Addresses), more...)
		slices.SortFunc(l.Addresses, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
		l.Addresses = slices.Compact(l.Addresses)
	}
	if l.Underlay != "" && l.VXLAN != nil {
		options := *l.VXLAN
		options.Local = part.Underlays[l.Underlay]
		l.VXLAN = &options
	}
	return l.Link
}
