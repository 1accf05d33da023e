package attach

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// spare gives host h a device of its own on the switch, with what an operator may have set on it.
func (s *site) spare(h int, name string) {
	s.t.Helper()
	must(s.t, (&lab.NS{Name: "switch", Path: s.hosts[h].Path[:strings.LastIndex(s.hosts[h].Path, "/")] + "/switch"}).Plug("sw", s.hosts[h], name, ""))
	s.onLink(s.hosts[h], name, func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetAlias(l, "spare, for tests"), netlink.LinkSetMTU(l, 1450))
	})
}

func (s *site) onLink(ns *lab.NS, name string, do func(l netlink.Link) error) {
	s.t.Helper()
	must(s.t, ns.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return do(l)
	}))
}

func (s *site) moved(h int, ifName string, addresses ...string) model.Attachment {
	s.t.Helper()
	at := attachment(model.HOSTDEVICE, "", ifName, addresses...)
	at.Device, at.MAC = "spare0", ""
	var err error
	at.Moved, err = s.on[h].Survey(at.Device)
	must(s.t, err)
	return at
}

func TestKernelHostDevice(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	before := dump(t, s.hosts[0])
	ns, pod := s.pod("pod")
	at := s.moved(0, "eth0", "10.0.0.1/24", "fd00::1/64")
	links, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	if links[0].MTU != 1400 || links[0].MAC != at.Moved.MAC {
		t.Errorf("%+v", links[0])
	}
	if _, err := s.on[0].Check(t.Context(), pod, []model.Attachment{at}); err != nil {
		t.Error(err)
	}
	other, podB := s.pod("b")
	_, err = s.on[1].Attach(t.Context(), podB, []model.Attachment{attachment(model.MACVLAN, "b", "eth0", "10.0.0.2/24", "fd00::2/64")})
	must(t, err)
	for _, address := range []string{"10.0.0.1", "fd00::1"} {
		must(t, other.Ping(address, 30*time.Second))
	}
	if _, err := s.on[0].Survey("spare0"); !errors.Is(err, ErrHostLink) {
		t.Errorf("another Pod would get it, too: %v", err)
	}
	// The Pod does with it what it likes.
	s.onLink(ns, "eth0", func(l netlink.Link) error {
		mac, _ := net.ParseMAC("02:00:00:00:00:77")
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetHardwareAddr(l, mac), netlink.LinkSetMTU(l, 1300), netlink.LinkSetName(l, "mine"))
	})
	if _, err := s.on[0].Check(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, ErrMismatch) {
		t.Errorf("CHECK: %v", err)
	}
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
	if d := dump(t, ns); strings.Contains(d, "mine") || strings.Contains(d, "spare") {
		t.Errorf("the Pod keeps:\n%s", d)
	}
}

// A device that is down and has no alias is so again.
func TestKernelHostDeviceThatIsDown(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	s.onLink(s.hosts[0], "spare0", func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetAlias(l, ""))
	})
	before := dump(t, s.hosts[0])
	_, pod := s.pod("pod")
	want := []model.Attachment{s.moved(0, "spare0", "10.0.0.1/24")}
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	must(t, s.on[0].Detach(t.Context(), pod, want))
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

func TestKernelHostDeviceIsMovedOrNot(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	_, pod := s.pod("pod")
	want := append([]model.Attachment{s.moved(0, "net1", "10.0.0.1/24", "fd00::1/64")}, rich(pod.Sandbox)[0])
	want[0].Table, want[0].PolicyRoutes = 300, routes("10.50.0.0/16", "10.0.0.254")
	allOrNothing(t, s, pod, want, 30)
	detachIsRepeatable(t, s, pod, want)
}

// A device of the host that is a macvlan itself has the mode that the host chose.
func TestKernelHostDeviceWithAMode(t *testing.T) {
	s := newSite(t)
	s.onLink(s.hosts[0], "eth0", func(l netlink.Link) error {
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "spare0", ParentIndex: l.Attrs().Index}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	})
	_, pod := s.pod("pod")
	want := []model.Attachment{s.moved(0, "net1", "10.0.0.1/24")}
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	if _, err := s.on[0].Check(t.Context(), pod, want); err != nil {
		t.Error(err)
	}
}

