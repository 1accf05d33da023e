package attach

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/cards"
	"golang.org/x/sys/unix"
)

// killed is an agent that ends at its n-th call of the kernel: no later one is made.
func killed(a *Attacher, n int) (*Attacher, *faulty) {
	f := &faulty{n: n}
	f.act = func() error { f.n++; return errInjected }
	return withFault(a, f), f
}

// stored is an attachment as a record has it.
func stored(t *testing.T, at model.Attachment) (out model.Attachment) {
	t.Helper()
	data, err := json.Marshal(at)
	must(t, err)
	must(t, json.Unmarshal(data, &out))
	return out
}

// TestKernelSRIOVKilled: wherever in an ADD or a DEL the agent ends, the next one takes everything back by the record.
func TestKernelSRIOVKilled(t *testing.T) {
	m := newMachine(t, 1)
	before := m.Seen()
	ns, pod := m.pod("pod")
	at := function(t, m.a, m.PCI(0, 0), "net1", asked, 7, 3, "10.0.0.1/24")
	at.Table, at.PolicyRoutes = 300, routes("10.50.0.0/16", "10.0.0.254")
	for _, verb := range []string{"ADD", "DEL"} {
		calls := 0
		for n := 1; ; n++ {
			var err error
			a, f := killed(m.a, n)
			if verb == "ADD" {
				_, err = a.Attach(t.Context(), pod, []model.Attachment{at})
			} else {
				m.attach(pod, at)
				err = a.Detach(t.Context(), pod, []model.Attachment{at})
			}
			hit := f.n > n
			if hit != errors.Is(err, errInjected) {
				t.Fatalf("%s, call %d of %d: %v", verb, n, f.count, err)
			}
			must(t, m.attacher().Detach(t.Context(), pod, []model.Attachment{stored(t, at)}))
			m.As(before, fmt.Sprintf("%s that ended at call %d", verb, n))
			if left := m.IPIn(ns, "-br", "link") + m.IPIn(ns, "rule"); strings.Contains(left, "net1") || strings.Contains(left, "300") || strings.Contains(left, "dt") {
				t.Fatalf("%s that ended at call %d: the Pod keeps %s", verb, n, left)
			}
			if calls = n - 1; !hit {
				break
			}
		}
		if t.Logf("%s: %d calls", verb, calls); calls < 12 {
			t.Errorf("only %d calls of an %s were tried", calls, verb)
		}
	}
}

// TestKernelSRIOVPodIsGone: the kernel brings the function back by itself, under the name that it had in the Pod or another, and DEL makes
// it what it was.
func TestKernelSRIOVPodIsGone(t *testing.T) {
	m := newMachine(t, 1)
	m.IP("link", "set", m.Link(0, 0), "alias", "the host's")
	for name, c := range map[string]struct {
		ifName, mac string
		inPod       []string
	}{
		"as it was attached":     {"net1", asked, nil},
		"up, as it was attached": {"net1", asked, nil},
		"its own MAC":            {"net1", "", nil},
		"up, changed by the Pod": {"net1", "", []string{"link set net1 down", "link set net1 address 02:00:00:00:00:77 mtu 1300 alias danm-pod:lo name mine", "link set mine up"}},
		"under a taken name":     {"lo1", asked, nil},
		"renamed to a number":    {"net1", asked, []string{"link set net1 down", "link set net1 name dev77"}},
		"with links on it":       {"net1", asked, []string{"link add link net1 name net1.5 type vlan id 5", "link add link net1 name m0 type macvlan mode bridge"}},
		"as a port of a bond":    {"net1", asked, []string{"link add bond9 type bond", "link set net1 down", "link set net1 master bond9"}},
		"a port, with own MAC":   {"net1", "", []string{"link add bond9 type bond", "link set net1 down", "link set net1 master bond9"}},
	} {
		t.Run(name, func(t *testing.T) {
			m.T = t
			m.IP("link", "set", m.PF(0), "vf", "0", "mac", "00:00:00:00:00:00") // else the Pod could not change it
			m.IP("link", "set", m.Link(0, 0), "down", "address", "02:00:00:00:00:10")
			m.IP("link", "set", m.Link(0, 0), map[bool]string{true: "up", false: "down"}[strings.HasPrefix(name, "up, ")])
			if c.ifName == "lo1" {
				m.IP("link", "add", "lo1", "type", "dummy")
				defer m.IP("link", "del", "lo1")
			}
			before := m.Seen()
			ns, pod := m.pod("pod")
			at := function(t, m.a, m.PCI(0, 0), c.ifName, c.mac, 7, 3, "10.0.0.1/24")
			m.attach(pod, at)
			for _, line := range c.inPod {
				m.IPIn(ns, strings.Fields(line)...)
			}
			m.end(ns, pod)
			began := time.Now()
			m.detach(Pod{Sandbox: pod.Sandbox}, at)
			if took := time.Since(began); took > returnTime {
				t.Errorf("it took %s", took)
			}
			m.As(before, "after DEL")
		})
	}
}

