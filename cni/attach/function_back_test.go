package attach

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// TestKernelFunctionIsReset: what the card was told is taken back whatever has become of Pod, card and function meanwhile.
func TestKernelFunctionIsReset(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(s *site, pod *Pod, at *model.Attachment)
		says      string
		fails     string
	}{
		"nothing": {func(*site, *Pod, *model.Attachment) {}, "9 0 02:00:00:00:00:99", ""},
		"the physical one has another name": {func(s *site, _ *Pod, _ *model.Attachment) {
			s.onLink(s.hosts[0], "ens1", func(l netlink.Link) error {
				return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "ens1np0"))
			})
			must(s.t, s.sys.Name(pfPCI, "ens1np0"))
			s.card.pf = "ens1np0"
		}, "9 0 02:00:00:00:00:99", ""},
		"the functions are gone": {func(s *site, _ *Pod, _ *model.Attachment) { must(s.t, s.sys.Remove(pfPCI)) }, "7 3 " + asked, ""},
		"another function has the address": {func(_ *site, _ *Pod, at *model.Attachment) {
			was := *at.VF
			was.Number++
			at.VF = &was
		}, "7 3 " + asked, ""},
		"a program has it":          {func(s *site, _ *Pod, at *model.Attachment) { must(s.t, s.sys.Bind(at.DeviceID, "vfio-pci")) }, "9 0 02:00:00:00:00:99", ""},
		"the machine is started":    {func(s *site, pod *Pod, _ *model.Attachment) { pod.Netns, pod.Rebooted = nil, true }, "7 3 " + asked, ""},
		"the namespace is not ours": {func(_ *site, pod *Pod, _ *model.Attachment) { pod.Netns = nil }, "7 3 " + asked, ""},
		"others set it":             {func(s *site, _ *Pod, _ *model.Attachment) { s.card.set(0, 9, "02:00:00:00:00:99") }, "9 0 02:00:00:00:00:99", ""},
		"they were made anew":       {func(s *site, _ *Pod, _ *model.Attachment) { s.card.set(0, 9, "") }, "9 0 none", ""},
		"the physical one is away":  {func(s *site, _ *Pod, _ *model.Attachment) { must(s.t, s.sys.Name(pfPCI, "")) }, "7 3 " + asked, "take VLAN and MAC"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.functions(2)
			s.card.set(0, 9, "02:00:00:00:00:99")
			_, pod := s.pod("pod")
			at := function(t, s.on[0], "0000:3b:02.0", "net1", asked, 7, 3)
			_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
			must(t, err)
			c.meanwhile(s, &pod, &at)
			for range 2 {
				err := s.on[0].Detach(t.Context(), pod, []model.Attachment{at})
				if name == "the namespace is not ours" && isAway(err, at) {
					err = nil
				}
				if c.fails == "" && err != nil || c.fails != "" && (!errors.Is(err, ErrHostLink) || !strings.Contains(err.Error(), c.fails)) {
					t.Fatal(err)
				}
				if s.card.says(0) != c.says || s.card.says(1) != "0 0 none" {
					t.Fatalf("%s", s.card)
				}
			}
			if back := strings.Contains(dump(t, s.hosts[0]), "link ens1v0 veth mtu 1450"); back != (pod.Netns != nil) {
				t.Errorf("back in the host: %v", back)
			}
		})
	}
}

// A stand-in ends with its namespace, as no function does: it is missing until sysfs says that no driver has the function, and then what the
// card was told is taken back all the same.
func TestKernelFunctionWhosePodIsGone(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	ns, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3)
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	pod.Netns.Close()
	must(t, s.world.Remove(ns))
	must(t, s.sys.Bind(vfs[0].PCI, ""))
	must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, []model.Attachment{at}))
	if s.card.says(0) != "0 0 none" || strings.Contains(dump(t, s.hosts[0]), "ens1v0") {
		t.Error(s.host())
	}
}