// What the host has made of a device since it is back is the host's business.
func TestKernelHostDeviceThatIsBack(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	_, pod := s.pod("pod")
	want := []model.Attachment{s.moved(0, "net1", "10.0.0.1/24")}
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	must(t, s.on[0].Detach(t.Context(), pod, want))
	s.onLink(s.hosts[0], "spare0", func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetAlias(l, "another's now"), netlink.LinkSetMTU(l, 1280))
	})
	changed := dump(t, s.hosts[0])
	must(t, s.on[0].Detach(t.Context(), pod, want))
	if after := dump(t, s.hosts[0]); after != changed {
		t.Errorf("host:\n%s\nbefore:\n%s", after, changed)
	}
}

// A device in the recorded one's place is not given to the Pod; and one that a Pod left marked has no alias to be given back.
func TestKernelHostDeviceIsAnotherOne(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	before := dump(t, s.hosts[0])
	_, pod := s.pod("pod")
	at := s.moved(0, "net1", "10.0.0.1/24")
	at.Moved.Kind = "device"
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "another card") {
		t.Errorf("a pair of cables for a card: %v", err)
	}
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
	s.onLink(s.hosts[0], "spare0", func(l netlink.Link) error { return netlink.LinkSetAlias(l, marker+"spare0") })
	if m, err := s.on[0].Survey("spare0"); err != nil || m.Alias != "" {
		t.Errorf("%+v %v", m, err)
	}
}

func TestKernelHostDeviceThatTheHostUses(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	must(t, s.hosts[0].Do(func() error {
		l, err := netlink.LinkByName("spare0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("192.0.2.1/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, a)
	}))
	s.bridgeUplink()
	for _, device := range []string{"spare0", "eth0", "lo"} {
		if _, err := s.on[0].Survey(device); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), device) {
			t.Errorf("%s: %v", device, err)
		}
	}
	if _, err := s.on[0].Survey("none"); !errors.Is(err, ErrHostLink) {
		t.Error(err)
	}
	_, pod := s.pod("pod")
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{{Type: model.HOSTDEVICE, Device: "spare0", IfName: "net1"}}); err == nil {
		t.Error("moved without a record of what it was like")
	}
}

// One that is no hardware ends with the Pod's namespace; its name, when another has it, is not taken away.
func TestKernelHostDeviceIsGone(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	ns, pod := s.pod("pod")
	at := s.moved(0, "net1", "10.0.0.1/24")
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	must(t, s.hosts[0].Switch("spare0")) // somebody made one of that name meanwhile
	before := dump(t, s.hosts[0])
	if err := s.on[0].Detach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "spare0") {
		t.Errorf("%v", err)
	}
	must(t, s.hosts[0].DeleteLink("spare0"))
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	at = s.moved(0, "net1", "10.0.0.1/24")
	_, err = s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	must(t, s.hosts[0].Switch("spare0"))
	pod.Netns.Close()
	must(t, s.world.Remove(ns))
	for end := time.Now().Add(time.Minute); strings.Contains(dump(t, s.hosts[0]), "danm-pod"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the namespace does not end")
		}
	}
	must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, []model.Attachment{at}))
	after := dump(t, s.hosts[0])
	fix := func(d string) string { // the bridge of the name is a new one
		return strings.Join(strings.Fields(d)[:3], " ")
	}
	if fix(after) != fix(before) || strings.Count(after, "spare0") != 1 {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
}

// A device that comes back by itself when no record speaks of it any more gets its name again, if it is one that is given to Pods.
func TestKernelHomelessDevices(t *testing.T) {
	s := newSite(t)
	s.spare(0, "spare0")
	ns, pod := s.pod("pod")
	at := s.moved(0, "net1", "10.0.0.1/24")
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	s.onLink(ns, "net1", func(l netlink.Link) error { // as the kernel would bring hardware back
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetNsFd(l, int(s.on[0].home.Fd())))
	})
	for _, devices := range [][]string{nil, {"eth0", "other"}} {
		if names, err := s.on[0].Homeless(t.Context(), devices); err != nil || len(names) != 0 {
			t.Errorf("%v: %v %v", devices, names, err)
		}
	}
	names, err := s.on[0].Homeless(t.Context(), []string{"eth0", "spare0"})
	if err != nil || len(names) != 1 || names[0] != "spare0" {
		t.Errorf("%v %v", names, err)
	}
	if d := dump(t, s.hosts[0]); !strings.Contains(d, "link spare0") || strings.Contains(d, "danm-pod") || strings.Contains(d, "net1") {
		t.Error(d)
	}
	if names, err := s.on[0].Homeless(t.Context(), []string{"spare0"}); err != nil || len(names) != 0 {
		t.Errorf("again: %v %v", names, err)
	}
}

