package ipam

import (
	"fmt"
	"net/netip"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// ask is one address of an intent, checked as far as that needs no state.
type ask struct {
	want   int
	ifName string
	// network is its key, for people: several networks may be on one space.
	network string

	space  Space
	geo    alloc.Geometry
	sub    model.Subnet
	static netip.Addr // invalid = dynamic
	sticky *v1alpha1.IPReservation
	kept   string // the reservation's hash
	got    netip.Addr
}

// asks are an intent's addresses, v4 before v6 in each want.
func asks(in Intent) ([]ask, error) {
	if in.Sandbox == "" || in.PodUID == "" {
		return nil, fmt.Errorf("sandbox %q, Pod UID %q: neither may be empty: %w", in.Sandbox, in.PodUID, ErrIntent)
	}
	var out []ask
	names := map[string]bool{}
	for i, w := range in.Wants {
		if w.IfName == "" || names[w.IfName] {
			return nil, fmt.Errorf("interface name %q is empty or used twice: %w", w.IfName, ErrIntent)
		}
		names[w.IfName] = true
		for _, f := range []struct {
			family string
			req    model.AddressRequest
			sub    *model.Subnet
		}{{"IPv4", w.IP, w.Network.IPv4}, {"IPv6", w.IP6, w.Network.IPv6}} {
			a, wanted, err := newAsk(in, w, f.family, f.req, f.sub)
			if err != nil {
				return nil, fmt.Errorf("%s address of interface %s in network %s: %w", f.family, w.IfName, w.Network.Key(), err)
			}
			if wanted {
				a.want = i
				out = append(out, a)
			}
		}
	}
	return out, nil
}

func newAsk(in Intent, w Want, family string, req model.AddressRequest, sub *model.Subnet) (ask, bool, error) {
	a := ask{ifName: w.IfName, network: w.Network.Key()}
	switch req.Mode {
	case model.NoAddress, model.AddressNone:
		return ask{}, false, nil
	case model.AddressDynamic:
	case model.AddressStatic:
		if a.static = req.Addr.Unmap(); !a.static.IsValid() {
			return ask{}, false, fmt.Errorf("static without an address: %w", ErrIntent)
		}
	default:
		return ask{}, false, fmt.Errorf("mode %q: %w", req.Mode, ErrIntent)
	}
	if sub == nil {
		return ask{}, false, fmt.Errorf("the network has no %s subnet: %w", family, ErrL2)
	}
	n := w.Network
	a.sub = *sub
	a.space = Space{Domain: n.SpaceDomain, ID: n.ID(), VXLAN: n.VXLAN, CIDR: sub.CIDR}
	var err error
	if in.Claimed {
		a.geo, err = alloc.ClaimedGeometry(sub.CIDR)
	} else {
		a.geo, err = alloc.NewGeometry(sub.CIDR, n.BlockSize, in.Slot, in.Slots)
	}
	if k := w.Sticky; k.UID != "" && in.Claimed && !a.static.IsValid() {
		a.sticky = &v1alpha1.IPReservation{Namespace: k.Namespace, StatefulSet: k.StatefulSet, UID: k.UID, Ordinal: k.Ordinal, IfName: w.IfName}
		a.kept = a.sticky.Hash(a.space.object())
	}
	return a, true, err
}

// object is the space as IPBlocks have it.
func (s Space) object() v1alpha1.IPSpace {
	return v1alpha1.IPSpace{Domain: s.Domain, ID: int64(s.ID), VXLAN: s.VXLAN, CIDR: s.CIDR.String()}
}

func (a ask) grant() netip.Prefix { return netip.PrefixFrom(a.got, a.sub.CIDR.Bits()) }
