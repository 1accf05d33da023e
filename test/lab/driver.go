//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Driver plays, over a tree of Functions, the part of the kernel and of a card's driver: it makes and removes virtual functions as
// sriov_numvfs is written, and gives each to the driver that driver_override says. Files do not answer a write as the kernel does, so what
// the kernel would refuse is remembered.
type Driver struct {
	Functions
	PCI, PF string
	// Make gives the machine a function's interface, Unmake takes it away, which may be gone. Both nil: there are none.
	Make, Unmake func(VF) error
	// Find says what a function's interface is called in the machine, "" if it is not there, and whether it is in another namespace. One that
	// is nowhere ended with a namespace, which a card's does not: Return makes it again in the machine, as the kernel brings it back. nil: names
	// stay as they are.
	Find   func(VF) (link string, elsewhere bool, err error)
	Return func(VF) error

	lost    map[string]int // rounds in which a function's interface was nowhere, by PCI address
	mu      sync.Mutex
	refused []string
	failed  error
}

// Refused is what the kernel would not have done.
func (d *Driver) Refused() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{}, d.refused...)
}

// Err is why a function was not made or removed as it should.
func (d *Driver) Err() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// Load adds the card without functions, with the files that drivers are written to.
func (d *Driver) Load() error {
	_, err := d.Add(d.PCI, d.PF, 0)
	bus := filepath.Join(d.Root, "sys/bus/pci")
	for _, name := range []string{kernelDriver, "vfio-pci", "ice"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(bus, "drivers", name), 0o755), os.WriteFile(filepath.Join(bus, "drivers", name, "unbind"), nil, 0o200))
	}
	return errors.Join(err, os.WriteFile(filepath.Join(bus, "drivers_probe"), nil, 0o200))
}

// Run plays until ctx ends.
func (d *Driver) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := d.step(); err != nil {
			d.mu.Lock()
			d.failed = errors.Join(d.failed, err)
			d.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *Driver) step() error {
	have, err := d.List(d.PCI)
	if err != nil {
		return err
	}
	return errors.Join(d.count(have), d.unbind(), d.bind(have), d.follow())
}

// follow makes the names of interfaces true, and brings back those that ended.
func (d *Driver) follow() error {
	if d.Find == nil {
		return nil
	}
	have, err := d.List(d.PCI)
	if d.lost == nil {
		d.lost = map[string]int{}
	}
	for _, vf := range have {
		if driver, e := os.Readlink(d.device(vf.PCI, "driver")); e != nil || filepath.Base(driver) != kernelDriver {
			continue
		}
		link, elsewhere, e := d.Find(vf)
		if e != nil {
			continue // it will be asked again
		}
		if link != vf.Link {
			err = errors.Join(err, d.Name(vf.PCI, link), os.MkdirAll(d.device(vf.PCI, "net"), 0o755)) // whose names are elsewhere, but whose place is there
		}
		if link != "" || elsewhere {
			d.lost[vf.PCI] = 0
			continue
		}
		if d.lost[vf.PCI]++; d.lost[vf.PCI] == 3 { // on its way between two namespaces it is nowhere for a moment
			err = errors.Join(err, d.Return(vf))
		}
	}
	return err
}

// count makes sriov_numvfs true. An empty file is one that is being written.
func (d *Driver) count(have []VF) error {
	text, err := os.ReadFile(d.device(d.PCI, "sriov_numvfs"))
	n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || bad != nil || n == len(have) {
		return err
	}
	if len(have) > 0 {
		if n != 0 {
			d.mu.Lock()
			d.refused = append(d.refused, fmt.Sprintf("sriov_numvfs from %d to %d", len(have), n))
			d.mu.Unlock()
		}
		for _, vf := range have {
			err = errors.Join(err, d.unmake(vf))
		}
		return errors.Join(err, d.Remove(d.PCI))
	}
	for i := range n {
		vf, e := d.virtual(d.PCI, d.PF, i)
		err = errors.Join(err, e, d.make(vf))
	}
	return err
}

func (d *Driver) make(vf VF) error {
	if d.Make == nil {
		return nil
	}
	return d.Make(vf)
}

func (d *Driver) unmake(vf VF) error {
	if d.Unmake == nil {
		return nil
	}
	return d.Unmake(vf)
}

// unbind takes functions from the drivers that were told so.
func (d *Driver) unbind() error {
	files, err := filepath.Glob(filepath.Join(d.Root, "sys/bus/pci/drivers/*/unbind"))
	for _, file := range files {
		text, e := os.ReadFile(file)
		pci := strings.TrimSpace(string(text))
		if err = errors.Join(err, e); pci == "" {
			continue
		}
		have, e := d.List(d.PCI)
		for _, vf := range have {
			if vf.PCI == pci {
				e = errors.Join(e, d.unmake(vf), d.Bind(pci, ""))
			}
		}
		err = errors.Join(err, e, os.Truncate(file, 0))
	}
	return err
}

// bind gives each function that no driver has to the one that may have it.
func (d *Driver) bind(have []VF) (err error) {
	for _, vf := range have {
		if _, bound := os.Lstat(d.device(vf.PCI, "driver")); bound == nil {
			continue
		}
		text, e := os.ReadFile(d.device(vf.PCI, "driver_override"))
		if e != nil {
			continue // it went meanwhile
		}
		switch override := strings.TrimSpace(string(text)); override {
		case "", "(null)":
			vf.Link = fmt.Sprintf("%sv%d", d.PF, vf.Number)
			err = errors.Join(err, d.Bind(vf.PCI, kernelDriver), d.Name(vf.PCI, vf.Link), d.make(vf))
		default:
			err = errors.Join(err, d.Bind(vf.PCI, override))
		}
	}
	return err
}
