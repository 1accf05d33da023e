//go:build linux

package cnihost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"danm.io/danm/test/lab"
)

// Plugins makes this program a CNI plugin if it was called by the name of one, and does not return then. pair makes a veth with the
// addresses of its IPAM plugin; note is for chains, and adds the DNS of its configuration. A test program is its own plugins by links
// of these names (Install), because there is no compiler in the VM.
func Plugins() {
	funcs := map[string]skel.CNIFuncs{
		"pair": {Add: pairAdd, Del: pairDel, Check: pairCheck, GC: quiet, Status: quiet},
		"note": {Add: noteAdd, Del: quiet, Check: noteCheck, GC: quiet, Status: quiet},
	}
	if f, is := funcs[filepath.Base(os.Args[0])]; is {
		skel.PluginMainFuncs(f, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "a plugin of danm's tests")
		os.Exit(0)
	}
}

// Install puts the plugins beside the shim.
func (h *Host) Install() {
	h.T.Helper()
	self, err := os.Executable()
	must(h.T, err)
	h.T.Setenv("GORACE", "atexit_sleep_ms=0") // a program with the race detector waits for a second when it ends, else
	for _, name := range []string{"pair", "note"} {
		must(h.T, os.Symlink(self, filepath.Join(h.Bin, name)))
	}
}

type pluginConf struct {
	types.NetConf
	MTU  int `json:"mtu"`
	prev *types100.Result
}

func confOf(stdin []byte) (c pluginConf, err error) {
	if err := json.Unmarshal(stdin, &c); err != nil {
		return c, err
	}
	if c.RawPrevResult == nil {
		return c, nil
	}
	if err := version.ParsePrevResult(&c.NetConf); err != nil {
		return c, err
	}
	c.prev, err = types100.NewResultFromResult(c.PrevResult)
	return c, err
}

func quiet(*skel.CmdArgs) error { return nil }

func hostEnd(args *skel.CmdArgs) string {
	sum := sha256.Sum256([]byte(args.ContainerID + " " + args.IfName))
	return "pair" + hex.EncodeToString(sum[:5])
}

func pairAdd(args *skel.CmdArgs) error {
	conf, err := confOf(args.StdinData)
	if err != nil {
		return err
	}
	given, err := invoke.DelegateAdd(context.Background(), conf.IPAM.Type, args.StdinData, nil)
	if err != nil {
		return err
	}
	r, err := types100.NewResultFromResult(given)
	if err != nil {
		return err
	}
	host, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer host.Close()
	outside, inside := &types100.Interface{Name: hostEnd(args)}, &types100.Interface{Name: args.IfName, Sandbox: args.Netns}
	err = (&lab.NS{Path: args.Netns}).Do(func() error { return fill(args, host, conf.MTU, r, inside) })
	if err != nil {
		return errors.Join(err, pairDel(args))
	}
	l, err := netlink.LinkByName(outside.Name)
	if err != nil {
		return err
	}
	outside.Mac = l.Attrs().HardwareAddr.String()
	r.Interfaces = []*types100.Interface{outside, inside}
	for _, ip := range r.IPs {
		ip.Interface = types100.Int(1)
	}
	return types.PrintResult(r, conf.CNIVersion)
}

// fill makes the pair from inside the Pod, and says what it has become.
func fill(args *skel.CmdArgs, host *os.File, mtu int, r *types100.Result, says *types100.Interface) error {
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: args.IfName, MTU: mtu}, PeerName: hostEnd(args), PeerNamespace: netlink.NsFd(int(host.Fd()))}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add the pair: %w", err)
	}
	l, err := netlink.LinkByName(args.IfName)
	if err != nil {
		return err
	}
	for _, ip := range r.IPs {
		a := &netlink.Addr{IPNet: &ip.Address}
		if err := netlink.AddrAdd(l, a); err != nil {
			return fmt.Errorf("add %s: %w", ip.Address.String(), err)
		}
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return err
	}
	for _, route := range r.Routes {
		err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: &route.Dst, Gw: route.GW})
		if err != nil && !errors.Is(err, unix.EEXIST) { // another interface on the network may have the same
			return fmt.Errorf("add route to %s: %w", route.Dst.String(), err)
		}
	}
	says.Mac, says.Mtu = l.Attrs().HardwareAddr.String(), l.Attrs().MTU
	return nil
}

func pairDel(args *skel.CmdArgs) error {
	conf, err := confOf(args.StdinData)
	if err != nil {
		return err
	}
	if err := invoke.DelegateDel(context.Background(), conf.IPAM.Type, args.StdinData, nil); err != nil {
		return err
	}
	l, err := netlink.LinkByName(hostEnd(args))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

func pairCheck(args *skel.CmdArgs) error {
	conf, err := confOf(args.StdinData)
	if err != nil {
		return err
	}
	if conf.prev == nil {
		return errors.New("CHECK without prevResult")
	}
	if err := invoke.DelegateCheck(context.Background(), conf.IPAM.Type, args.StdinData, nil); err != nil {
		return err
	}
	return (&lab.NS{Path: args.Netns}).Do(func() error {
		l, err := netlink.LinkByName(args.IfName)
		if err != nil {
			return err
		}
		if l.Attrs().Flags&net.FlagUp == 0 {
			return fmt.Errorf("%s: down", args.IfName)
		}
		for _, ip := range conf.prev.IPs {
			have, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			if !containsAddress(have, ip.Address) {
				return fmt.Errorf("address %s is missing", ip.Address.String())
			}
		}
		for _, route := range conf.prev.Routes {
			have, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: &route.Dst, Gw: route.GW}, netlink.RT_FILTER_DST|netlink.RT_FILTER_GW)
			if err != nil {
				return err
			}
			if len(have) == 0 {
				return fmt.Errorf("route to %s via %s is missing", route.Dst.String(), route.GW)
			}
		}
		return nil
	})
}

func containsAddress(have []netlink.Addr, want net.IPNet) bool {
	for _, a := range have {
		if a.IPNet.String() == want.String() {
			return true
		}
	}
	return false
}

func noteAdd(args *skel.CmdArgs) error {
	conf, err := confOf(args.StdinData)
	if err != nil {
		return err
	}
	if conf.prev == nil {
		return errors.New("note is for chains")
	}
	conf.prev.DNS = conf.DNS
	return types.PrintResult(conf.prev, conf.CNIVersion)
}

func noteCheck(args *skel.CmdArgs) error {
	conf, err := confOf(args.StdinData)
	if err == nil && (conf.prev == nil || len(conf.prev.DNS.Nameservers) == 0) {
		err = errors.New("the result does not have the DNS that was added")
	}
	return err
}