// TestKernelSRIOVLate: a process holds the namespace longer than DEL waits, or the Pod has moved the function on into another. Nobody there
// gets out of the VLAN, and Return gives the function back when it comes, also for an agent that has started meanwhile.
func TestKernelSRIOVLate(t *testing.T) {
	m := newMachine(t, 1)
	other, podB := m.pod("b")
	m.attach(podB, function(t, m.a, m.PCI(1, 0), "net1", "", 0, 0, "10.0.0.2/24"))
	before := m.Seen()
	for _, how := range []string{"kept", "kept, another agent", "moved on"} {
		t.Run(how, func(t *testing.T) {
			m.T = t
			ns, pod := m.pod("pod")
			at := function(t, m.a, m.PCI(0, 0), "net1", asked, 7, 3, "10.0.0.1/24")
			m.attach(pod, at)
			gone, held := Pod{Sandbox: pod.Sandbox}, pod.Netns
			if how == "moved on" {
				inner, innerPod := m.pod("inner")
				m.IPIn(ns, "link", "set", "net1", "netns", inner.Path)
				m.IPIn(inner, "address", "add", "10.0.0.1/24", "dev", "net1")
				m.IPIn(inner, "link", "set", "net1", "up")
				gone, ns, held = pod, inner, innerPod.Netns
			}
			if err := m.a.Detach(t.Context(), gone, []model.Attachment{at}); !isAway(err, at) {
				t.Errorf("it is not back: %v", err)
			}
			if err := ns.Ping("10.0.0.2", 15*time.Second); err == nil || !strings.HasPrefix(m.Says(0, 0), "mac "+asked+" vlan [{7 3}]") {
				t.Errorf("somebody in there is on another network: %v, the card says %s", err, m.Says(0, 0))
			}
			m.must(m.world.Remove(ns)) // held is open
			if done, err := m.a.Return(t.Context(), pod.Sandbox, at); done || err != nil {
				t.Errorf("it is not back: %v %v", done, err)
			}
			if _, err := m.a.SurveyFunction(at.DeviceID); !errors.Is(err, ErrHostLink) {
				t.Errorf("it is not back: %v", err)
			}
			held.Close()
			if name := m.Link(0, 0); name != "net1" {
				t.Errorf("it came back as %s", name)
			}
			by, was := m.a, at
			if how == "kept, another agent" {
				by, was = m.attacher(), stored(t, at)
			}
			if done, err := by.Return(t.Context(), pod.Sandbox, was); !done || err != nil {
				t.Errorf("%v %v", done, err)
			}
			m.As(before, "when it is back")
			if how == "kept" { // control: on the other's network they reach each other
				ns, pod = m.pod("c")
				at = function(t, m.a, at.DeviceID, "net1", "", 0, 0, "10.0.0.3/24")
				m.attach(pod, at)
				m.must(other.Ping("10.0.0.3", 30*time.Second))
				m.detach(pod, at)
			}
		})
	}
}

