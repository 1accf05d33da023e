package sriov

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"danm.io/danm/node/plan"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long what follows a write to sysfs may take. The kernel makes functions before the write returns; their drivers
// may be slower.
const (
	patience = 5 * time.Second
	glance   = 10 * time.Millisecond
)

// setNumVFs makes as many virtual functions as wanted. The kernel takes a number only from a card that has none
// (Documentation/ABI/testing/sysfs-bus-pci, sriov_numvfs), so all of them go first.
func (k *Kernel) setNumVFs(ctx context.Context, pf, want string) error {
	n, err := strconv.Atoi(want)
	if err != nil || n < 0 || n > maxVFs {
		return fmt.Errorf("%q virtual functions: %w", want, ErrStep)
	}
	if err := nameable(pf); err != nil {
		return err
	}
	if !k.sys.isCard(pf) {
		return fmt.Errorf("%s has no SR-IOV: %w", pf, ErrStep)
	}
	file := k.sys.card(pf, "sriov_numvfs")
	have, _, err := k.sys.count(pf)
	if err != nil || have == n {
		return err
	}
	if have != 0 {
		if err := k.write(ctx, file, "0"); err != nil {
			return fmt.Errorf("remove %d virtual functions: %w", have, err)
		}
		if err := wait(ctx, func() bool { return len(k.sys.functions(k.sys.card(pf))) == 0 }); err != nil {
			return fmt.Errorf("remove %d virtual functions: %w", have, err)
		}
	}
	if n == 0 {
		return nil
	}
	if err := k.write(ctx, file, want); err != nil {
		return fmt.Errorf("make %d virtual functions: %w", n, err)
	}
	onPCI := k.sys.pciID(pf, "vendor") != ""
	if err := wait(ctx, func() bool { return !onPCI || len(k.sys.functions(k.sys.card(pf))) == n }); err != nil {
		return fmt.Errorf("make %d virtual functions: %w", n, err)
	}
	return nil
}

// setVF sets one property of a virtual function.
func (k *Kernel) setVF(ctx context.Context, s plan.Step) error {
	if err := nameable(s.LinkName); err != nil {
		return err
	}
	if s.VF == nil || s.VF.Number < 0 || s.VF.Number >= maxVFs {
		return fmt.Errorf("no virtual function named: %w", ErrStep)
	}
	if pci := k.sys.virtual(k.sys.card(s.LinkName), s.VF.Number); s.VF.PCI != "" && pci != s.VF.PCI {
		return fmt.Errorf("function %d of %s is %q and was %s when this was decided: %w", s.VF.Number, s.LinkName, pci, s.VF.PCI, ErrStep)
	}
	switch s.Property {
	case "driver":
		return k.setDriver(ctx, s.LinkName, s.VF.Number, s.To)
	case "mtu":
		return k.setMTU(s.LinkName, s.VF.Number, s.To)
	}
	pf, err := k.cardLink(s.LinkName)
	if err != nil {
		return err
	}
	return k.setByNetlink(ctx, pf, s.VF.Number, s.Property, s.To)
}

// ErrBusy says that a write did not come back in time.
var ErrBusy = errors.New("the card is busy (many functions may want a longer confirmTimeout), or a program has a device open")

// linkStates are IFLA_VF_LINK_STATE_* of linux/if_link.h.
var linkStates = map[string]uint32{"auto": 0, "enable": 1, "disable": 2}

func (k *Kernel) setByNetlink(ctx context.Context, pf netlink.Link, n int, property, to string) error {
	h := k.Handle()
	switch property {
	case "trust", "spoofcheck":
		if to != "on" && to != "off" {
			break
		}
		if property == "trust" {
			return h.LinkSetVfTrust(pf, n, to == "on")
		}
		return h.LinkSetVfSpoofchk(pf, n, to == "on")
	case "linkstate":
		if state, known := linkStates[to]; known {
			return h.LinkSetVfState(pf, n, state)
		}
	case "rate":
		least, most, err := plan.ParseRate(to)
		if err != nil {
			return fmt.Errorf("%w: %w", err, ErrStep)
		}
		return k.setRate(ctx, pf, n, least, most)
	}
	return fmt.Errorf("property %s, value %q: %w", property, to, ErrStep)
}

// setRate waits for the carrier of a card that was set up a moment ago: until its speed is known, drivers refuse every rate. A card that
// gets none has no rate for now; its next observation says that it has no carrier.
func (k *Kernel) setRate(ctx context.Context, pf netlink.Link, n, least, most int) error {
	without := "carrier of " + pf.Attrs().Name
	if k.hasRefused(without) != nil {
		return nil
	}
	var refused error
	up := true
	err := wait(ctx, func() bool {
		now, err := k.Handle().LinkByIndex(pf.Attrs().Index)
		refused = k.Handle().LinkSetVfRate(pf, n, least, most)
		up = err != nil || now.Attrs().OperState == netlink.OperUp || now.Attrs().OperState == netlink.OperUnknown
		return !errors.Is(refused, unix.EINVAL) || up
	})
	if !up && err != nil {
		k.refuse(without, err)
		return nil
	}
	return refused
}

