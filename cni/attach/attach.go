package attach

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
)

var (
	// ErrNetns says that the descriptor given is no network namespace, or is the host's.
	ErrNetns = errors.New("not the network namespace of a Pod")
	// ErrMismatch says that the kernel has something else than the record. It wraps nothing; the text names the place.
	ErrMismatch = errors.New("not as recorded")
	// ErrRouteConflict says that two interfaces want different gateways for one destination in one table.
	ErrRouteConflict = errors.New("another route to the destination is there")
	// ErrHostLink says that what the network stands on is not there (yet).
	ErrHostLink = errors.New("the host's link is not there")
	// ErrServed says that the device serves another Pod, and can serve one only.
	ErrServed = errors.New("the device serves another Pod already")
	// ErrInUse says that the host itself uses a device that a Pod would get.
	ErrInUse = errors.New("the host uses the device")
	// ErrType says that there is no driver for the network's type.
	ErrType = errors.New("no driver for this type of network")
)

// Pod is where to attach. Netns is nil where the namespace is gone, which only Detach accepts.
type Pod struct {
	Sandbox string
	Netns   *os.File
	// Rebooted says that the machine has started anew since the Pod was attached. Then its virtual functions are as the card makes them.
	Rebooted bool
	// Lost are the interfaces whose devices of the host another Pod has got since: Detach leaves those alone, wherever they are.
	Lost []string
}

// Link is what the kernel says about an interface that was made.
type Link struct {
	MAC  string   // lower case, colons
	MTU  int      // bytes
	RDMA []string // devices for remote direct memory access of its virtual function, sorted; Attach's alone
}

// Attacher works on the network namespace it was created in (the host's) and on those it is given. Its methods may be
// called at once for different Pods; calls for one Pod must follow each other.
type Attacher struct {
	host hostKernel
	home *os.File // the host's namespace
	self string   // its identity
	sys  sriov.Sys
	open func(*os.File) (podKernel, error)
	// turns bounds who is in a Pod's namespace at once to make or to look at links: each has a thread and netlink's large buffers to
	// itself, and the kernel's lock (rtnl) lets one of them go on. Taking down is not bounded, for it waits for the kernel's grace
	// periods, which pass for all at once.
	turns chan struct{}
	late  *lateTellers
}

// mostAtOnce is enough to keep the kernel busy.
const mostAtOnce = 8

// visit waits until there is room, and enters the Pod; leave gives both back.
func (a *Attacher) visit(ctx context.Context, pod Pod) (inside podKernel, leave func(), err error) {
	select {
	case a.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for other Pods: %w", ctx.Err())
	}
	if inside, err = a.enter(pod); err != nil {
		<-a.turns
		return nil, nil, err
	}
	return inside, func() { inside.Close(); <-a.turns }, nil
}

// New opens the host's side: the network namespace of the calling thread. root is where the host's /sys is found, "" = /.
func New(root string) (*Attacher, error) {
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace: %w", err)
	}
	id, err := Identity(self)
	if err != nil {
		self.Close()
		return nil, err
	}
	host, err := newHostHandle()
	if err != nil {
		self.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Attacher{host: host, home: self, self: id, sys: sriov.Sys{Root: filepath.Join("/", root)}, open: enter, turns: make(chan struct{}, mostAtOnce), late: &lateTellers{waiting: map[string]*lateTeller{}}}, nil
}

// Close frees the host's side.
func (a *Attacher) Close() {
	a.host.Close()
	a.home.Close()
}

// HostLinkName is the name of the host end of a veth: at most 15 bytes, the same for the same sandbox and interface.
func HostLinkName(sandbox, ifName string) string { return "dn" + digest(sandbox, ifName) }

// temporaryName is the name of a link in the Pod until it is complete.
func temporaryName(sandbox, ifName string) string { return "dt" + digest(sandbox, ifName) }

func digest(sandbox, ifName string) string {
	sum := sha256.Sum256([]byte(sandbox + "\x00" + ifName))
	return hex.EncodeToString(sum[:6])
}

