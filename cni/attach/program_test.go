package attach

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// programs is a Pod's interface for a function that vfio-pci has, whose card says a MAC of it; the test is skipped where there is no kind of
// link for it.
func (s *site) programs(pod Pod, mac string, vlan uint16) model.Attachment {
	s.t.Helper()
	vfs := s.functions(2)
	must(s.t, s.sys.Bind(vfs[1].PCI, "vfio-pci"))
	s.card.set(1, 9, mac)
	at := function(s.t, s.on[0], vfs[1].PCI, "net1", "", vlan, 0, "10.0.0.1/24", "fd00::1/64")
	_, err := s.on[0].Attach(s.t.Context(), pod, []model.Attachment{at})
	if errors.Is(err, unix.EOPNOTSUPP) {
		if after := s.card.says(1); !strings.HasPrefix(after, "9 0 ") || !strings.Contains(err.Error(), "create the dummy that stands for "+vfs[1].PCI) {
			s.t.Errorf("%v, left: %s", err, after)
		}
		s.t.Skip("kernel lacks dummy")
	}
	must(s.t, err)
	must(s.t, s.on[0].Detach(s.t.Context(), pod, []model.Attachment{at}))
	return at
}

// TestKernelFunctionOfAProgram: DANM's contract 1.11. What stands for the function has its name, MAC, addresses and routes, and the PCI
// address as alias.
func TestKernelFunctionOfAProgram(t *testing.T) {
	for _, vlan := range []uint16{0, 7} {
		s := newSite(t)
		ns, pod := s.pod("pod")
		at := s.programs(pod, asked, vlan)
		at.Routes = routes("10.61.0.0/16", "10.0.0.9")
		if at.Device != "" || at.Moved != nil || at.VF.Driver != "vfio-pci" || at.MAC != asked || at.VF.MAC != asked {
			t.Errorf("%+v, %+v", at, at.VF)
		}
		before := s.host()
		links, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		if links[0].MAC != asked || links[0].MTU != 1400 {
			t.Errorf("%+v", links[0])
		}
		kind, below := "dummy", ""
		if vlan != 0 {
			kind, below = "vlan", baseName("pod", "net1")
		}
		s.onLink(ns, "net1", func(l netlink.Link) error {
			v, tagged := l.(*netlink.Vlan)
			if l.Type() != kind || l.Attrs().Alias != at.DeviceID || tagged && v.VlanId != int(vlan) || l.Attrs().Flags&net.FlagUp == 0 {
				t.Errorf("%s %+v", l.Type(), l.Attrs())
			}
			return nil
		})
		if below != "" {
			s.onLink(ns, below, func(l netlink.Link) error {
				addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
				if l.Type() != "dummy" || l.Attrs().Alias != at.DeviceID || l.Attrs().HardwareAddr.String() != asked || len(addresses) > 0 {
					t.Errorf("%s %+v %v", l.Type(), l.Attrs(), addresses)
				}
				return err
			})
		}
		if want := map[uint16]string{0: "0 0 ", 7: "7 0 "}[vlan] + asked; s.card.says(1) != want {
			t.Errorf("%s instead of %s", s.card.says(1), want)
		}
		check := func(text string) {
			t.Helper()
			_, err := s.on[0].Check(t.Context(), pod, []model.Attachment{at})
			if text == "" && err != nil || text != "" && (!errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), text)) {
				t.Errorf("VLAN %d: CHECK: %v instead of %q", vlan, err, text)
			}
		}
		check("")
		s.card.set(1, 8, asked)
		check("the card has VLAN 8")
		s.onLink(ns, "net1", func(l netlink.Link) error { return netlink.LinkSetAlias(l, "mine") })
		check(`alias "mine" instead of ` + at.DeviceID)
		must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
		if after := s.host(); after != before {
			t.Errorf("host:\n%s\nbefore:\n%s", after, before)
		}
		allOrNothing(t, s, pod, []model.Attachment{at}, 12)
		if !testing.Short() || vlan != 0 {
			detachIsRepeatable(t, s, pod, []model.Attachment{at})
		}
		// A Pod that is gone, and another start.
		_, err = s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, []model.Attachment{at}))
		if after := s.host(); after != before {
			t.Errorf("without the Pod: host:\n%s\nbefore:\n%s", after, before)
		}
	}
}

