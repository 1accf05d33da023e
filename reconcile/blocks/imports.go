package blocks

import (
	"cmp"
	"encoding/base64"
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

const (
	// maxBits of a bitmap: DANM's own bound of all addresses of a network (2^23), beyond which nobody wrote one.
	maxBits = 1 << 23
	// maxImported is how many addresses a space can have from before. A bitmap is its tenant's word, and must not take the memory of
	// everybody's controller: a space with more is not opened.
	maxImported = 1 << 16
)

// before is what Pods may have from before, found quickly: a thousand spaces may be opened at once.
type before struct {
	networks  map[string]*Network // by key
	unserved  map[number][]*Network
	endpoints []endpoint
	served    map[string]bool
}

// number is a VLAN id or a VNI.
type number struct {
	id    int64
	vxlan bool
}

func numberOf(o danmv1.NetworkOptions) number {
	if o.Vxlan > 0 {
		return number{int64(o.Vxlan), true}
	}
	return number{int64(o.Vlan), false}
}

func newBefore(networks []Network, endpoints []danmv1.DanmEp, served map[string]bool) *before {
	out := &before{networks: map[string]*Network{}, unserved: map[number][]*Network{}, endpoints: endpointsOf(endpoints), served: served}
	for i := range networks {
		n := &networks[i]
		key := n.Key()
		if out.networks[key] = n; !served[key] {
			x := numberOf(n.Spec.Options)
			out.unserved[x] = append(out.unserved[x], n)
		}
	}
	return out
}

// imported are the addresses of a space that Pods have from before: those of DANM's bitmaps and of DanmEps, in order (R19); not ok,
// if they are more than maxImported.
//
// A network that nodes are told of counts where they are told it is. One that they are not told of (it is refused, or nobody
// judged it yet) still has Pods, and nobody knows its domain: it counts in every space with its number. Too much is kept for
// twelve hours at worst; too little is a double.
func (s *space) imported(from *before) (list []v1alpha1.IPHolder, ok bool) {
	held := map[netip.Addr]v1alpha1.IPHolder{}
	concerned := slices.Clone(from.unserved[number{s.id.ID, s.id.VXLAN}])
	for _, key := range s.keys {
		if n := from.networks[key]; n != nil {
			concerned = append(concerned, n)
		}
	}
	ours := map[*Network]bool{}
	for _, n := range concerned {
		ours[n] = true
		gateways := gatewaysOf(n.Spec.Options)
		for a := range inUse(n.Spec.Options) {
			if !s.cidr.Contains(a) || s.gateway(a) || gateways[a] {
				continue
			}
			if held[a] = (v1alpha1.IPHolder{Address: a.String()}); len(held) > maxImported {
				return nil, false
			}
		}
	}
	first, _ := slices.BinarySearchFunc(from.endpoints, s.cidr.Addr(), func(e endpoint, a netip.Addr) int { return e.address.Compare(a) })
	for _, e := range from.endpoints[first:] {
		if !s.cidr.Contains(e.address) {
			break
		}
		if n := from.networks[e.network]; n == nil || ours[n] {
			held[e.address] = e.IPHolder
		}
	}
	out := make([]v1alpha1.IPHolder, 0, len(held))
	for _, a := range slices.SortedFunc(maps.Keys(held), netip.Addr.Compare) {
		out = append(out, held[a])
	}
	return out, true
}

// inUse are the addresses of DANM's bitmaps: MSB first, alloc over the whole cidr, alloc6 over allocation_pool_v6.cidr. The
// first and the last bit were set when the network was made.
func inUse(o danmv1.NetworkOptions) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if base, err := netip.ParsePrefix(o.Cidr); err == nil && !set(o.Alloc, base.Masked().Addr(), yield) {
			return
		}
		pool, err := netip.ParsePrefix(o.PoolV6.Cidr)
		if err != nil {
			pool, err = netip.ParsePrefix(o.Net6) // what DANM takes where nothing is said begins where net6 does
		}
		if err == nil {
			set(o.Alloc6, pool.Masked().Addr(), yield)
		}
	}
}

