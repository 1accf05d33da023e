package server

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"danm.io/danm/spec/model"
)

// result writes the answer to ADD in the asked version: interfaces in order, the first one first in everything, because
// runtimes take the first address as the Pod's.
func result(cniVersion string, each []*types100.Result) ([]byte, error) {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	for _, one := range each {
		merge(r, one)
	}
	return written(r, cniVersion)
}

// results are what each interface has become, in order; one of another plugin's is nil if that said nothing.
func results(cniVersion, netns string, interfaces []model.Attachment, all []made) ([]*types100.Result, error) {
	has11, err := version.GreaterThanOrEqualTo(cniVersion, "1.1.0")
	if err != nil {
		return nil, err
	}
	out := make([]*types100.Result, len(interfaces))
	for i, at := range interfaces {
		if at.Delegate != nil {
			out[i] = all[i].result
			continue
		}
		in := &types100.Interface{Name: at.IfName, Mac: all[i].link.MAC, Sandbox: netns}
		if has11 {
			in.Mtu = all[i].link.MTU
			if at.VF != nil {
				in.PciID = at.DeviceID
			}
		}
		out[i] = &types100.Result{Interfaces: []*types100.Interface{in}}
		addressing(out[i], at, types100.Int(0))
	}
	return out, nil
}

// merge adds what another plugin answered. An address that it says no interface of is the Pod's end's.
func merge(r, more *types100.Result) {
	if more == nil {
		return
	}
	first, inPod := len(r.Interfaces), -1
	for i, in := range more.Interfaces {
		if in.Sandbox != "" && inPod < 0 {
			inPod = first + i
		}
		r.Interfaces = append(r.Interfaces, in)
	}
	for _, ip := range more.IPs {
		moved := *ip
		switch {
		case ip.Interface != nil && *ip.Interface >= 0 && *ip.Interface < len(more.Interfaces):
			moved.Interface = types100.Int(first + *ip.Interface)
		case inPod >= 0:
			moved.Interface = types100.Int(inPod)
		default:
			moved.Interface = nil
		}
		r.IPs = append(r.IPs, &moved)
	}
	r.Routes = append(r.Routes, more.Routes...)
	if len(r.DNS.Nameservers)+len(r.DNS.Search)+len(r.DNS.Options) == 0 && r.DNS.Domain == "" {
		r.DNS = more.DNS
	}
}

// ipamResult is the answer to a plugin that asked for addresses alone (CNI specification, section 5, "Delegated plugins (IPAM)").
func ipamResult(cniVersion string, at model.Attachment) ([]byte, error) {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	addressing(r, at, nil)
	return written(r, cniVersion)
}

// addressing adds the addresses and routes of one attachment; of is its place among the interfaces, nil where there are none.
func addressing(r *types100.Result, at model.Attachment, of *int) {
	for _, p := range at.Addresses {
		ip := &types100.IPConfig{Interface: of, Address: ipNet(p)}
		for _, gw := range at.Gateways {
			if gw.Is4() == p.Addr().Is4() {
				ip.Gateway = gw.AsSlice()
			}
		}
		r.IPs = append(r.IPs, ip)
	}
	for _, route := range at.Routes {
		out := &types.Route{Dst: ipNet(route.To)}
		if route.Via.IsValid() {
			out.GW = route.Via.AsSlice()
		}
		r.Routes = append(r.Routes, out)
	}
}

func written(r *types100.Result, cniVersion string) ([]byte, error) {
	has11, err := version.GreaterThanOrEqualTo(cniVersion, "1.1.0")
	if err != nil {
		return nil, err
	}
	if !has11 {
		r = before11(r)
	}
	asked, err := r.GetAsVersion(cniVersion)
	if err != nil {
		return nil, fmt.Errorf("write result as CNI %s: %w", cniVersion, err)
	}
	return json.MarshalIndent(asked, "", "    ")
}

// before11 is a result without what came with version 1.1.0: the library has one type for all, and hands on what a plugin of another
// version has said.
func before11(r *types100.Result) *types100.Result {
	out := *r
	out.Interfaces, out.Routes = nil, nil
	for _, in := range r.Interfaces {
		out.Interfaces = append(out.Interfaces, &types100.Interface{Name: in.Name, Mac: in.Mac, Sandbox: in.Sandbox})
	}
	for _, route := range r.Routes {
		out.Routes = append(out.Routes, &types.Route{Dst: route.Dst, GW: route.GW})
	}
	return &out
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
