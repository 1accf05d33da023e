package attach

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const asked = "02:00:00:00:00:42"

func TestKernelFunction(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(3)
	must(t, s.sys.RDMA(vfs[1].PCI, "mlx5_1"))
	s.card.set(1, 9, "02:00:00:00:00:99") // the host's own, from before
	before := s.host()
	ns, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[1].PCI, "eth0", asked, 7, 3, "10.0.0.1/24", "fd00::1/64")
	if *at.VF != (model.Function{PF: "ens1", PFPCI: pfPCI, Number: 1, MAC: "02:00:00:00:00:99", VLAN: 9}) || at.Device != "ens1v1" || at.Moved.MTU != 1450 {
		t.Errorf("looked at: %+v %+v", at, at.VF)
	}
	links, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	if links[0].MTU != 1400 || links[0].MAC != asked || !slices.Equal(links[0].RDMA, []string{"mlx5_1"}) {
		t.Errorf("%+v", links[0])
	}
	if s.card.says(1) != "7 3 "+asked || s.card.says(0) != "0 0 none" || s.card.says(2) != "0 0 none" {
		t.Error(s.card)
	}
	check := func(text string) {
		t.Helper()
		_, err := s.on[0].Check(t.Context(), pod, []model.Attachment{at})
		if text == "" && err != nil || text != "" && (!errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), text)) {
			t.Errorf("CHECK: %v instead of %q", err, text)
		}
	}
	check("")
	other, podB := s.pod("b")
	_, err = s.on[1].Attach(t.Context(), podB, []model.Attachment{attachment(model.MACVLAN, "b", "eth0", "10.0.0.2/24", "fd00::2/64")})
	must(t, err)
	for _, address := range []string{"10.0.0.1", "fd00::1"} {
		must(t, other.Ping(address, 30*time.Second))
	}
	if _, err := s.on[0].SurveyFunction(vfs[1].PCI); !errors.Is(err, ErrHostLink) {
		t.Errorf("another Pod would get it, too: %v", err)
	}
	if index, err := s.on[0].FunctionIndex(vfs[1].PCI); index != 0 || err != nil {
		t.Errorf("in the host: %d, %v", index, err)
	}
	if index, err := s.on[0].FunctionIndex(vfs[0].PCI); index == 0 || err != nil {
		t.Errorf("not in the host: %d, %v", index, err)
	}
	s.card.set(1, 8, asked)
	check("the card has VLAN 8, priority 0 for it instead of VLAN 7, priority 3")
	must(t, s.sys.Name(pfPCI, ""))
	check("physical function " + pfPCI + " is gone")
	must(t, s.sys.Name(pfPCI, "ens1"))
	s.onLink(ns, "eth0", func(l netlink.Link) error { // the Pod does with it what it likes
		mac, _ := net.ParseMAC("02:00:00:00:00:77")
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetMTU(l, 1300))
	})
	check("MAC 02:00:00:00:00:77 instead of " + asked)
	s.onLink(ns, "eth0", func(l netlink.Link) error { return netlink.LinkSetAlias(l, "mine") })
	check("it is not the host's ens1v1")
	s.onLink(ns, "eth0", func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetAlias(l, marker+"ens1v1"), netlink.LinkSetName(l, "mine"))
	})
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	if after := s.host(); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
	if d := dump(t, ns); strings.Contains(d, "mine") || strings.Contains(d, "ens1") {
		t.Errorf("the Pod keeps:\n%s", d)
	}
}

func TestKernelFunctionIsMovedOrNot(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(2)
	s.card.set(0, 9, "02:00:00:00:00:99")
	_, pod := s.pod("pod")
	want := []model.Attachment{function(t, s.on[0], vfs[0].PCI, "net1", asked, 7, 3, "10.0.0.1/24", "fd00::1/64"),
		function(t, s.on[0], vfs[1].PCI, "net2", "", 0, 0, "10.0.1.1/24")}
	want[0].Table, want[0].PolicyRoutes = 300, routes("10.50.0.0/16", "10.0.0.254")
	allOrNothing(t, s, pod, want, 30)
	detachIsRepeatable(t, s, pod, want)
}

// Of two functions each has its own: nothing of the other's is set, and the name that sysfs tells is believed only for the kind of
// link that was looked at.
func TestKernelFunctionsOfTwoPods(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(2)
	before := s.host()
	_, podA := s.pod("a")
	_, podB := s.pod("b")
	a := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 0)
	b := function(t, s.on[0], vfs[1].PCI, "net1", "", 8, 0)
	for _, step := range []struct {
		pod Pod
		at  model.Attachment
	}{{podA, a}, {podB, b}} {
		_, err := s.on[0].Attach(t.Context(), step.pod, []model.Attachment{step.at})
		must(t, err)
	}
	_, podC := s.pod("c")
	if _, err := s.on[0].Attach(t.Context(), podC, []model.Attachment{a}); !errors.Is(err, ErrHostLink) { // nobody hindered it
		t.Errorf("a second Pod got it: %v", err)
	}
	if s.card.says(0) != "7 0 none" || s.card.says(1) != "8 0 none" {
		t.Errorf("%s", s.card)
	}
	must(t, s.on[0].Detach(t.Context(), podA, []model.Attachment{a}))
	if s.card.says(0) != "0 0 none" || s.card.says(1) != "8 0 none" {
		t.Errorf("%s", s.card)
	}
	if _, err := s.on[0].Check(t.Context(), podB, []model.Attachment{b}); err != nil {
		t.Error(err)
	}
	must(t, s.on[0].Detach(t.Context(), podB, []model.Attachment{b}))
	if after := s.host(); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

