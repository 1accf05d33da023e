package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// ErrStep says that a step speaks of what the card does not have, or in words that mean nothing.
var ErrStep = errors.New("step makes no sense")

// Kernel is a network stack with SR-IOV.
type Kernel struct {
	*link.Kernel
	sys Sys

	mu sync.Mutex
	// Of the steps since the last observation: the cards that they were about, and what cards or drivers refused, so that a thousand steps
	// neither ask nor wait a thousand times.
	cards   map[string]netlink.Link
	refused map[string]error
	writing map[string]bool // files whose write has not come back, whenever it began
}

var _ plan.Kernel = (*Kernel)(nil)

// Over adds SR-IOV to k, with sysfs below root. It closes nothing.
func Over(k *link.Kernel, root string) *Kernel { return &Kernel{Kernel: k, sys: Sys{Root: root}} }

// Observe is what the stack below sees, with SR-IOV of the cards that have it.
func (k *Kernel) Observe(ctx context.Context, sysctls ...string) (plan.Observed, error) {
	k.mu.Lock()
	k.cards, k.refused = nil, nil
	k.mu.Unlock()
	o, err := k.Kernel.Observe(ctx, sysctls...)
	if err != nil {
		return o, err
	}
	var index map[string]int
	for i := range o.Links {
		l := &o.Links[i]
		if l.Kind != model.Physical {
			continue
		}
		if !k.sys.isCard(l.Name) {
			continue
		}
		if index == nil {
			index = byName(o.Links)
		}
		l.SRIOV = &plan.ObservedPF{}
		if err := k.observeCard(l.Name, l.SRIOV, o.Links, index); err != nil {
			*l.SRIOV = plan.ObservedPF{Unseen: err.Error()} // the others' plans go on
		}
	}
	return o, ctx.Err()
}

func byName(links []plan.ObservedLink) map[string]int {
	out := make(map[string]int, len(links))
	for i := range links {
		out[links[i].Name] = i
	}
	return out
}

// representor is how ports are called that stand for functions of a card in switchdev mode (Linux, devlink-port.rst). They share its device.
var representor = regexp.MustCompile(`^(c[0-9]+)?pf[0-9]+(vf|sf)[0-9]+$`)

// isCard says whether an interface is a physical function's.
func (s Sys) isCard(name string) bool {
	_, err := os.Stat(s.card(name, "sriov_numvfs"))
	return err == nil && !representor.MatchString(text(filepath.Join(s.Root, "sys/class/net", name, "phys_port_name")))
}

// observeCard observes one physical function.
func (k *Kernel) observeCard(name string, s *plan.ObservedPF, links []plan.ObservedLink, index map[string]int) (err error) {
	if s.TotalVFs, _, err = number(k.sys.card(name, "sriov_totalvfs")); err != nil {
		return err
	}
	s.Vendor, s.Device = k.sys.pciID(name, "vendor"), k.sys.pciID(name, "device")
	if _, err := os.Stat(filepath.Join(k.sys.Root, "sys/bus/pci/drivers", plan.DriverVFIO)); err != nil {
		s.Lacks = []string{plan.DriverVFIO}
	}
	n, addresses, err := k.sys.count(name)
	if err != nil || n == 0 {
		return err
	}
	settings, err := k.settings(name, n)
	if err != nil {
		return err
	}
	s.VFs = make([]plan.ObservedVF, n)
	for i := range s.VFs {
		vf := &s.VFs[i]
		vf.VFSettings = settings[i]
		if vf.PCI = addresses[i]; vf.PCI == "" {
			vf.Driver = plan.DriverKernel // a simulated card's functions are no devices
			continue
		}
		f := Function{PCI: vf.PCI}
		k.sys.driver(&f)
		vf.Driver = f.Bound()
		at, here := index[f.Link]
		if here && f.Link != "" {
			vf.Link, vf.MTU = f.Link, strconv.Itoa(links[at].MTU)
		}
		vf.Away = vf.Driver == plan.DriverKernel && vf.Link == "" && (f.Away || f.Link != "")
	}
	return nil
}

// count is how many virtual functions a card has, with their PCI addresses by number. sriov_numvfs is read only where there are no such: who
// reads it waits for who writes it (Linux, sriov_numvfs_show), and that may be long.
func (s Sys) count(name string) (n int, addresses map[int]string, err error) {
	if s.pciID(name, "vendor") != "" {
		addresses = s.functions(s.card(name))
		for i := range addresses {
			n = max(n, i+1)
		}
		return n, addresses, nil
	}
	n, _, err = number(s.card(name, "sriov_numvfs"))
	if err == nil && (n < 0 || n > maxVFs) {
		err = fmt.Errorf("%d virtual functions: %w", n, ErrNotHere)
	}
	return n, nil, err
}

// card is a file of the device behind an interface.
func (s Sys) card(name string, file ...string) string {
	return filepath.Join(append([]string{s.Root, "sys/class/net", name, "device"}, file...)...)
}

// pciID is a vendor's or device's number as four hexadecimal digits, "" for a device that is on no PCI bus.
func (s Sys) pciID(name, file string) string {
	id := strings.ToLower(strings.TrimPrefix(text(s.card(name, file)), "0x"))
	if _, err := strconv.ParseUint(id, 16, 16); err != nil || len(id) != 4 {
		return ""
	}
	return id
}

// Apply executes one step. What is already as the step wants it is no error.
func (k *Kernel) Apply(ctx context.Context, s plan.Step) error {
	var err error
	switch {
	case s.Op == plan.SetVF:
		err = k.setVF(ctx, s)
	case s.Op == plan.SetLink && s.Property == "numvfs":
		err = k.setNumVFs(ctx, s.LinkName, s.To)
	default:
		return k.Kernel.Apply(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

// cardLink is the link of a physical function. It stays the one of the first step after an observation, whatever its name becomes.
func (k *Kernel) cardLink(name string) (netlink.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l := k.cards[name]; l != nil {
		return l, nil
	}
	l, err := k.Handle().LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if k.cards == nil {
		k.cards = map[string]netlink.Link{}
	}
	k.cards[name] = l
	return l, nil
}

// nameable keeps what is no interface's name out of paths.
func nameable(link string) error {
	if link == "" || link == "." || link == ".." || strings.ContainsAny(link, "/\x00") {
		return fmt.Errorf("interface %q: %w", link, ErrStep)
	}
	return nil
}

// missing says that a file is not there: the device went, or is on no such bus.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