// DANM's bug 231: a function without a MAC got a link with an address of zeros, which the kernel refuses.
func TestKernelFunctionOfAProgramWithoutMAC(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	at := s.programs(pod, "", 0)
	if at.MAC != "" {
		t.Errorf("%+v", at)
	}
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	if _, err := s.on[0].Check(t.Context(), pod, []model.Attachment{at}); err != nil || s.card.says(1) != "0 0 none" {
		t.Errorf("%v, %s", err, s.card.says(1))
	}
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	if d := dump(t, ns); strings.Contains(d, "net1") {
		t.Error(d)
	}
	at.MAC = asked // the Pod chooses one
	_, err = s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	if s.card.says(1) != "0 0 "+asked {
		t.Error(s.card)
	}
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	if s.card.says(1) != "9 0 none" {
		t.Error(s.card)
	}
}

// simulated gives the first host the kernel's simulated card (netdevsim) as physical function ens1; pairs of cables stand for the interfaces
// of its virtual ones.
func (s *site) simulated(n int) []lab.VF {
	s.t.Helper()
	const bus = "/sys/bus/netdevsim"
	if _, err := os.Stat(bus); err != nil {
		s.t.Skip("kernel lacks netdevsim")
	}
	vfs, err := s.sys.Add(pfPCI, "ens1", n)
	must(s.t, err)
	write := func(file, text string) error { return os.WriteFile(bus+"/"+file, []byte(text), 0) }
	must(s.t, s.hosts[0].Do(func() error { return write("new_device", "1 1") })) // it comes to the writer's namespace
	s.t.Cleanup(func() { must(s.t, write("del_device", "1")) })
	must(s.t, write("devices/netdevsim1/sriov_numvfs", "2"))
	must(s.t, s.hosts[0].Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().ParentDev == "netdevsim1" || l.Type() == "netdevsim" {
				return errors.Join(err, netlink.LinkSetDown(l), netlink.LinkSetName(l, "ens1"))
			}
		}
		return errors.Join(err, errors.New("there is no simulated card"))
	}))
	for _, vf := range vfs {
		s.spare(0, vf.Link)
	}
	return vfs
}