// That a Pod still has its function is asked each round, of every one: it costs the same however many a card has.
func TestKernelFunctionIndexOfMany(t *testing.T) {
	s := newSite(t)
	vfs, err := s.sys.Add(pfPCI, "ens1", 128)
	must(t, err)
	must(t, s.sys.Name(vfs[127].PCI, ""))
	if got := testing.AllocsPerRun(10, func() {
		if index, err := s.on[0].FunctionIndex(vfs[127].PCI); index != 0 || err != nil {
			t.Errorf("%d, %v", index, err)
		}
	}); got > 50 {
		t.Errorf("%v allocations", got)
	}
}

// A card that sets nothing is good for networks that want nothing of it; else the error says what it cannot, and nothing is left.
func TestKernelFunctionOfACardThatCannot(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	s.card.mute = true
	before := s.host()
	_, pod := s.pod("pod")
	plain := function(t, s.on[0], vfs[0].PCI, "net1", "", 0, 0, "10.0.0.1/24")
	for _, c := range []struct {
		change func(at *model.Attachment)
		text   string
	}{
		{func(at *model.Attachment) { at.VLAN = 7 }, "set VLAN 7, priority 0 on virtual function 0 of ens1"},
		{func(at *model.Attachment) { at.QoS = 1 }, "set VLAN 0, priority 1 on virtual function 0 of ens1"},
		{func(at *model.Attachment) { at.MAC = asked }, "set MAC " + asked + " on virtual function 0 of ens1"},
	} {
		at := plain
		c.change(&at)
		_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
		if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "undo") {
			t.Errorf("%q: %v", c.text, err)
		}
		must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
		if after := s.host(); after != before {
			t.Fatalf("%q left:\n%s\nbefore:\n%s", c.text, after, before)
		}
	}
	allOrNothing(t, s, pod, []model.Attachment{plain}, 12)
	s.card.mute = false
	s.card.set(0, 7, "")
	tagged := function(t, s.on[0], vfs[0].PCI, "net1", "", 0, 0)
	s.on[0].host = &deaf{s.card.hostKernel, s.card.vfs}
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{tagged}); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a Pod would be on another network: %v", err)
	}
}

// deaf tells, but sets nothing.
type deaf struct {
	hostKernel
	vfs []sriov.VF
}

func (d *deaf) Functions(netlink.Link) ([]sriov.VF, error) { return d.vfs, nil }

func TestKernelFunctionThatNobodyCanHave(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(5)
	s.onLink(s.hosts[0], vfs[0].Link, func(l netlink.Link) error {
		a, err := netlink.ParseAddr("192.0.2.1/24")
		return errors.Join(err, netlink.AddrAdd(l, a))
	})
	s.onLink(s.hosts[0], vfs[1].Link, func(l netlink.Link) error {
		br, err := netlink.LinkByName("br0")
		return errors.Join(err, netlink.LinkSetMaster(l, br))
	})
	s.onLink(s.hosts[0], vfs[2].Link, func(l netlink.Link) error {
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "hosts0", ParentIndex: l.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	})
	must(t, s.sys.Bind(vfs[3].PCI, ""))
	for _, c := range []struct {
		pci  string
		want error
		text string
	}{
		{vfs[0].PCI, ErrInUse, "192.0.2.1"}, {vfs[1].PCI, ErrInUse, vfs[1].Link}, {vfs[2].PCI, ErrInUse, "hosts0"},
		{vfs[3].PCI, ErrHostLink, `driver ""`}, {"0000:3b:09.0", ErrHostLink, "0000:3b:09.0"}, {pfPCI, ErrHostLink, pfPCI},
		{"../../../etc", ErrFunction, "etc"}, {"", ErrFunction, `""`}, {"ens1v4", ErrFunction, "ens1v4"},
	} {
		if _, err := s.on[0].SurveyFunction(c.pci); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: %v", c.pci, err)
		}
	}
	if _, err := s.on[0].SurveyFunction(vfs[4].PCI); err != nil {
		t.Errorf("one that is free: %v", err)
	}
	must(t, s.sys.Name(pfPCI, ""))
	if _, err := s.on[0].SurveyFunction(vfs[4].PCI); !errors.Is(err, ErrHostLink) || !strings.Contains(err.Error(), pfPCI) {
		t.Errorf("without its physical function: %v", err)
	}
	_, pod := s.pod("pod")
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{{Type: model.SRIOV, DeviceID: vfs[4].PCI, IfName: "net1"}}); !errors.Is(err, ErrType) {
		t.Errorf("moved without a record of what it was like: %v", err)
	}
}

