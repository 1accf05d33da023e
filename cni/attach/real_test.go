package attach

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/cards"
	"danm.io/danm/test/lab"
)

// machine is the test machine with its cards, and an attacher on it.
type machine struct {
	*cards.Machine
	world *lab.World
	a     *Attacher
}

// newMachine gives each card n virtual functions.
func newMachine(t *testing.T, n int) *machine {
	t.Helper()
	m := &machine{Machine: cards.New(t, n)}
	var err error
	m.world, err = lab.NewWorld(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, m.world.Close()) })
	m.a = m.attacher()
	return m
}

// attacher is a fresh one, as an agent that has just started has it.
func (m *machine) attacher() (a *Attacher) {
	m.T.Helper()
	m.must(m.Host.Do(func() (err error) { a, err = New("/"); return err }))
	m.T.Cleanup(a.Close)
	return a
}

func (m *machine) must(err error) {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
}

func (m *machine) pod(name string) (*lab.NS, Pod) {
	m.T.Helper()
	ns, err := m.world.Add(name)
	m.must(err)
	f, err := os.Open(ns.Path)
	m.must(err)
	m.T.Cleanup(func() { f.Close() })
	return ns, Pod{Sandbox: name, Netns: f}
}

// end removes a Pod's namespace, which the kernel ends a little later.
func (m *machine) end(ns *lab.NS, pod Pod) {
	m.T.Helper()
	pod.Netns.Close()
	m.must(m.world.Remove(ns))
}

// attach makes a Pod's only interface.
func (m *machine) attach(pod Pod, at model.Attachment) Link {
	m.T.Helper()
	links, err := m.a.Attach(m.T.Context(), pod, []model.Attachment{at})
	m.must(err)
	return links[0]
}

func (m *machine) detach(pod Pod, at model.Attachment) {
	m.T.Helper()
	m.must(m.a.Detach(m.T.Context(), pod, []model.Attachment{at}))
}

// check fails if CHECK does not see exactly what text says; "" is nothing.
func (m *machine) check(pod Pod, at model.Attachment, text string) {
	m.T.Helper()
	_, err := m.a.Check(m.T.Context(), pod, []model.Attachment{at})
	if text == "" && err != nil || text != "" && (!errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), text)) {
		m.T.Errorf("CHECK: %v instead of %q", err, text)
	}
}

// TestKernelSRIOVPods: Pods on functions of two cards reach each other on their VLAN and nobody on another; all is as before afterwards.
func TestKernelSRIOVPods(t *testing.T) {
	m := newMachine(t, 2)
	m.IP("link", "set", m.Link(0, 1), "up", "mtu", "1450", "alias", "the host's")
	m.IP("link", "set", m.PF(0), "vf", "1", "vlan", "9", "qos", "1")
	before := m.Seen()
	type member struct {
		card, number int
		vlan         uint16
		mac          string
		ns           *lab.NS
		pod          Pod
		at           model.Attachment
	}
	members := []*member{{card: 0, number: 0, vlan: 7, mac: asked}, {card: 1, number: 0, vlan: 7}, {card: 0, number: 1, vlan: 8}, {card: 1, number: 1, vlan: 8, mac: "02:00:00:00:00:43"}}
	for i, p := range members {
		p.ns, p.pod = m.pod(fmt.Sprint("pod", i))
		p.at = function(t, m.a, m.PCI(p.card, p.number), "net1", p.mac, p.vlan, 3, fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("fd00::%d/64", i+1))
		if got := m.attach(p.pod, p.at); got.MTU != 1400 || got.MAC != p.at.MAC {
			t.Errorf("%d: %+v", i, got)
		}
		m.check(p.pod, p.at, "")
		if says, want := m.Says(p.card, p.number), fmt.Sprintf("mac %s vlan [{%d 3}] ", p.at.MAC, p.vlan); !strings.HasPrefix(says, want) {
			t.Errorf("%d: the card says %q, and not %q", i, says, want)
		}
		if _, err := m.a.SurveyFunction(p.at.DeviceID); !errors.Is(err, ErrHostLink) {
			t.Errorf("%d: another Pod would get it, too: %v", i, err)
		}
	}
	for _, pair := range [][2]int{{0, 1}, {1, 0}, {2, 3}, {3, 2}} {
		for _, to := range []string{fmt.Sprintf("10.0.0.%d", pair[1]+1), fmt.Sprintf("fd00::%d", pair[1]+1)} {
			if err := members[pair[0]].ns.Ping(to, 30*time.Second); err != nil {
				t.Errorf("%d to %s: %v", pair[0], to, err)
			}
		}
	}
	for _, pair := range [][2]int{{0, 2}, {0, 3}, {1, 2}, {3, 1}} {
		if err := members[pair[0]].ns.Ping(fmt.Sprintf("10.0.0.%d", pair[1]+1), time.Second); err == nil {
			t.Errorf("%d reaches %d on another VLAN", pair[0], pair[1])
		}
	}
	p := members[0]
	m.IP("link", "set", m.PF(0), "vf", "0", "vlan", "8", "qos", "0")
	m.check(p.pod, p.at, "the card has VLAN 8, priority 0 for it instead of VLAN 7, priority 3")
	must(t, p.ns.Ping("10.0.0.4", 30*time.Second)) // it says so because it is so
	all := []model.Attachment{p.at, members[1].at, members[2].at, members[3].at}
	if differ, err := m.a.Differing(all); err != nil || !slices.Equal(differ, []string{p.at.DeviceID}) {
		t.Errorf("the card differs in %v, %v", differ, err)
	}
	if mended, err := m.a.Mend(t.Context(), p.pod, []model.Attachment{p.at}); err != nil || !slices.Equal(mended, []string{"net1"}) {
		t.Errorf("mended %v, %v", mended, err)
	}
	m.check(p.pod, p.at, "")
	must(t, p.ns.Ping("10.0.0.2", 30*time.Second))
	for _, p := range members {
		m.detach(p.pod, p.at)
		m.detach(p.pod, p.at)
		if left := m.IPIn(p.ns, "-br", "link"); strings.Count(left, "\n") != 1 {
			t.Errorf("the Pod keeps %s", left)
		}
	}
	m.As(before, "after DEL")
}

