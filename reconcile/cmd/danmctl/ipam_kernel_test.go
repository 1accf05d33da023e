package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"danm.io/danm/ipam"
	"danm.io/danm/node/link"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// TestKernelIPAMCheck compares a journal with a Pod's network namespace, while the journal is open: when all is right, when an
// address was added or lost there, and when the namespace is gone.
func TestKernelIPAMCheck(t *testing.T) {
	const inside = "DANM_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		isolated(t, inside)
		return
	}
	pod := exec.Command("sleep", "600") // holds the Pod's namespace
	pod.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	must(pod.Start())
	t.Cleanup(func() { _ = pod.Process.Kill(); _ = pod.Wait() })
	path := fmt.Sprintf("/proc/%d/ns/net", pod.Process.Pid)
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "host0"}, PeerName: "eth1"}))
	l, err := netlink.LinkByName("eth1")
	must(err)
	must(netlink.LinkSetNsPid(l, pod.Process.Pid))
	ns, err := netns.GetFromPath(path)
	must(err)
	h, err := netlink.NewHandleAt(ns)
	must(err)
	l, err = h.LinkByName("eth1")
	must(err)
	id, err := link.NamespaceID(path)
	must(err)

	dir := t.TempDir()
	s, err := ipam.Open(filepath.Join(dir, "ipam"), ipam.Options{})
	must(err)
	t.Cleanup(func() { _ = s.Close() })
	n := model.Network{Kind: model.DanmNet, Namespace: "acme", Name: "voice", NetworkID: "voice", Type: model.BRIDGE, SpaceDomain: "edge", IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("192.0.2.0/26")}}
	g, err := s.Acquire(t.Context(), ipam.Intent{Sandbox: "s1", PodUID: "u1", Namespace: "acme", Pod: "p1", Slots: 1,
		Wants: []ipam.Want{{IfName: "eth1", Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}},
		Record: func([]ipam.Grant) ([]byte, error) {
			return json.Marshal(map[string]any{"version": 1, "netns": path, "netnsID": id, "interfaces": []model.Attachment{{Type: model.BRIDGE, IfName: "eth1"}}})
		}})
	must(err)
	ours := &netlink.Addr{IPNet: prefixNet(g[0].Addresses[0])}
	foreign := &netlink.Addr{IPNet: prefixNet(netip.MustParsePrefix("192.0.2.50/26"))}
	check := func(what string, code int, want string) {
		t.Helper()
		have, out, errs := ctl(t, "ipam", "check", "--state-dir", dir)
		if have != code || !strings.Contains(out, want) || errs != "" {
			t.Errorf("%s: exit %d\n%s%s", what, have, out, errs)
		}
	}
	check("no address yet", 1, "NotInKernel: sandbox s1 of Pod acme/p1, interface eth1: the interface has not the address")
	must(h.AddrAdd(l, ours))
	check("as recorded", 0, "nothing differs: 1 record, 1 network namespace")
	must(h.AddrAdd(l, foreign))
	check("one more", 1, "192.0.2.50: NotInJournal: on sandbox s1 of Pod acme/p1, interface eth1")
	must(h.AddrDel(l, foreign))
	must(h.LinkDel(l))
	check("no link", 1, "the interface is not there")
	h.Close()
	must(ns.Close())
	must(pod.Process.Kill())
	_ = pod.Wait()
	check("gone", 1, "SandboxGone: its network namespace "+path+" is not there, and it has "+g[0].Addresses[0].Addr().String())
	must(s.Release(t.Context(), "s1"))
	check("released", 0, "nothing differs: 0 records")
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