// hasRefused and refuse keep what would be waited for again with each step.
func (k *Kernel) hasRefused(what string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refused[what]
}

func (k *Kernel) refuse(what string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refused == nil {
		k.refused = map[string]error{}
	}
	k.refused[what] = err
}

// setMTU is of the function's interface. One that is in a Pod, or has none, is left alone.
func (k *Kernel) setMTU(pf string, n int, to string) error {
	mtu, err := strconv.Atoi(to)
	if err != nil {
		return fmt.Errorf("mtu %q: %w", to, ErrStep)
	}
	f, err := k.function(pf, n)
	if err != nil {
		return err
	}
	l, err := k.Handle().LinkByName(f.Link)
	if f.Link == "" || err != nil {
		return nil
	}
	return k.Handle().LinkSetMTU(l, mtu)
}

// function finds a virtual function by its number.
func (k *Kernel) function(pf string, n int) (Function, error) {
	pci := k.sys.virtual(k.sys.card(pf), n)
	if pci == "" {
		return Function{}, fmt.Errorf("virtual function %d of %s: %w", n, pf, ErrNoFunction)
	}
	f := Function{PCI: pci}
	k.sys.driver(&f)
	return f, nil
}

// setDriver gives a virtual function to a driver for programs, or to the one that the kernel chooses. One that is
// left without a driver, because this was cut off, is seen to have none (Documentation/ABI/testing/sysfs-bus-pci, driver_override).
func (k *Kernel) setDriver(ctx context.Context, pf string, n int, to string) error {
	if to != plan.DriverKernel && !isForPrograms(to) {
		return fmt.Errorf("driver %q: %w", to, ErrStep)
	}
	if err := k.hasRefused("driver " + to); err != nil {
		return err
	}
	f, err := k.function(pf, n)
	if err != nil {
		return err
	}
	if f.Busy {
		return fmt.Errorf("%s: %w", f.PCI, ErrBusy)
	}
	override := to
	if to == plan.DriverKernel {
		override = "\n"
	}
	if err := k.write(ctx, k.sys.device(f.PCI, "driver_override"), override); err != nil {
		return fmt.Errorf("choose driver %s: %w", to, err)
	}
	if f.Driver != "" && f.Driver != to && (isForPrograms(f.Driver) || to != plan.DriverKernel) {
		if err := k.write(ctx, k.sys.device(f.PCI, "driver/unbind"), f.PCI); err != nil && !missing(err) {
			return fmt.Errorf("take it from driver %s: %w", f.Driver, err)
		}
	}
	// The kernel answers with the error of the driver that failed, if any did; what counts is who has the function then.
	probed := k.write(ctx, filepath.Join(k.sys.Root, "sys/bus/pci/drivers_probe"), f.PCI)
	if to == plan.DriverKernel {
		if err := wait(ctx, func() bool { k.sys.driver(&f); return !isForPrograms(f.Driver) }); err != nil {
			return fmt.Errorf("take it from driver %s: %w", f.Driver, err)
		}
		return nil // which driver of the kernel takes it, and whether one does, is not ours to say
	}
	if err := wait(ctx, func() bool { k.sys.driver(&f); return f.Driver == to }); err != nil {
		err = fmt.Errorf("driver %s does not take it (is its module loaded, and the IOMMU on?): %w", to, errorsOf(probed, err))
		k.refuse("driver "+to, err)
		return err
	}
	return nil
}

func errorsOf(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// wait looks until something is so.
func wait(ctx context.Context, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("sysfs does not show it: %w", ctx.Err())
		case <-time.After(glance):
		}
	}
	return nil
}

// longest is what one write may take where nobody says otherwise.
const longest = time.Minute

// write gives a file of sysfs its text in one call. It makes no files. The kernel keeps the caller while a program has the device open
// (vfio_unregister_group_dev), or for as long as a card takes to make its functions: when that is too long the call goes on, is nobody's
// any more, and until it comes back the file is busy.
func (k *Kernel) write(ctx context.Context, path, text string) error {
	if !k.begin(path) {
		return fmt.Errorf("write %s: %w: an earlier write has not come back", path, ErrBusy)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		k.end(path)
		return err
	}
	done := make(chan error, 1)
	go func() {
		_, err := f.WriteString(text)
		err = errors.Join(err, f.Close())
		k.end(path)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("write %s: %w: %w", path, ErrBusy, ctx.Err())
	}
}

func (k *Kernel) begin(path string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.writing[path] {
		return false
	}
	if k.writing == nil {
		k.writing = map[string]bool{}
	}
	k.writing[path] = true
	return true
}

func (k *Kernel) end(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.writing, path)
}
