package attach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// Check compares the kernel with the records and returns what it sees, one Link an interface. Every difference is named
// at once; they are ErrMismatch. What a Pod has besides is its own business.
func (a *Attacher) Check(ctx context.Context, pod Pod, interfaces []model.Attachment) ([]Link, error) {
	inside, leave, err := a.visit(ctx, pod)
	if err != nil {
		return nil, err
	}
	defer leave()
	c := &checker{work: a.work(ctx, pod, inside), ours: map[int]bool{}}
	if err := c.load(interfaces); err != nil {
		return nil, err
	}
	links := make([]Link, len(interfaces))
	for i, at := range interfaces {
		l, err := c.link(at)
		if err != nil {
			return nil, err
		}
		if l != nil {
			links[i] = Link{MAC: l.Attrs().HardwareAddr.String(), MTU: l.Attrs().MTU}
			c.ours[l.Attrs().Index] = true
		}
	}
	for _, at := range interfaces { // after all links are known: an equal route may stand on another one
		c.routing(at)
	}
	return links, errors.Join(c.differences...)
}

// checker collects differences; errors of the kernel's answers end the check, for "cannot see" is not "differs".
type checker struct {
	*work
	routes      []netlink.Route
	rules       []netlink.Rule
	ours        map[int]bool // links of this Pod that are ours, by index
	differences []error
}

func (c *checker) differ(at model.Attachment, format string, args ...any) {
	c.differences = append(c.differences, fmt.Errorf("interface %s on network %s: %s: %w", at.IfName, at.Network, fmt.Sprintf(format, args...), ErrMismatch))
}

// load lists routes and rules once, where any are recorded.
func (c *checker) load(interfaces []model.Attachment) error {
	wanted := map[int]bool{}
	for _, at := range interfaces {
		for _, r := range append(at.Routes, at.PolicyRoutes...) {
			wanted[family(r.To.Addr())] = true
		}
	}
	for f := range wanted {
		routes, err := c.inside.Routes(f)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		rules, err := c.inside.Rules(f)
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		c.routes, c.rules = append(c.routes, routes...), append(c.rules, rules...)
	}
	return c.ctx.Err()
}

// link checks the link itself; nil if it is not there.
func (c *checker) link(at model.Attachment) (netlink.Link, error) {
	l, err := c.inside.LinkByName(at.IfName)
	if gone(err) {
		c.differ(at, "no such link")
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", at.IfName, err)
	}
	attrs := l.Attrs()
	if kind := kindOf(at); l.Type() != kind {
		c.differ(at, "kind %s instead of %s", l.Type(), kind)
	}
	if isMoved(at) && at.Moved != nil && !same(l, at) {
		c.differ(at, "it is not the host's %s", at.Device)
	}
	if v, ok := l.(*netlink.Vlan); ok && v.VlanId != int(at.VLAN) {
		c.differ(at, "VLAN %d instead of %d", v.VlanId, at.VLAN)
	}
	if at.Type == model.MACVLAN || at.Type == model.IPVLAN { // a device of the host may be such a link, too, in a mode of the host's choice
		if have, want := modeOf(l), cmp.Or(at.Mode, model.DefaultMode(at.Type)); have != "" && have != want {
			c.differ(at, "mode %s instead of %s", have, want)
		}
	}
	if at.MAC != "" && attrs.HardwareAddr.String() != at.MAC {
		c.differ(at, "MAC %s instead of %s", attrs.HardwareAddr, at.MAC)
	}
	if at.MTU != 0 && attrs.MTU != at.MTU {
		c.differ(at, "MTU %d instead of %d", attrs.MTU, at.MTU)
	}
	if attrs.Flags&net.FlagUp == 0 {
		c.differ(at, "down")
	}
	for _, s := range at.Sysctls {
		have, err := c.inside.SysctlValue(sysctlPath(s.Key, at.IfName))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", sysctlName(s.Key, at.IfName), err)
		}
		if !sameValue(at, s, have) {
			c.differ(at, "%s is %s instead of %s", sysctlName(s.Key, at.IfName), have, s.Value)
		}
	}
	if err := c.parent(at, attrs); err != nil {
		return nil, err
	}
	return l, c.addresses(at, l)
}