// set yields the addresses of a bitmap; false: no more are wanted.
func set(text string, base netip.Addr, yield func(netip.Addr) bool) bool {
	if len(text) > base64.StdEncoding.EncodedLen(maxBits/8) {
		return true
	}
	bitmap, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(bitmap) == 0 {
		return true
	}
	last := len(bitmap)*8 - 1
	for i, b := range bitmap {
		for ; b != 0; b &^= 0x80 >> bits.LeadingZeros8(b) {
			p := i*8 + bits.LeadingZeros8(b)
			if p != 0 && p != last && !yield(alloc.Offset(base, uint64(p))) {
				return false
			}
		}
	}
	return true
}

// gatewaysOf are the gateways of a network's routes, which DANM's bitmaps have among the addresses in use.
func gatewaysOf(o danmv1.NetworkOptions) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, routes := range []map[string]string{o.Routes, o.Routes6} {
		for _, via := range routes {
			if g, err := netip.ParseAddr(via); err == nil {
				out[g] = true
			}
		}
	}
	return out
}

// addressOf reads what DANM writes: an address with prefix length, "none" or "".
func addressOf(text string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil
}

// endpoint is an address that an interface of a Pod has.
type endpoint struct {
	v1alpha1.IPHolder
	address netip.Addr
	network string // key
}

// endpointsOf are the addresses of DanmEps, in order.
func endpointsOf(list []danmv1.DanmEp) []endpoint {
	var out []endpoint
	for i := range list {
		e := &list[i]
		for _, text := range []string{e.Spec.Iface.Address, e.Spec.Iface.AddressIPv6} {
			if a, ok := addressOf(text); ok {
				holder := v1alpha1.IPHolder{Address: a.String(), Namespace: e.Namespace, Pod: e.Spec.Pod, UID: e.Spec.PodUID, Node: e.Spec.Host}
				out = append(out, endpoint{holder, a, endpointNetwork(e)})
			}
		}
	}
	slices.SortFunc(out, func(a, b endpoint) int {
		return cmp.Or(a.address.Compare(b.address), cmp.Compare(a.UID, b.UID), cmp.Compare(a.network, b.network))
	})
	return out
}

// endpointNetwork is the key of the network that an endpoint is of.
func endpointNetwork(e *danmv1.DanmEp) string {
	return networkKey(e.Spec.Network(e.Namespace))
}

// orphans are the blocks that the import makes, one for each block of the grid with an address in use.
func (s *space) orphans(bits int, held []v1alpha1.IPHolder) []*v1alpha1.IPBlock {
	var out []*v1alpha1.IPBlock
	var last netip.Prefix
	for _, h := range held {
		p := netip.PrefixFrom(netip.MustParseAddr(h.Address), bits).Masked()
		if p != last {
			out = append(out, s.make(v1alpha1.RoleBlock, s.id.BlockName(p), p.String()))
			last = p
		}
		b := out[len(out)-1]
		b.Spec.Held = append(b.Spec.Held, h)
	}
	return out
}

// make is a new IPBlock of the controller's.
func (s *space) make(role, name, cidr string) *v1alpha1.IPBlock {
	b := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: role, Space: s.id, CIDR: cidr}}
	b.Name, b.Finalizers = name, []string{v1alpha1.IPFinalizer}
	b.Labels = map[string]string{v1alpha1.LabelSpace: s.id.Hash(), v1alpha1.LabelOwner: ""}
	return b
}

// late says whether a network came with addresses in use after its space was opened: they are not imported any more.
func late(n *Network, root *v1alpha1.IPBlock) bool {
	o := n.Spec.Options
	if root == nil || !n.Object.GetCreationTimestamp().After(root.CreationTimestamp.Time) {
		return false
	}
	for range inUse(o) {
		return true
	}
	return false
}