// TestKernelFunctionOfASimulatedCard: VLAN, priority and MAC go by rtnetlink to a card's driver, and come back.
func TestKernelFunctionOfASimulatedCard(t *testing.T) {
	s := newSite(t)
	vfs := s.simulated(2)
	says := func() (out []string) {
		s.onLink(s.hosts[0], "ens1", func(l netlink.Link) error {
			for _, vf := range l.Attrs().Vfs {
				out = append(out, (&card{vfs: []sriov.VF{{MAC: vf.Mac, VLAN: vf.Vlan, QoS: vf.Qos}}}).says(0))
			}
			return nil
		})
		return out
	}
	s.onLink(s.hosts[0], "ens1", func(l netlink.Link) error { return netlink.LinkSetVfVlanQos(l, 1, 9, 2) })
	before := dump(t, s.hosts[0])
	if got := says(); !slices.Equal(got, []string{"0 0 none", "9 2 none"}) {
		t.Fatalf("the card says %q", got)
	}
	_, pod := s.pod("pod")
	want := []model.Attachment{function(t, s.on[0], vfs[0].PCI, "net1", "", 0, 0, "10.0.0.1/24"), function(t, s.on[0], vfs[1].PCI, "net2", asked, 7, 3, "10.0.1.1/24")}
	if *want[1].VF != (model.Function{PF: "ens1", PFPCI: pfPCI, Number: 1, VLAN: 9, QoS: 2}) {
		t.Errorf("%+v", want[1].VF)
	}
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	if got := says(); !slices.Equal(got, []string{"0 0 none", "7 3 " + asked}) {
		t.Errorf("the card says %q", got)
	}
	_, err = s.on[0].Check(t.Context(), pod, want)
	must(t, err)
	s.onLink(s.hosts[0], "ens1", func(l netlink.Link) error { return netlink.LinkSetVfVlanQos(l, 1, 8, 3) })
	if _, err := s.on[0].Check(t.Context(), pod, want); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "the card has VLAN 8, priority 3 for it instead of VLAN 7, priority 3") {
		t.Errorf("CHECK: %v", err)
	}
	must(t, s.on[0].Detach(t.Context(), pod, want))
	if after := dump(t, s.hosts[0]); after != before || !slices.Equal(says(), []string{"0 0 none", "9 2 none"}) {
		t.Errorf("host:\n%s\nbefore:\n%s\nthe card says %q", after, before, says())
	}
	want[1].VLAN = 4096 // more than a tag holds
	if _, err := s.on[0].Attach(t.Context(), pod, want); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "set VLAN 4096, priority 3 on virtual function 1 of ens1") {
		t.Errorf("%v", err)
	}
	if after := dump(t, s.hosts[0]); after != before || !slices.Equal(says(), []string{"0 0 none", "9 2 none"}) {
		t.Errorf("host:\n%s\nbefore:\n%s\nthe card says %q", after, before, says())
	}
	want[1].VLAN = 7
	allOrNothing(t, s, pod, want[1:], 14)
	if !slices.Equal(says(), []string{"0 0 none", "9 2 none"}) {
		t.Errorf("the card says %q", says())
	}
}

// TestKernelFunctionBackFromADeadPod: the VM's card stands for a function whose Pod ends without a word.
func TestKernelFunctionBackFromADeadPod(t *testing.T) {
	if os.Getenv("DANM_BIN") == "" {
		t.Skip("hardware is the VM's")
	}
	first := &lab.NS{Name: "first", Path: "/proc/1/ns/net"}
	sys := lab.Functions{Root: t.TempDir()}
	vfs, err := sys.Add(pfPCI, "lo", 1)
	must(t, err)
	var a *Attacher
	must(t, first.Do(func() (err error) { a, err = New(sys.Root); return err }))
	defer a.Close()
	must(t, first.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().HardwareAddr.String() == "52:54:00:da:03:01" {
				err = errors.Join(err, sys.Name(vfs[0].PCI, l.Attrs().Name))
			}
		}
		return err
	}))
	before := dump(t, first)
	for i, change := range []func(l netlink.Link) error{
		func(netlink.Link) error { return nil },
		func(l netlink.Link) error {
			mac, _ := net.ParseMAC("02:00:00:00:00:77")
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetName(l, "mine"), netlink.LinkSetAlias(l, "danm-pod:lo"))
		},
	} {
		world, err := lab.NewWorld(t.TempDir())
		must(t, err)
		ns, err := world.Add("pod")
		must(t, err)
		f, err := os.Open(ns.Path)
		must(t, err)
		at := function(t, a, vfs[0].PCI, "net1", "", 0, 0)
		_, err = a.Attach(t.Context(), Pod{Sandbox: "s", Netns: f}, []model.Attachment{at})
		must(t, err)
		s := &site{t: t}
		s.onLink(ns, "net1", change)
		f.Close()
		must(t, world.Remove(ns))
		must(t, world.Close())
		must(t, a.Detach(t.Context(), Pod{Sandbox: "s"}, []model.Attachment{at}))
		if after := dump(t, first); after != before {
			t.Errorf("%d: %s\nbefore:\n%s", i, after, before)
		}
	}
}