// sameValue says whether a parameter is as the network wants it. Times of neighbours are counted in ticks, and so read as something a
// little longer; a router that is listened to sets two others (RFC 4861, section 6.3.4).
func sameValue(at model.Attachment, s model.Sysctl, have string) bool {
	if have == s.Value {
		return true
	}
	router := slices.ContainsFunc(at.Sysctls, func(o model.Sysctl) bool {
		return strings.HasSuffix(o.Key, ".accept_ra") && o.Value != "0"
	})
	if router && (strings.HasSuffix(s.Key, ".hop_limit") || strings.HasPrefix(s.Key, "net.ipv6.neigh.")) {
		return true
	}
	was, err := strconv.ParseInt(s.Value, 10, 64)
	is, err2 := strconv.ParseInt(have, 10, 64)
	const tick = 10 // milliseconds, the longest there is (HZ=100)
	return strings.HasSuffix(s.Key, "_ms") && err == nil && err2 == nil && is >= was-tick && is <= was+tick
}

// parent checks what the link hangs on, in the host.
func (c *checker) parent(at model.Attachment, attrs *netlink.LinkAttrs) error {
	switch {
	case at.VF != nil:
		return c.function(at, attrs)
	case isMoved(at):
		return nil // it is in the Pod itself
	}
	parent, err := c.host.LinkByName(at.Device)
	if gone(err) {
		c.differ(at, "host link %s is gone", at.Device)
		return nil
	}
	if err != nil {
		return fmt.Errorf("find host link %s: %w", at.Device, err)
	}
	if at.HostLink == "" {
		if attrs.ParentIndex != parent.Attrs().Index {
			c.differ(at, "its parent is not %s", at.Device)
		}
		return nil
	}
	port, err := c.host.LinkByName(at.HostLink)
	switch {
	case gone(err):
		c.differ(at, "host end %s is gone", at.HostLink)
	case err != nil:
		return fmt.Errorf("find host link %s: %w", at.HostLink, err)
	case port.Attrs().MasterIndex != parent.Attrs().Index:
		c.differ(at, "host end %s is not a port of %s", at.HostLink, at.Device)
	case port.Attrs().Flags&net.FlagUp == 0:
		c.differ(at, "host end %s is down", at.HostLink)
	case attrs.ParentIndex != port.Attrs().Index:
		c.differ(at, "its other end is not %s", at.HostLink)
	}
	return nil
}

// function checks what the card says of a virtual function, and what stands for one in the Pod.
func (c *checker) function(at model.Attachment, attrs *netlink.LinkAttrs) error {
	if forProgram(at) && attrs.Alias != at.DeviceID {
		c.differ(at, "alias %q instead of %s", attrs.Alias, at.DeviceID)
	}
	f, err := c.sys.Function(at.DeviceID)
	if errors.Is(err, sriov.ErrNoFunction) || err == nil && !isRecorded(f, at) {
		c.differ(at, "virtual function %s is gone", at.DeviceID)
		return nil
	}
	if err != nil {
		return err
	}
	pf, err := c.physical(f)
	if errors.Is(err, ErrHostLink) {
		c.differ(at, "physical function %s is gone", f.PFPCI)
		return nil
	}
	if err != nil {
		return err
	}
	now, told, err := c.settingsOf(pf, f.Number)
	if err != nil {
		return err
	}
	if told && now.lacksVLAN(at) {
		c.differ(at, "the card has VLAN %d, priority %d for it instead of VLAN %d, priority %d", now.vlan, now.qos, at.VLAN, at.QoS)
	}
	return nil
}

func (c *checker) addresses(at model.Attachment, l netlink.Link) error {
	if len(at.Addresses) == 0 {
		return nil
	}
	list, err := c.inside.Addresses(l)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", at.IfName, err)
	}
	have := map[netip.Prefix]bool{}
	for _, a := range list {
		ip, ok := netip.AddrFromSlice(a.IP)
		bits, size := a.Mask.Size()
		if size == 32 {
			ip = ip.Unmap()
		}
		have[netip.PrefixFrom(ip, bits)] = ok
	}
	for _, want := range at.Addresses {
		if !have[want] {
			c.differ(at, "address %s is missing", want)
		}
	}
	return nil
}

func (c *checker) routing(at model.Attachment) {
	on := func(index int) bool { return c.ours[index] }
	for _, r := range at.Routes {
		if !hasRoute(c.routes, r, 0, on) {
			c.differ(at, "route to %s via %s is missing", r.To, via(r))
		}
	}
	for _, r := range at.PolicyRoutes {
		if !hasRoute(c.routes, r, at.Table, on) {
			c.differ(at, "route to %s via %s in table %d is missing", r.To, via(r), at.Table)
		}
	}
	for _, want := range rules(at) {
		if !c.hasRule(want) {
			c.differ(at, "rule from %s to table %d is missing", want.Src, want.Table)
		}
	}
}

func (c *checker) hasRule(want *netlink.Rule) bool {
	for _, have := range c.rules {
		if have.Src != nil && have.Src.String() == want.Src.String() && have.Table == want.Table && have.Family == want.Family {
			return true
		}
	}
	return false
}
