package main

import (
	"encoding/json"
	"net/netip"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"
)

// ipamSection is the part of a configuration that an IPAM plugin reads.
type ipamSection struct {
	Type   string      `json:"type"`
	Socket string      `json:"socket"`
	IPs    []fakeIP    `json:"ips"`
	Routes []fakeRoute `json:"routes"`
}

// fakeRoute is a route of the network that the addresses are of.
type fakeRoute struct {
	To  string `json:"dst"`
	Via string `json:"gw,omitempty"`
}

// fakeIP is an address that a metaplugin put into its delegate's configuration, as DANM does.
type fakeIP struct {
	CIDR    string `json:"ipcidr"`
	Version int    `json:"version"` // 4, 6, or 0 where it says nothing
}

// ipamSection reads what of the section can be read: it may be another plugin's, and then its form is not ours to judge.
func (c conf) ipamSection() (s ipamSection) {
	_ = json.Unmarshal(c.IPAM, &s)
	return s
}

// isFake says whether a call is one for fakeipam.
func isFake(name string, c conf) bool {
	return name == "fakeipam" || c.Type != "danm" && c.ipamSection().Type == "fakeipam"
}

// fakeResult is an IPAM result; before 1.0.0 each address says its family (CNI specification 0.4.0, "IP allocation").
type fakeResult struct {
	CNIVersion string      `json:"cniVersion"`
	IPs        []givenIP   `json:"ips"`
	Routes     []fakeRoute `json:"routes,omitempty"`
	DNS        struct{}    `json:"dns"`
}

type givenIP struct {
	Version string `json:"version,omitempty"`
	Address string `json:"address"`
}

// fake answers ADD with the addresses of the configuration; there is nothing to do for any other command.
func fake(c invocation) (out []byte, failure *types.Error) {
	if c.req.Command != "ADD" {
		return nil, nil
	}
	var section ipamSection
	if err := json.Unmarshal(c.conf.IPAM, &section); err != nil && len(c.conf.IPAM) > 0 {
		return nil, types.NewError(types.ErrDecodingFailure, "decode ipam: "+err.Error(), "ConfInvalid")
	}
	if len(section.IPs) == 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "No IP was passed to fake IPAM", "ConfInvalid")
	}
	r := fakeResult{CNIVersion: c.conf.CNIVersion}
	for _, ip := range section.IPs {
		p, err := netip.ParsePrefix(ip.CIDR)
		version := 6
		if p.Addr().Is4() {
			version = 4
		}
		if err != nil || ip.Version != 0 && ip.Version != version {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, "ipam.ips: "+quote(ip.CIDR)+" is no address with a length of IP version "+strconv.Itoa(ip.Version), "ConfInvalid")
		}
		given := givenIP{Address: p.String()}
		if c.conf.CNIVersion[0] == '0' {
			given.Version = strconv.Itoa(version)
		}
		r.IPs = append(r.IPs, given)
	}
	for _, route := range section.Routes {
		_, err := netip.ParsePrefix(route.To)
		if _, bad := netip.ParseAddr(route.Via); err != nil || bad != nil && route.Via != "" {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, "ipam.routes: "+quote(route.To)+" via "+quote(route.Via)+" is no route", "ConfInvalid")
		}
	}
	r.Routes = section.Routes
	out, err := json.MarshalIndent(r, "", "    ")
	if err != nil {
		return nil, types.NewError(types.ErrInternal, err.Error(), "")
	}
	return append(out, '\n'), nil
}