// TestKernelSRIOVReload: the card's driver starts anew while the Pod has the function; when there are functions again, Mend gives it back
// with its MAC and VLAN.
func TestKernelSRIOVReload(t *testing.T) {
	for _, mac := range []string{"", asked} {
		m := newMachine(t, 1)
		names := m.IP("-br", "link")
		ns, pod := m.pod("a")
		at := function(t, m.a, m.PCI(0, 0), "net1", mac, 7, 3, "10.0.0.1/24")
		at.Routes = routes("10.61.0.0/16", "10.0.0.9")
		m.attach(pod, at)
		other, podB := m.pod("b")
		m.attach(podB, function(t, m.a, m.PCI(1, 0), "net1", "", 7, 0, "10.0.0.2/24"))
		must(t, ns.Ping("10.0.0.2", 30*time.Second))
		m.Write("/sys/bus/pci/drivers/igb/unbind", m.Cards[0])
		m.check(pod, at, "no such link")
		if mended, err := m.a.Mend(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, ErrHostLink) || len(mended) != 0 {
			t.Errorf("without a card: %v %v", mended, err)
		}
		m.Write("/sys/bus/pci/drivers/igb/bind", m.Cards[0])
		if mended, err := m.a.Mend(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, ErrHostLink) || len(mended) != 0 {
			t.Errorf("without functions: %v %v", mended, err)
		}
		m.Start(0, 1)
		before := m.Seen()
		mended, err := m.a.Mend(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		if !slices.Equal(mended, []string{"net1"}) {
			t.Errorf("%v", mended)
		}
		m.check(pod, at, "")
		must(t, other.Ping("10.0.0.1", 30*time.Second))
		m.detach(pod, at)
		if now := m.IP("-br", "link"); strings.Count(now, "\n") != strings.Count(names, "\n")-1 || m.Link(0, 0) != at.Device {
			t.Errorf("%s, before %s", now, names)
		}
		if says := m.Says(0, 0); says != fmt.Sprintf("mac %s vlan [{0 0}] spoof true trust false", at.Moved.MAC) {
			t.Errorf("the card says %s\nbefore:\n%s", says, before)
		}
	}
}

// TestKernelSRIOVTaken: somebody ends the functions while a Pod has one; CHECK says so, and DEL has nothing left to do.
func TestKernelSRIOVTaken(t *testing.T) {
	m := newMachine(t, 1)
	_, pod := m.pod("pod")
	at := function(t, m.a, m.PCI(0, 0), "net1", asked, 7, 3, "10.0.0.1/24")
	m.attach(pod, at)
	m.Write(cards.Devices+m.Cards[0]+"/sriov_numvfs", "0")
	m.check(pod, at, "no such link")
	before := m.Seen()
	m.detach(pod, at)
	m.As(before, "after DEL")
	m.Write(cards.Devices+m.Cards[0]+"/sriov_numvfs", "2") // new ones, of which none is ours to change
	m.Link(0, 1)
	before = m.Seen()
	m.detach(pod, at)
	m.As(before, "after a second DEL")
}

// TestKernelSRIOVProgram: what stands in the Pod for a function that vfio-pci has, and what the card does with its frames.
func TestKernelSRIOVProgram(t *testing.T) {
	m := newMachine(t, 2)
	pci := m.PCI(0, 1)
	m.Write(cards.Devices+pci+"/driver_override", "vfio-pci")
	m.Write(cards.Devices+pci+"/driver/unbind", pci)
	m.Write("/sys/bus/pci/drivers_probe", pci)
	for _, c := range []struct {
		set, mac string
		vlan     uint16
	}{{"", "", 0}, {"", asked, 7}, {"02:00:00:00:00:99", "", 7}, {"02:00:00:00:00:99", asked, 0}} {
		if c.set != "" {
			m.IP("link", "set", m.PF(0), "vf", "1", "mac", c.set)
		}
		before, said := m.Seen(), m.Says(0, 1)
		ns, pod := m.pod("pod")
		at := function(t, m.a, pci, "net1", c.mac, c.vlan, 0, "10.0.0.1/24")
		if at.VF.Driver != "vfio-pci" || at.Device != "" || at.Moved != nil || !strings.HasPrefix(said, "mac "+cmp.Or(at.VF.MAC, "00:00:00:00:00:00")) {
			t.Errorf("%+v: looked at %+v %+v", c, at, at.VF)
		}
		m.attach(pod, at)
		m.check(pod, at, "")
		want := fmt.Sprintf("mac %s vlan [{%d 0}] ", cmp.Or(at.MAC, "00:00:00:00:00:00"), c.vlan)
		if now := m.Says(0, 1); !strings.HasPrefix(now, want) {
			t.Errorf("%+v: the card says %s, and not %s", c, now, want)
		}
		kind := "dummy"
		if c.vlan != 0 {
			kind = "vlan protocol"
		}
		shown := m.IPIn(ns, "-d", "link", "show", "net1")
		if !strings.Contains(shown, "alias "+pci) || !strings.Contains(shown, kind) || !strings.Contains(shown, at.MAC) {
			t.Errorf("%+v: %s", c, shown)
		}
		m.IP("link", "set", m.PF(0), "vf", "1", "vlan", "8")
		m.check(pod, at, "the card has VLAN 8")
		m.detach(pod, at)
		m.As(before, fmt.Sprintf("%+v: after DEL", c))
		m.attach(pod, at)
		m.end(ns, pod)
		m.detach(Pod{Sandbox: pod.Sandbox}, at)
		m.As(before, fmt.Sprintf("%+v: after DEL without the Pod", c))
	}
}

// TestKernelSRIOVRefused: what the driver refuses undoes all, with the driver's reason.
func TestKernelSRIOVRefused(t *testing.T) {
	m := newMachine(t, 1)
	before := m.Seen()
	ns, pod := m.pod("pod")
	at := function(t, m.a, m.PCI(0, 0), "net1", asked, 7, 3, "10.0.0.1/24")
	for _, c := range []struct {
		change func(at *model.Attachment)
		want   error
		text   string
	}{
		{func(at *model.Attachment) { at.MTU = 60000 }, unix.EINVAL, "set the MTU of "},
		{func(at *model.Attachment) { at.VLAN = 4096 }, unix.EINVAL, "set VLAN 4096"},
		{func(at *model.Attachment) { at.MAC = "03:00:00:00:00:01" }, unix.EINVAL, "set MAC 03:00:00:00:00:01"},
		{func(at *model.Attachment) { at.IfName = "lo" }, unix.EEXIST, "rename"},
	} {
		bad := at
		c.change(&bad)
		if _, err := m.a.Attach(t.Context(), pod, []model.Attachment{bad}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "undo") {
			t.Errorf("%q: %v", c.text, err)
		}
		m.As(before, c.text)
		if left := m.IPIn(ns, "-br", "link"); strings.Count(left, "\n") != 1 {
			t.Errorf("%s: the Pod keeps %s", c.text, left)
		}
	}
	m.attach(pod, at)
	m.detach(pod, at)
	m.As(before, "after what it allows")
}