// busy is a Pod whose device starts anew twice before it takes a MAC.
type busy struct {
	podKernel
	times int
	err   error
}

func (p *busy) LinkSetHardwareAddr(l netlink.Link, mac net.HardwareAddr) error {
	if p.times--; p.times >= 0 {
		return p.err
	}
	return p.podKernel.LinkSetHardwareAddr(l, mac)
}

func TestKernelFunctionThatStartsAnew(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	_, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[0].PCI, "net1", asked, 0, 0)
	a := *s.on[0]
	for _, answer := range []error{unix.EAGAIN, unix.EBUSY, unix.EINVAL} {
		a.open = func(netns *os.File) (podKernel, error) {
			in, err := s.on[0].open(netns)
			return &busy{in, 2, answer}, err
		}
		_, err := a.Attach(t.Context(), pod, []model.Attachment{at})
		if (answer == unix.EINVAL) != errors.Is(err, answer) {
			t.Errorf("%v: %v", answer, err)
		}
		must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	}
	// A card that takes no MAC away has the one back that the function had.
	s.card.zeroMAC = unix.EINVAL
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	if s.card.says(0) != "0 0 "+at.Moved.MAC {
		t.Error(s.card)
	}
	s.card.set(0, 0, "")
	s.card.zeroMAC = unix.EPERM
	_, err = s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	if err := s.on[0].Detach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, unix.EPERM) {
		t.Errorf("another reason: %v", err)
	}
}

// Above what the card allows the error says which device, and the function is the host's again.
func TestKernelFunctionMTU(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	before := s.host()
	_, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 0)
	at.MTU = 70000
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "set the MTU of ens1v0 to 70000") {
		t.Errorf("%v", err)
	}
	if after := s.host(); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

// A function is known by what the kernel tells of it; where that is nothing, by what a Pod cannot change, or by its mark.
func TestSameDevice(t *testing.T) {
	hardware, other := net.HardwareAddr{6, 0, 0, 0, 0, 1}, net.HardwareAddr{6, 0, 0, 0, 0, 2}
	const pci = "0000:3b:02.0"
	card := model.Attachment{Type: model.HOSTDEVICE, Device: "ens1v0", Moved: &model.Moved{Kind: "device", PermMAC: hardware.String()}}
	vf := model.Attachment{Type: model.SRIOV, Device: "ens1v0", DeviceID: pci, VF: &model.Function{}, Moved: card.Moved}
	for _, c := range []struct {
		l        netlink.LinkAttrs
		card, vf bool
	}{
		{netlink.LinkAttrs{}, false, false},
		{netlink.LinkAttrs{PermHWAddr: hardware}, true, true},
		{netlink.LinkAttrs{PermHWAddr: other}, false, false},
		{netlink.LinkAttrs{PermHWAddr: other, Alias: "danm-pod:ens1v0"}, false, true},
		{netlink.LinkAttrs{PermHWAddr: hardware, Alias: "danm-pod:ens1v1"}, true, true},
		{netlink.LinkAttrs{PermHWAddr: other, ParentDev: pci, ParentDevBus: "pci"}, false, true},
		{netlink.LinkAttrs{PermHWAddr: hardware, ParentDev: "0000:3b:02.1", ParentDevBus: "pci", Alias: "danm-pod:ens1v0"}, true, false},
		{netlink.LinkAttrs{PermHWAddr: hardware, ParentDev: "virtio0", ParentDevBus: "virtio"}, true, true},
		{netlink.LinkAttrs{PermHWAddr: other, ParentDev: pci, ParentDevBus: "virtio"}, false, false},
	} {
		l := &netlink.Device{LinkAttrs: c.l}
		if same(l, card) != c.card || same(l, vf) != c.vf {
			t.Errorf("%+v: card %v, function %v", c.l, same(l, card), same(l, vf))
		}
		if same(&netlink.Dummy{LinkAttrs: c.l}, card) || same(&netlink.Dummy{LinkAttrs: c.l}, vf) {
			t.Errorf("%+v: of another kind", c.l)
		}
	}
}

// What sysfs says of a name may be older than the name: the kernel's word about a link counts.
func TestKernelFunctionWhoseNameAnotherHas(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	s.card.parent = "0000:3b:02.7"
	if _, err := s.on[0].SurveyFunction(vfs[0].PCI); !errors.Is(err, ErrHostLink) || !strings.Contains(err.Error(), "ens1v0 is the interface of 0000:3b:02.7") {
		t.Error(err)
	}
	s.card.parent = vfs[0].PCI
	at := function(t, s.on[0], vfs[0].PCI, "net1", "", 0, 0)
	at.Moved.Kind = "device"
	_, pod := s.pod("pod")
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "of kind veth and was of kind device") {
		t.Error(err)
	}
}