// TestKernelSRIOVMAC: who asks for a MAC has it, also where the card keeps functions from choosing theirs, which is where one was set
// before or the function is not trusted; neighbours learn of it before the Pod says a word; and the one from before comes back.
func TestKernelSRIOVMAC(t *testing.T) {
	m := newMachine(t, 1)
	other, podB := m.pod("b")
	b := function(t, m.a, m.PCI(1, 0), "net1", "", 0, 0, "10.0.0.2/24")
	m.attach(podB, b)
	for _, trust := range []string{"off", "on"} {
		for _, set := range []string{"", "02:00:00:00:00:99"} {
			for _, state := range []string{"down", "up"} {
				t.Run(fmt.Sprintf("trust %s, set %s, %s", trust, cmp.Or(set, "none"), state), func(t *testing.T) {
					m.T = t
					name := m.Link(0, 0)
					m.IP("link", "set", m.PF(0), "vf", "0", "trust", trust)
					if set != "" {
						m.IP("link", "set", name, "down")
						m.IP("link", "set", m.PF(0), "vf", "0", "mac", set)
						if trust == "on" {
							m.IP("link", "set", name, "address", set)
						}
						m.IP("link", "set", name, "up")
					}
					m.IP("link", "set", name, state)
					before := m.Seen()
					if set != "" && !strings.Contains(before, fmt.Sprintf("%s of %s: mac %s", name, m.PCI(0, 0), set)) {
						t.Fatalf("the function does not have the MAC that was set:\n%s", before)
					}
					ns, pod := m.pod("a")
					at := function(t, m.a, m.PCI(0, 0), "net1", asked, 0, 0, "10.0.0.1/24")
					m.IPIn(other, "neigh", "replace", "10.0.0.1", "lladdr", "02:00:00:00:00:01", "dev", "net1", "nud", "stale")
					if got := m.attach(pod, at); got.MAC != asked {
						t.Errorf("%+v", got)
					}
					for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
						near := m.IPIn(other, "neigh", "show", "10.0.0.1")
						if strings.Contains(near, asked) {
							break
						}
						if time.Now().After(end) {
							t.Fatalf("the neighbour that knew the address elsewhere still sees %s", near)
						}
					}
					m.check(pod, at, "")
					if has := m.IPIn(ns, "-br", "link", "show", "net1"); !strings.Contains(has, asked) {
						t.Errorf("in the Pod: %s", has)
					}
					must(t, ns.Ping("10.0.0.2", 30*time.Second))
					m.detach(pod, at)
					m.As(before, "after DEL")
					m.end(ns, pod)
				})
			}
		}
	}
}
