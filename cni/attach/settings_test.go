package attach

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// counted is a card that counts what it is asked and told, and may keep nothing of that.
type counted struct {
	*card
	questions, writes int
	forgets           bool
}

func (c *counted) Functions(pf netlink.Link) ([]sriov.VF, error) {
	c.questions++
	return c.card.Functions(pf)
}

func (c *counted) LinkSetVfVlanQos(pf netlink.Link, vf, vlan, qos int) error {
	if c.writes++; c.forgets {
		return nil
	}
	return c.card.LinkSetVfVlanQos(pf, vf, vlan, qos)
}

func (c *counted) LinkSetVfHardwareAddr(pf netlink.Link, vf int, mac net.HardwareAddr) error {
	c.writes++
	return c.card.LinkSetVfHardwareAddr(pf, vf, mac)
}

// TestKernelSettingsAreMended: what a card does not say any more of a Pod's function, because that was made anew or others have set it, it is
// told again, wherever the function is, in one question for all of its functions; and nothing else is written.
func TestKernelSettingsAreMended(t *testing.T) {
	s := newSite(t)
	vfs := s.functions(4)
	ns, pod := s.pod("pod")
	s.card.set(1, 0, "02:00:00:00:00:11")
	var want []model.Attachment
	for i, mac := range []string{asked, "", "", ""} {
		want = append(want, function(t, s.on[0], vfs[i].PCI, fmt.Sprintf("net%d", i), mac, uint16(10+i), 1))
	}
	want[1].VF.Driver, want[1].Moved, want[1].MAC = "vfio-pci", nil, want[1].VF.MAC
	stand := attachment(model.MACVLAN, "pod", "net1") // for a dummy, which not every kernel has
	c := &counted{card: s.card}
	s.on[0].host = c
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{want[0], stand, want[2], want[3]})
	must(t, err)
	must(t, s.on[0].host.LinkSetVfVlanQos(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "ens1"}}, 1, 11, 1))
	for i, vf := range vfs {
		if i != 1 {
			must(t, s.sys.Name(vf.PCI, "")) // as in the host of a function that is in another namespace
		}
	}
	must(t, s.sys.Bind(vfs[1].PCI, "vfio-pci"))
	s.onLink(ns, "net2", func(l netlink.Link) error {
		return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "mine"))
	})
	right := s.card.String()
	mend := func(what string, questions int, differing ...string) {
		t.Helper()
		c.questions, c.writes = 0, 0
		got, err := s.on[0].Differing(want)
		if err != nil || !slices.Equal(got, differing) || c.questions != questions || c.writes != 0 {
			t.Errorf("%s: %v differ instead of %v, %d questions, %d writes, %v", what, got, differing, c.questions, c.writes, err)
		}
		mended, err := s.on[0].Mend(t.Context(), pod, want)
		if err != nil || len(mended) != len(differing) || len(differing) == 0 && c.writes != 0 || s.card.String() != right {
			t.Errorf("%s: mended %v, %d writes, %v:\n%s", what, mended, c.writes, err, s.card)
		}
	}
	mend("as recorded", 1)
	s.card.set(0, 10, "02:00:00:00:00:66")
	s.card.vfs[0].QoS = 1
	mend("another MAC", 1, vfs[0].PCI)
	if c.writes != 1 {
		t.Errorf("%d writes for a MAC", c.writes)
	}
	for i := range vfs {
		s.card.set(i, 0, "")
	}
	mend("made anew", 1, vfs[0].PCI, vfs[1].PCI, vfs[2].PCI, vfs[3].PCI)
	s.card.set(2, 12, "02:00:00:00:00:66") // the Pod's own MAC is its own to change
	s.card.vfs[2].QoS = 1
	right = s.card.String()
	mend("a MAC that nobody asked for", 1)
	s.card.vfs[1].QoS = 2
	mend("another priority", 1, vfs[1].PCI)
	c.forgets = true
	s.card.vfs[3].VLAN = 8
	if mended, err := s.on[0].Mend(t.Context(), pod, want); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "VLAN 8") || len(mended) != 0 {
		t.Errorf("a card that keeps nothing: %v, %v", mended, err)
	}
	s.card.mute = true
	if got, err := s.on[0].Differing(want); err != nil || len(got) != 0 {
		t.Errorf("a card that does not tell: %v, %v", got, err)
	}
	s.card.mute = false
	must(t, s.sys.Name(pfPCI, ""))
	if got, err := s.on[0].Differing(want); err != nil || len(got) != 0 {
		t.Errorf("a card that is away: %v, %v", got, err)
	}
	must(t, s.sys.Name(pfPCI, "ens1"))
	must(t, s.sys.Remove(pfPCI))
	if got, err := s.on[0].Differing(want); err != nil || len(got) != 0 {
		t.Errorf("functions that are gone: %v, %v", got, err)
	}
}
