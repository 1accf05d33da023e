//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Functions is a tree of files as sysfs has them of PCI devices and their virtual functions, for those who read sysfs below a root. It
// is files alone: the interfaces that it names are made by the test, of whatever kind, and stay in it when they move to another
// namespace, where sysfs would not show them any more.
type Functions struct {
	Root string // sys/bus/pci/devices is below it
}

// VF is a virtual function of the tree.
type VF struct {
	PCI    string // 0000:3b:02.1
	Number int
	Link   string // its interface's name while the kernel's driver has it
}

// kernelDriver stands for any driver that makes an interface.
const kernelDriver = "iavf"

// Add makes a physical function with an interface and n virtual ones, which the kernel's driver has: interfaces are <pf>v0, <pf>v1, …,
// addresses those of the next device numbers of the same bus.
func (f Functions) Add(pci, pf string, n int) ([]VF, error) {
	if !strings.Contains(pci, ":") {
		return nil, fmt.Errorf("%q is no PCI address", pci)
	}
	class := filepath.Join(f.Root, "sys/class/net", pf)
	errs := []error{os.MkdirAll(f.device(pci, "net", pf), 0o755), f.link(pci, "driver", "../../drivers/ice"), f.write(pci, "vendor", "0x8086"), f.write(pci, "device", "0x1592"),
		os.MkdirAll(class, 0o755), os.Symlink("../../../bus/pci/devices/"+pci, filepath.Join(class, "device")),
		f.write(pci, "sriov_totalvfs", strconv.Itoa(max(n, 64))), f.write(pci, "sriov_numvfs", strconv.Itoa(n))}
	var out []VF
	for i := range n {
		vf, err := f.virtual(pci, pf, i)
		out, errs = append(out, vf), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// virtual adds one virtual function. The link that makes it known comes last.
func (f Functions) virtual(pci, pf string, i int) (VF, error) {
	bus := pci[:strings.LastIndex(pci, ":")]
	vf := VF{PCI: fmt.Sprintf("%s:%02x.%d", bus, 2+i/8, i%8), Number: i, Link: fmt.Sprintf("%sv%d", pf, i)}
	return vf, errors.Join(os.MkdirAll(f.device(vf.PCI), 0o755), f.link(vf.PCI, "physfn", "../"+pci), f.write(vf.PCI, "driver_override", "(null)"),
		f.Bind(vf.PCI, kernelDriver), f.Name(vf.PCI, vf.Link), f.link(pci, fmt.Sprintf("virtfn%d", i), "../"+vf.PCI))
}

// Bind gives a function to a driver, "" for none. Its interface's name goes with the kernel's; Name gives it one.
func (f Functions) Bind(pci, driver string) error {
	if err := errors.Join(os.RemoveAll(f.device(pci, "driver")), os.RemoveAll(f.device(pci, "net"))); err != nil || driver == "" {
		return err
	}
	return f.link(pci, "driver", "../../drivers/"+driver)
}

// Name is what the interface of a function, physical or virtual, is called from now on.
func (f Functions) Name(pci, link string) error {
	if err := os.RemoveAll(f.device(pci, "net")); err != nil || link == "" {
		return err
	}
	return os.MkdirAll(f.device(pci, "net", link), 0o755)
}

// RDMA gives a function a device for remote direct memory access.
func (f Functions) RDMA(pci, name string) error {
	return os.MkdirAll(f.device(pci, "infiniband", name), 0o755)
}

// Remove takes a physical function's virtual ones away, as another number of them does. The number goes first: who sees the last function
// gone may write the next one at once.
func (f Functions) Remove(pci string) error {
	vfs, err := f.List(pci)
	err = errors.Join(err, f.write(pci, "sriov_numvfs", "0"))
	for _, vf := range vfs {
		err = errors.Join(err, os.RemoveAll(f.device(vf.PCI)), os.Remove(f.device(pci, fmt.Sprintf("virtfn%d", vf.Number))))
	}
	return err
}

// List is the virtual functions of a physical one, by number.
func (f Functions) List(pci string) ([]VF, error) {
	found, err := filepath.Glob(f.device(pci, "virtfn*"))
	var out []VF
	for _, path := range found {
		to, e := os.Readlink(path)
		number, e2 := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "virtfn"))
		vf := VF{PCI: filepath.Base(to), Number: number}
		if names, _ := os.ReadDir(f.device(vf.PCI, "net")); len(names) > 0 {
			vf.Link = names[0].Name()
		}
		out, err = append(out, vf), errors.Join(err, e, e2)
	}
	slices.SortFunc(out, func(a, b VF) int { return a.Number - b.Number })
	return out, err
}

func (f Functions) device(pci string, file ...string) string {
	return filepath.Join(append([]string{f.Root, "sys/bus/pci/devices", pci}, file...)...)
}

func (f Functions) link(pci, name, to string) error { return os.Symlink(to, f.device(pci, name)) }

func (f Functions) write(pci, name, text string) error {
	return os.WriteFile(f.device(pci, name), []byte(text+"\n"), 0o644)
}
