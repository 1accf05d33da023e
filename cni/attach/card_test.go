package attach

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"testing"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// card is a card with virtual functions for a host whose kernel has none: pairs of cables stand for the interfaces, and what the physical
// function says of its virtual ones is kept here. It is a handle of the host's side.
type card struct {
	hostKernel
	pf      string
	vfs     []sriov.VF
	mute    bool   // it does not tell, and cannot set, as the cable that stands for it
	zeroMAC error  // of taking a MAC away
	parent  string // what the kernel tells of the first function's device, "" for nothing
}

func (c *card) LinkByName(name string) (netlink.Link, error) {
	l, err := c.hostKernel.LinkByName(name)
	if err == nil && name == c.pf+"v0" && c.parent != "" {
		l.Attrs().ParentDev, l.Attrs().ParentDevBus = c.parent, "pci"
	}
	return l, err
}

func (c *card) Functions(pf netlink.Link) ([]sriov.VF, error) {
	if c.mute || pf.Attrs().Name != c.pf {
		return c.hostKernel.Functions(pf)
	}
	return slices.Clone(c.vfs), nil
}

func (c *card) LinkSetVfVlanQos(pf netlink.Link, vf, vlan, qos int) error {
	if c.mute {
		return c.hostKernel.LinkSetVfVlanQos(pf, vf, vlan, qos)
	}
	if vf >= len(c.vfs) || pf.Attrs().Name != c.pf {
		return unix.EINVAL
	}
	c.vfs[vf].VLAN, c.vfs[vf].QoS = vlan, qos
	return nil
}

func (c *card) LinkSetVfHardwareAddr(pf netlink.Link, vf int, mac net.HardwareAddr) error {
	if c.mute {
		return c.hostKernel.LinkSetVfHardwareAddr(pf, vf, mac)
	}
	if vf >= len(c.vfs) || pf.Attrs().Name != c.pf {
		return unix.EINVAL
	}
	if c.zeroMAC != nil && nonzero(mac) == "" {
		return c.zeroMAC
	}
	c.vfs[vf].MAC = mac
	return nil
}

// says is what the card says of a function: VLAN, priority, MAC.
func (c *card) says(vf int) string {
	return fmt.Sprintf("%d %d %s", c.vfs[vf].VLAN, c.vfs[vf].QoS, cmp.Or(nonzero(c.vfs[vf].MAC), "none"))
}

func (c *card) String() (text string) {
	for i := range c.vfs {
		text += fmt.Sprintf("function %d: %s\n", i, c.says(i))
	}
	return text
}

const pfPCI = "0000:3b:00.0"

// functions gives the first host a card called ens1 with n virtual functions, whose interfaces are on the switch.
func (s *site) functions(n int) []lab.VF {
	s.t.Helper()
	vfs, err := s.sys.Add(pfPCI, "ens1", n)
	must(s.t, err)
	s.spare(0, "ens1")
	s.card = &card{hostKernel: s.on[0].host, pf: "ens1"}
	s.on[0].host = s.card
	for _, vf := range vfs {
		s.spare(0, vf.Link)
		s.card.vfs = append(s.card.vfs, sriov.VF{Number: vf.Number, MAC: make(net.HardwareAddr, 6)})
	}
	return vfs
}

// function is an attachment as cni/server would have it after looking at the function.
func function(t *testing.T, a *Attacher, pci, ifName, mac string, vlan uint16, qos uint8, addresses ...string) model.Attachment {
	t.Helper()
	at := attachment(model.SRIOV, "", ifName, addresses...)
	was, err := a.SurveyFunction(pci)
	must(t, err)
	at.Device, at.DeviceID, at.Pool, at.VF, at.Moved, at.MAC, at.VLAN, at.QoS = was.Device, pci, "danm.io/fast", &was.VF, was.Moved, cmp.Or(mac, was.MAC), vlan, qos
	return at
}

// set puts a function's VLAN and MAC to what the host, or the card itself, makes of it.
func (c *card) set(vf, vlan int, mac string) {
	c.vfs[vf].VLAN, c.vfs[vf].QoS = vlan, 0
	c.vfs[vf].MAC, _ = net.ParseMAC(cmp.Or(mac, "00:00:00:00:00:00"))
}
