package link

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Hardware lists this namespace's network cards, sorted by name: links without a kind that are no loopback. What sysfs does
// not tell (below sysRoot) is left zero.
func (k *Kernel) Hardware(ctx context.Context) ([]model.NIC, error) {
	o, err := k.Observe(ctx)
	if err != nil {
		return nil, err
	}
	return k.cards(o), nil
}

func (k *Kernel) cards(o plan.Observed) []model.NIC {
	var out []model.NIC
	for _, l := range o.Links {
		if l.KernelKind != "" || l.Name == "lo" {
			continue
		}
		n := model.NIC{Name: l.Name, AltNames: slices.Clone(l.AltNames), MAC: l.MAC, PCI: l.PCI, Driver: l.Driver, MinMTU: l.MinMTU, MaxMTU: l.MaxMTU}
		n.Speed = max(0, k.number("sys/class/net", l.Name, "speed")) // -1: unknown
		n.Vendor, n.Device = k.pciID(l.Name, "vendor"), k.pciID(l.Name, "device")
		n.TotalVFs = k.number("sys/class/net", l.Name, "device/sriov_totalvfs")
		n.VFs = k.functions(l.Name, n.Vendor != "")
		if pf, err := os.Readlink(filepath.Join(k.sysRoot, "sys/class/net", l.Name, "device/physfn")); err == nil {
			n.PF = filepath.Base(pf)
		}
		out = append(out, n)
	}
	return out
}

// functions counts a card's virtual functions. On PCI they are counted by their links: who reads sriov_numvfs waits for who writes it, and
// that one perhaps for a program that has a function open.
func (k *Kernel) functions(card string, onPCI bool) (n int) {
	if !onPCI {
		return k.number("sys/class/net", card, "device/sriov_numvfs")
	}
	entries, _ := os.ReadDir(filepath.Join(k.sysRoot, "sys/class/net", card, "device"))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "virtfn") {
			n++
		}
	}
	return n
}

// pciID reads an id of a card's device, "0x8086" being "8086"; "" if there is none of that form.
func (k *Kernel) pciID(card, attribute string) string {
	b, err := os.ReadFile(filepath.Join(k.sysRoot, "sys/class/net", card, "device", attribute))
	if err != nil {
		return ""
	}
	id, hex := strings.CutPrefix(strings.TrimSpace(string(b)), "0x")
	if !hex || len(id) != 4 {
		return ""
	}
	return strings.ToLower(id)
}

// number reads an attribute of sysfs, 0 if it is not there or not readable: speed is an error while a card is down.
func (k *Kernel) number(parts ...string) int {
	b, err := os.ReadFile(filepath.Join(append([]string{k.sysRoot}, parts...)...))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

// mtuLimits of a device (IFLA_MIN_MTU, IFLA_MAX_MTU of rtnetlink(7)), 0 = none told.
type mtuLimits struct{ min, max int }

// observeLimits adds the limits of devices that we do not make. They are asked for once a device: they do not change, and
// asking costs a dump.
func (k *Kernel) observeLimits(o *plan.Observed, byIndex map[int]int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for try := range 2 {
		missing := false
		for index, i := range byIndex {
			l := &o.Links[i]
			if l.Kind != model.Physical {
				continue
			}
			limits, known := k.limits[index]
			l.MinMTU, l.MaxMTU = limits.min, limits.max
			missing = missing || !known
		}
		if !missing || try == 1 {
			return nil
		}
		fresh, err := k.dumpLimits()
		if err != nil {
			return err
		}
		k.limits = fresh
	}
	return nil
}

func (k *Kernel) dumpLimits() (map[int]mtuLimits, error) {
	messages, err := completeDump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		return k.Ask(req, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("list MTU limits: %w", err)
	}
	out := make(map[int]mtuLimits, len(messages))
	for _, m := range messages {
		attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, fmt.Errorf("read MTU limits: %w", err)
		}
		var limits mtuLimits
		for _, a := range attrs {
			switch {
			case len(a.Value) < 4:
			case a.Attr.Type == unix.IFLA_MIN_MTU:
				limits.min = int(binary.NativeEndian.Uint32(a.Value))
			case a.Attr.Type == unix.IFLA_MAX_MTU:
				limits.max = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
		out[int(nl.DeserializeIfInfomsg(m).Index)] = limits
	}
	return out, nil
}