// TestKernelHardwareComesBack: the VM's card, whose Pod ends without a word. The kernel brings it back to the first namespace under
// the name it had in the Pod, and Detach makes it what it was.
func TestKernelHardwareComesBack(t *testing.T) {
	if os.Getenv("DANM_BIN") == "" {
		t.Skip("hardware is the VM's")
	}
	first := &lab.NS{Name: "first", Path: "/proc/1/ns/net"}
	var a *Attacher
	must(t, first.Do(func() (err error) { a, err = New(""); return err }))
	defer a.Close()
	var name string
	must(t, first.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if l.Attrs().HardwareAddr.String() == "52:54:00:da:03:01" {
				name = l.Attrs().Name
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
		at := model.Attachment{Network: "oam", Type: model.HOSTDEVICE, Device: name, IfName: "net1", MTU: 1400}
		at.Moved, err = a.Survey(name)
		must(t, err)
		if at.Moved.PermMAC != "52:54:00:da:03:01" {
			t.Fatalf("%+v", at.Moved)
		}
		_, err = a.Attach(t.Context(), Pod{Sandbox: "s", Netns: f}, []model.Attachment{at})
		must(t, err)
		must(t, ns.Do(func() error {
			l, err := netlink.LinkByName("net1")
			if err != nil {
				return err
			}
			return change(l)
		}))
		f.Close()
		must(t, world.Remove(ns))
		must(t, world.Close())
		must(t, a.Detach(t.Context(), Pod{Sandbox: "s"}, []model.Attachment{at}))
		if after := dump(t, first); after != before {
			t.Errorf("%d: %s\nbefore:\n%s", i, after, before)
		}
	}
}

// A VLAN link in the Pod: frames carry its tag, a device has it once, and it goes with the Pod.
func TestKernelTagged(t *testing.T) {
	s := newSite(t)
	before := dump(t, s.hosts[0])
	var spaces []*lab.NS
	var pods []Pod
	tagged := func(i int) model.Attachment {
		at := attachment(model.TAGGED, pods[i].Sandbox, "net1", fmt.Sprintf("10.0.0.%d/24", i+1))
		at.MAC, at.VLAN = "", 7
		return at
	}
	for i := range 3 {
		ns, pod := s.pod(fmt.Sprintf("pod%d", i))
		spaces, pods = append(spaces, ns), append(pods, pod)
	}
	for i, host := range []int{0, 1} {
		_, err := s.on[host].Attach(t.Context(), pods[i], []model.Attachment{tagged(i)})
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("kernel lacks vlan")
		}
		must(t, err)
		if _, err := s.on[host].Check(t.Context(), pods[i], []model.Attachment{tagged(i)}); err != nil {
			t.Error(err)
		}
	}
	must(t, spaces[0].Ping("10.0.0.2", 30*time.Second))
	untagged := attachment(model.MACVLAN, pods[2].Sandbox, "net1", "10.0.0.3/24")
	_, err := s.on[1].Attach(t.Context(), pods[2], []model.Attachment{untagged})
	must(t, err)
	if err := spaces[2].Ping("10.0.0.1", 500*time.Millisecond); err == nil {
		t.Error("a Pod without the tag is reached")
	}
	must(t, s.on[1].Detach(t.Context(), pods[2], []model.Attachment{untagged}))
	if _, err := s.on[0].Attach(t.Context(), pods[2], []model.Attachment{tagged(2)}); !errors.Is(err, ErrServed) || !strings.Contains(err.Error(), "VLAN 7 of eth0") {
		t.Errorf("the VLAN twice: %v", err)
	}
	other := tagged(0)
	other.VLAN = 8
	if _, err := s.on[0].Check(t.Context(), pods[0], []model.Attachment{other}); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "VLAN 7 instead of 8") {
		t.Errorf("CHECK: %v", err)
	}
	for _, bad := range []uint16{0, 4095} {
		if other.VLAN = bad; true {
			if _, err := s.on[0].Attach(t.Context(), pods[2], []model.Attachment{other}); !errors.Is(err, ErrType) {
				t.Errorf("VLAN %d: %v", bad, err)
			}
		}
	}
	must(t, s.on[0].Detach(t.Context(), pods[0], []model.Attachment{tagged(0)}))
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("host:\n%s\nbefore:\n%s", after, before)
	}
	allOrNothing(t, s, pods[2], []model.Attachment{tagged(2)}, 6)
	detachIsRepeatable(t, s, pods[2], []model.Attachment{tagged(2)})
}
