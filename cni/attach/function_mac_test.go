package attach

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What others set of a function, or what a card tells of a MAC that the Pod has set itself, is not taken for ours.
func TestKernelFunctionWhoseMACIsAnothers(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(1)
	_, pod := s.pod("pod")
	at := function(t, s.on[0], vfs[0].PCI, "net1", "", 7, 3)
	for _, c := range []struct{ says, then string }{{"02:00:00:00:00:66", "02:00:00:00:00:66"}, {at.MAC, "none"}} {
		_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		s.card.set(0, 7, c.says)
		must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
		if s.card.says(0) != "0 0 "+c.then {
			t.Errorf("%s: %s", c.says, s.card)
		}
		s.card.set(0, 0, "")
	}
}

// A driver such as igbvf lets nobody set the MAC of a function that the card has one for, and takes that one when the function is set up.
type (
	startingHost struct {
		hostKernel
		starting
	}
	startingPod struct {
		podKernel
		starting
	}
	starting struct {
		card *card
		deaf *bool // it takes none then either
	}
)

func (startingHost) LinkSetHardwareAddr(netlink.Link, net.HardwareAddr) error {
	return unix.EADDRNOTAVAIL
}
func (startingPod) LinkSetHardwareAddr(netlink.Link, net.HardwareAddr) error {
	return unix.EADDRNOTAVAIL
}
func (h startingHost) LinkSetUp(l netlink.Link) error { return h.up(h.hostKernel, l) }
func (p startingPod) LinkSetUp(l netlink.Link) error  { return p.up(p.podKernel, l) }

func (s starting) up(h handle, l netlink.Link) error {
	if mac := s.card.vfs[0].MAC; nonzero(mac) != "" && !*s.deaf {
		if err := h.LinkSetHardwareAddr(l, mac); err != nil {
			return err
		}
	}
	return h.LinkSetUp(l)
}

// TestKernelFunctionThatTakesItsMACAtTheStart: it has the MAC that was asked for, and the one from before again; if it does not take it,
// the Pod is not attached with another.
func TestKernelFunctionThatTakesItsMACAtTheStart(t *testing.T) {
	for _, up := range []bool{false, true} {
		s := newSite(t)
		vfs, deaf := s.functions(1), false
		s.onLink(s.hosts[0], vfs[0].Link, func(l netlink.Link) error {
			s.card.set(0, 0, l.Attrs().HardwareAddr.String())
			if up {
				return netlink.LinkSetUp(l)
			}
			return netlink.LinkSetDown(l)
		})
		before := s.host()
		ns, pod := s.pod("pod")
		at := function(t, s.on[0], vfs[0].PCI, "net1", asked, 7, 3, "10.0.0.1/24")
		a := *s.on[0]
		with := starting{s.card, &deaf}
		a.host = startingHost{s.card, with}
		a.open = func(netns *os.File) (podKernel, error) {
			in, err := s.on[0].open(netns)
			return startingPod{in, with}, err
		}
		links, err := a.Attach(t.Context(), pod, []model.Attachment{at})
		must(t, err)
		if d := dump(t, ns); links[0].MAC != asked || !strings.Contains(d, "link net1 veth mtu 1400 mac "+asked) {
			t.Errorf("%+v\n%s", links, d)
		}
		deaf = true
		if err := a.Detach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "give back the MAC of ens1v0") {
			t.Errorf("up %v: %v", up, err)
		}
		deaf = false
		must(t, a.Detach(t.Context(), pod, []model.Attachment{at}))
		if after := s.host(); after != before {
			t.Errorf("up %v: host:\n%s\nbefore:\n%s", up, after, before)
		}
		deaf = true
		_, err = a.Attach(t.Context(), pod, []model.Attachment{at})
		if !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "set the MAC of ens1v0 to "+asked) || strings.Contains(err.Error(), "undo") {
			t.Errorf("up %v: %v", up, err)
		}
		if after := s.host(); after != before {
			t.Errorf("up %v: refused: host:\n%s\nbefore:\n%s", up, after, before)
		}
	}
}