// The path of a Pod's namespace is gone while processes keep the namespace, or a privileged Pod has taken its functions elsewhere: they
// keep their VLAN until they are back. However many they are, they are waited for once.
func TestKernelFunctionsThatAreKept(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(6)
	before := s.host()
	ns, pod := s.pod("pod")
	var want []model.Attachment
	for i, vf := range vfs {
		want = append(want, function(t, s.on[0], vf.PCI, fmt.Sprintf("net%d", i), "", 7, 3))
	}
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	kept := func() {
		t.Helper()
		for i := range vfs {
			if s.card.says(i) != "7 3 none" {
				t.Fatalf("the Pod's frames are untagged:\n%s", s.card)
			}
		}
	}
	start := time.Now()
	if err := s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, want); !isAway(err, want...) || !strings.Contains(err.Error(), vfs[5].PCI) {
		t.Error(err)
	}
	if took := time.Since(start); took > 4*returnTime {
		t.Errorf("six functions are waited for for %v", took)
	}
	kept()
	within, inner := s.pod("inner")
	for _, at := range want {
		s.onLink(ns, at.IfName, func(l netlink.Link) error { return netlink.LinkSetNsFd(l, int(inner.Netns.Fd())) })
	}
	start = time.Now()
	if err := s.on[0].Detach(t.Context(), pod, want); !isAway(err, want...) {
		t.Error(err)
	}
	if took := time.Since(start); took > returnTime {
		t.Errorf("functions that are not in a living namespace are waited for for %v", took)
	}
	kept()
	for _, at := range want {
		s.onLink(within, at.IfName, func(l netlink.Link) error {
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetNsFd(l, int(s.on[0].home.Fd())))
		})
	}
	must(t, s.on[0].Detach(t.Context(), pod, want))
	if after := s.host(); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

// One that comes back by itself, under the name that sysfs tells and with nothing that marks it, is what it was again.
func TestKernelFunctionThatComesBack(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	before := s.host()
	ns, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3)
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	s.onLink(ns, "net1", func(l netlink.Link) error {
		mac, _ := net.ParseMAC("02:00:00:00:00:77")
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetAlias(l, ""), netlink.LinkSetName(l, "dev7"), netlink.LinkSetNsFd(l, int(s.on[0].home.Fd())))
	})
	must(t, s.sys.Name(vfs[0].PCI, "dev7"))
	must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, []model.Attachment{at}))
	if after := s.host(); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

// TestKernelFunctionIsMended: the card's driver starts anew, and the function is in the host again, with another MAC and without a VLAN.
func TestKernelFunctionIsMended(t *testing.T) {
	for n := 1; ; n++ {
		s := newSite(t)
		vfs := s.functions(1)
		ns, pod := s.pod("pod")
		at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3, "10.0.0.1/24")
		at.Routes = routes("10.61.0.0/16", "10.0.0.9")
		both := []model.Attachment{at, attachment(model.MACVLAN, pod.Sandbox, "net2", "10.62.0.5/24")}
		_, err := s.on[0].Attach(t.Context(), pod, both)
		must(t, err)
		must(t, ns.DeleteLink("net1"))
		s.card.set(0, 0, "")
		if _, err := s.on[0].Mend(t.Context(), pod, both); !errors.Is(err, ErrHostLink) || s.card.says(0) != "0 0 none" {
			t.Fatalf("mended with nothing: %v, %s", err, s.card)
		}
		s.spare(0, vfs[0].Link)
		f := &faulty{n: n, act: func() error { return errInjected }}
		mended, err := withFault(s.on[0], f).Mend(t.Context(), pod, both)
		if hit := f.count >= n; hit != errors.Is(err, errInjected) || !hit && !slices.Equal(mended, []string{"net1"}) {
			t.Fatalf("call %d of %d: %v, %v", n, f.count, mended, err)
		}
		_, err = s.on[0].Mend(t.Context(), pod, both)
		must(t, err)
		if _, err := s.on[0].Check(t.Context(), pod, both); err != nil || f.count < n && s.card.says(0) != "7 3 "+at.MAC {
			t.Fatalf("call %d: %v, %s", n, err, s.card)
		}
		must(t, s.on[0].Detach(t.Context(), pod, both))
		if s.card.says(0) != "0 0 none" || !strings.Contains(dump(t, s.hosts[0]), "link ens1v0 veth mtu 1450") {
			t.Fatalf("call %d: %s", n, s.host())
		}
		if f.count < n {
			break
		}
	}
}

// As long as the Pod has the function, its frames are its network's: whatever fails, the VLAN is not taken back before.
func TestKernelFunctionKeepsItsVLANInThePod(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	ns, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3)
	stayed := 0
	for n := 1; ; n++ {
		_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		f := &faulty{n: n, act: func() error { return errInjected }}
		_ = withFault(s.on[0], f).Detach(t.Context(), pod, []model.Attachment{at})
		if strings.Count(dump(t, ns), "link ") > 1 {
			if stayed++; s.card.says(0) != "7 3 none" {
				t.Fatalf("call %d: the Pod has the function and the card says %s", n, s.card)
			}
		}
		must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
		if f.count < n {
			break
		}
	}
	if stayed < 3 {
		t.Errorf("the function stayed %d times", stayed)
	}
}

