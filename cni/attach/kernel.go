package attach

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/node/link"
	"danm.io/danm/node/sriov"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// handle is a netlink socket in one network namespace, with the calls this package makes.
type handle interface {
	LinkByName(name string) (netlink.Link, error)
	Links() ([]netlink.Link, error)
	LinkAdd(l netlink.Link) error
	LinkDel(l netlink.Link) error
	LinkSetName(l netlink.Link, name string) error
	LinkSetUp(l netlink.Link) error
	LinkSetDown(l netlink.Link) error
	LinkSetMTU(l netlink.Link, mtu int) error
	LinkSetHardwareAddr(l netlink.Link, mac net.HardwareAddr) error
	LinkSetAlias(l netlink.Link, alias string) error
	LinkSetNsFd(l netlink.Link, fd int) error
	LinkSetMasterByIndex(l netlink.Link, master int) error
	AddrAdd(l netlink.Link, a *netlink.Addr) error
	RouteAdd(r *netlink.Route) error
	RouteDel(r *netlink.Route) error
	RuleAdd(r *netlink.Rule) error
	RuleDel(r *netlink.Rule) error
	Addresses(l netlink.Link) ([]netlink.Addr, error)
	Routes(family int) ([]netlink.Route, error)
	Rules(family int) ([]netlink.Rule, error)
	Close()
}

// hostKernel is the kernel as seen from the host.
type hostKernel interface {
	handle
	// Functions are what a physical function says of its virtual ones; nil where its driver does not tell, or of more than it can tell of.
	Functions(pf netlink.Link) ([]sriov.VF, error)
	// LinkSetVfVlanQos and LinkSetVfHardwareAddr set it of the virtual function of a number.
	LinkSetVfVlanQos(pf netlink.Link, vf, vlan, qos int) error
	LinkSetVfHardwareAddr(pf netlink.Link, vf int, mac net.HardwareAddr) error
}

// podKernel is the kernel as seen from inside a Pod. Its calls belong to the goroutine that opened it, until Close.
type podKernel interface {
	handle
	// Fd is the namespace's descriptor, for links created from the host's side.
	Fd() int
	// Sysctl sets a parameter of the namespace ("ipv6/conf/eth0/accept_ra") if it differs. An error that is fs.ErrNotExist: the
	// kernel has none of the name.
	Sysctl(name, value string) error
	SysctlValue(name string) (string, error)
	// Announce tells the neighbours about addresses; it does what it can. fresh is a link that was made now.
	Announce(index int, mac net.HardwareAddr, addresses []netip.Prefix, fresh bool)
	// Unheard is what was announced on links that carry nothing yet, nil for nothing. Whoever takes it ends it; nothing but Close may follow here.
	Unheard() *unheard
}

type netlinkHandle struct{ *link.Handle }

func newHandle() (netlinkHandle, error) {
	h, err := link.NewHandle()
	if err != nil {
		return netlinkHandle{}, err
	}
	return netlinkHandle{h}, nil
}

func (h netlinkHandle) Addresses(l netlink.Link) ([]netlink.Addr, error) {
	return link.AddressesOn(h.Handle, l)
}
func (h netlinkHandle) Links() ([]netlink.Link, error) { return link.LinksIn(h.Handle) }
func (h netlinkHandle) Routes(family int) ([]netlink.Route, error) {
	return link.RoutesIn(h.Handle, family)
}
func (h netlinkHandle) Rules(family int) ([]netlink.Rule, error) {
	return link.RulesIn(h.Handle, family)
}

// Identity names a network namespace for as long as it lives ("device:inode"), after making sure that it is one.
func Identity(f *os.File) (string, error) {
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return "", fmt.Errorf("%s: %w", f.Name(), ErrNetns)
	}
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("stat the network namespace: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", ErrNetns
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// inside is the calling goroutine's thread moved into the Pod's network namespace, with a netlink socket opened there.
type inside struct {
	handle
	netns, outside *os.File
	own            netlinkHandle  // is handle; the zero one after Unheard took it
	packet         int            // a packet socket, -1 until the first announcement
	unheard        []announcement // that no link carried yet
}

// enter moves the caller's thread; Close moves it back.
func enter(netns *os.File) (podKernel, error) {
	runtime.LockOSThread()
	outside, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("open the thread's own namespace: %w", err)
	}
	in := &inside{netns: netns, outside: outside, packet: -1}
	if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
		outside.Close()
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("setns: %w", err)
	}
	if in.own, err = newHandle(); err != nil {
		in.leave()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	in.handle = in.own
	return in, nil
}

// Close does not wait for the packet socket's end: the kernel lets a grace period pass in its close (packet_release),
// which is longer than all else in an ADD.
func (in *inside) Close() {
	if in.own.Handle != nil {
		in.own.Close()
	}
	if in.packet >= 0 {
		go unix.Close(in.packet)
	}
	in.leave()
}

func (in *inside) Unheard() *unheard {
	if len(in.unheard) == 0 {
		return nil
	}
	u := &unheard{links: in.own, packet: in.packet, all: in.unheard}
	in.own, in.packet, in.unheard = netlinkHandle{}, -1, nil
	return u
}

// leave moves the thread back. One that could not be moved stays locked and ends with its goroutine, for it must not serve
// others from inside a Pod.
func (in *inside) leave() {
	defer in.outside.Close()
	if unix.Setns(int(in.outside.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
}

func (in *inside) Fd() int { return int(in.netns.Fd()) }

// podSysctls is where the kernel shows the parameters of the network namespace of the thread that opens a file there.
const podSysctls = "/proc/sys/net"

func (in *inside) SysctlValue(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(podSysctls, name))
	return strings.Join(strings.Fields(string(b)), " "), err
}

func (in *inside) Sysctl(name, value string) error {
	now, err := in.SysctlValue(name)
	if err != nil || now == value {
		return err
	}
	return os.WriteFile(filepath.Join(podSysctls, name), []byte(value), 0)
}

func (in *inside) Announce(index int, mac net.HardwareAddr, addresses []netip.Prefix, fresh bool) {
	if len(addresses) == 0 || len(mac) != 6 {
		return
	}
	if in.packet < 0 {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // protocol 0 receives nothing
		if err != nil {
			return
		}
		in.packet = fd
	}
	a := announcement{index: index, mac: [6]byte(mac), addresses: addresses, fresh: fresh}
	// Asked first: what is sent before it carries may be lost. A fresh link is asked the quick way, which may be a second behind for one
	// that has lost its carrier.
	waits := fresh && !runs(in.packet, index) || !fresh && a.state(in.own) == waiting
	_ = a.send(in.packet)
	if !waits {
		a.said = time.Now()
	}
	if waits || !fresh { // a card that was just set up says for a moment that it carries as before
		in.unheard = append(in.unheard, a)
	}
}

// gone says that a kernel object is not there (any more).
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.ENXIO)
}