// NewMAC draws a unicast, locally administered address (IEEE 802, bits 0 and 1 of the first byte).
func NewMAC() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // it never fails (crypto/rand)
	b[0] = b[0]&^1 | 2
	return net.HardwareAddr(b).String()
}

// Attach makes all interfaces, or none: after an error, and after ctx has ended, Pod and host are as before. Interfaces
// are made in the order given, for the kernel's lock leaves nothing to gain from making them at once; routes and rules
// follow in the same order, so that of two equal routes the first interface's stays.
func (a *Attacher) Attach(ctx context.Context, pod Pod, interfaces []model.Attachment) ([]Link, error) {
	inside, leave, err := a.visit(ctx, pod)
	if err != nil {
		return nil, err
	}
	defer leave()
	w := a.work(ctx, pod, inside)
	links, err := w.all(interfaces)
	if err != nil {
		return nil, errors.Join(err, w.undo.run())
	}
	for i, at := range interfaces {
		inside.Announce(links[i].index, links[i].mac, at.Addresses, !isMoved(at)) // best effort: neighbours learn later by themselves
	}
	a.late.tell(pod.Sandbox, inside.Unheard())
	out := make([]Link, len(links))
	for i, l := range links {
		out[i] = Link{MAC: l.mac.String(), MTU: l.mtu}
		if interfaces[i].VF != nil {
			f, _ := a.sys.Function(interfaces[i].DeviceID) // it was there a moment ago
			out[i].RDMA = f.RDMA
		}
	}
	return out, nil
}

// enter opens the Pod's side after making sure that it is not the host's: a runtime that passes the host's namespace
// (a hostNetwork Pod) would have the host's own links renamed.
func (a *Attacher) enter(pod Pod) (podKernel, error) {
	if pod.Netns == nil {
		return nil, fmt.Errorf("no descriptor: %w", ErrNetns)
	}
	id, err := Identity(pod.Netns)
	if err != nil {
		return nil, err
	}
	if id == a.self {
		return nil, fmt.Errorf("the host's own: %w", ErrNetns)
	}
	inside, err := a.open(pod.Netns)
	if err != nil {
		return nil, fmt.Errorf("enter the network namespace: %w", err)
	}
	return inside, nil
}

// made is a link that was made inside the Pod.
type made struct {
	index, mtu int
	mac        net.HardwareAddr
}

// work is one Attach.
type work struct {
	ctx    context.Context
	pod    Pod
	host   hostKernel
	home   *os.File // the host's namespace
	sys    sriov.Sys
	inside podKernel // nil: the Pod's namespace is gone
	undo   undoStack
	until  time.Time          // until when devices are waited for, zero before the first that is
	away   []model.Attachment // what giveBack has not found
}

func (a *Attacher) work(ctx context.Context, pod Pod, inside podKernel) *work {
	return &work{ctx: ctx, pod: pod, host: a.host, home: a.home, sys: a.sys, inside: inside}
}

func (w *work) all(interfaces []model.Attachment) ([]made, error) {
	links := make([]made, len(interfaces))
	for i, at := range interfaces {
		var err error
		if links[i], err = w.link(at); err != nil {
			return nil, fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err)
		}
	}
	for i, at := range interfaces {
		if err := w.routes(links[i].index, at); err != nil {
			return nil, fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, err)
		}
	}
	return links, w.ctx.Err() // a caller who is gone gets nothing
}

// do makes one kernel call and puts what it is about before its error. Nothing is begun after ctx has ended.
func (w *work) do(call func() error, format string, args ...any) error {
	err := w.ctx.Err()
	if err == nil {
		err = call()
	}
	if err != nil {
		return fmt.Errorf(format+": %w", append(args, err)...)
	}
	return nil
}

// undoStack takes changes back in reverse order.
type undoStack struct {
	steps []func() error
}

func (u *undoStack) push(step func() error) {
	u.steps = append(u.steps, step)
}

func (u *undoStack) run() error {
	var errs []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		if err := u.steps[i](); err != nil {
			errs = append(errs, fmt.Errorf("undo: %w", err))
		}
	}
	u.steps = nil
	return errors.Join(errs...)
}