// What another Pod has got since stays as that one has it: in the host, as its program's, or in its namespace.
func TestKernelFunctionThatAnotherPodHas(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(2)
	s.spare(0, "spare0")
	_, pod := s.pod("pod")
	card := s.moved(0, "net3")
	want := []model.Attachment{function(t, s.on[0], vfs[0].PCI, "net1", asked, 7, 3), function(t, s.on[0], vfs[1].PCI, "net2", "", 7, 3), card}
	want[1].VF.Driver, want[1].Moved = "vfio-pci", nil
	s.card.set(0, 8, asked)
	s.card.set(1, 8, "")
	s.onLink(s.hosts[0], vfs[0].Link, func(l netlink.Link) error { return netlink.LinkSetAlias(l, marker+"ens1v0") })
	s.onLink(s.hosts[0], "spare0", func(l netlink.Link) error { return netlink.LinkSetAlias(l, marker+"spare0") })
	before := s.host()
	pod.Lost = []string{"net1", "net2", "net3"}
	must(t, s.on[0].Detach(t.Context(), pod, want))
	if after := s.host(); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

// isAway says whether Detach has left those functions, and nothing else.
func isAway(err error, want ...model.Attachment) bool {
	away := (*Away)(nil)
	return errors.As(err, &away) && reflect.DeepEqual(away.Interfaces, want)
}

// A function that Detach has not waited for is made what it was when it is back at last, whatever the Pod has made of it, and wherever that
// is cut off.
func TestKernelFunctionThatIsLate(t *testing.T) {
	for n := 1; ; n++ {
		s := newSite(t)
		vfs := s.functions(1)
		before := s.host()
		ns, pod := s.pod("pod")
		at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3)
		_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		if n == 1 {
			if err := s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, []model.Attachment{at}); !isAway(err, at) {
				t.Fatal(err)
			}
		}
		if done, err := s.on[0].Return(t.Context(), pod.Sandbox, at); done || err != nil || s.card.says(0) != "7 3 none" {
			t.Fatalf("it is not back: %v %v, %s", done, err, s.card)
		}
		s.onLink(ns, "net1", func(l netlink.Link) error {
			mac, _ := net.ParseMAC("02:00:00:00:00:77")
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetAlias(l, "mine"), netlink.LinkSetMTU(l, 1300), netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetName(l, "dev9"), netlink.LinkSetNsFd(l, int(s.on[0].home.Fd())))
		})
		must(t, s.sys.Name(vfs[0].PCI, "dev9"))
		f := &faulty{n: n, act: func() error { return errInjected }}
		if done, err := withFault(s.on[0], f).Return(t.Context(), pod.Sandbox, at); done != (f.count < n) || done == errors.Is(err, errInjected) {
			t.Fatalf("call %d of %d: %v, %v", n, f.count, done, err)
		}
		if strings.Contains(dump(t, s.hosts[0]), "link ens1v0 ") {
			must(t, s.sys.Name(vfs[0].PCI, "ens1v0"))
		}
		if done, err := s.on[0].Return(t.Context(), pod.Sandbox, at); !done || err != nil {
			t.Fatalf("call %d: %v, %v", n, done, err)
		}
		if after := s.host(); after != before {
			t.Fatalf("call %d: host:\n%s\nbefore:\n%s", n, after, before)
		}
		if f.count < n {
			must(t, s.sys.Remove(pfPCI))
			must(t, s.hosts[0].DeleteLink("ens1v0"))
			if done, err := s.on[0].Return(t.Context(), pod.Sandbox, at); !done || err != nil {
				t.Errorf("one that is gone for good: %v %v", done, err)
			}
			break
		}
	}
}

// What a Pod, or an agent whose journal is lost, has left on a function is no alias of the host's.
func TestKernelFunctionWithAnothersMark(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	s.onLink(s.hosts[0], vfs[0].Link, func(l netlink.Link) error { return netlink.LinkSetAlias(l, marker+"ens1v7") })
	if at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3); at.Moved.Alias != "" {
		t.Errorf("%+v", at.Moved)
	}
}
