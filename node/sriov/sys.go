package sriov

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"danm.io/danm/node/plan"
)

var (
	// ErrNoFunction says that there is no device of the address, or that it is no virtual function.
	ErrNoFunction = errors.New("no such virtual function")
	// ErrNotHere says that the kernel's files do not say what is needed.
	ErrNotHere = errors.New("sysfs does not tell")
)

// Sys is sysfs below a root.
type Sys struct {
	Root string // "/", or where a container or a test has it
}

// Function is a virtual function as sysfs tells of it. Its interface is looked for in the namespace that sysfs was mounted in.
type Function struct {
	PCI        string // address, as 0000:3b:02.1
	PF         string // interface of the physical function, "" if it has none here
	PFPCI      string
	Number     int      // among those of the physical function, from 0
	Driver     string   // that has it now; "" = none
	Link       string   // its interface, "" if it has none here
	Away       bool     // its interface is in another namespace: there is a place for its name, and no name
	Busy       bool     // it does not answer: its driver waits for a program that has it open
	NUMA       int      // node, -1 = the machine has no nodes
	IOMMUGroup string   // number, or "noiommu-<number>"; "" = none, so programs cannot have it
	RDMA       []string // devices for remote direct memory access that belong to it, sorted
}

// Bound is the driver as plans have it.
func (f Function) Bound() string {
	switch name := f.Driver; {
	case f.Busy:
		return plan.DriverBusy
	case name == "":
		return plan.DriverNone
	case isForPrograms(name):
		return name
	}
	return plan.DriverKernel
}

// ForPrograms says whether a program drives the device, so that the kernel has no interface of it.
func (f Function) ForPrograms() bool { return isForPrograms(f.Driver) }

// isForPrograms says whether a driver hands its devices to programs, or keeps them for those: vfio-pci and its kin (mlx5_vfio_pci), uio,
// and pci-stub.
func isForPrograms(driver string) bool {
	return strings.Contains(driver, "vfio") || driver == "uio_pci_generic" || driver == "igb_uio" || driver == "pci-stub"
}

// pciAddress is a device's directory name (Documentation/PCI/sysfs-pci.rst). Others never become part of a path.
var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// IsPCI says whether a text is a PCI address as sysfs writes it.
func IsPCI(text string) bool { return pciAddress.MatchString(text) }

// Function is the virtual function of a PCI address. ErrNoFunction: there is none.
func (s Sys) Function(pci string) (Function, error) {
	if !IsPCI(pci) {
		return Function{}, fmt.Errorf("%q is no PCI address: %w", pci, ErrNoFunction)
	}
	pf, err := os.Readlink(s.device(pci, "physfn"))
	if err != nil {
		return Function{}, fmt.Errorf("%s: %w: %w", pci, ErrNoFunction, err)
	}
	f := Function{PCI: pci, PFPCI: filepath.Base(pf), Number: -1}
	if !IsPCI(f.PFPCI) {
		return Function{}, fmt.Errorf("%s: its physical function %q: %w", pci, f.PFPCI, ErrNotHere)
	}
	if f.Number = s.numberOf(pci, f.PFPCI); f.Number < 0 {
		return Function{}, fmt.Errorf("%s: %s does not know it: %w", pci, f.PFPCI, ErrNoFunction)
	}
	f.PF = s.interfaceOf(s.device(f.PFPCI))
	s.driver(&f)
	return s.details(f), nil
}

// numberOf is a virtual function's number among those of its physical one, -1 if that does not know it. The links are read until it is
// found; all of them only where numbers are missing before it.
func (s Sys) numberOf(pci, pf string) int {
	for n := range maxVFs {
		target, err := os.Readlink(s.device(pf, "virtfn"+strconv.Itoa(n)))
		if err != nil {
			break
		}
		if filepath.Base(target) == pci {
			return n
		}
	}
	for n, address := range s.functions(s.device(pf)) {
		if address == pci {
			return n
		}
	}
	return -1
}

// Interface is the interface of a PCI device in this namespace, "" if it has none here, or there is no such device. It is one look, for
// those who look often.
func (s Sys) Interface(pci string) string {
	if !IsPCI(pci) {
		return ""
	}
	return s.interfaceOf(s.device(pci))
}

// Functions are the PCI addresses of a physical function's virtual ones by number, none if it has none or is not there.
func (s Sys) Functions(pf string) map[int]string {
	if !IsPCI(pf) {
		return nil
	}
	return s.functions(s.device(pf))
}

// driver adds who drives the function, and its interface.
func (s Sys) driver(f *Function) {
	dir := s.device(f.PCI)
	f.Driver, f.Busy = "", false
	if driver, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
		f.Driver = filepath.Base(driver)
	} else {
		f.Busy = !answers(filepath.Join(dir, "driver_override"))
	}
	f.Link = s.interfaceOf(dir)
	_, place := os.Stat(filepath.Join(dir, "net"))
	f.Away = f.Link == "" && place == nil
}

// asked are the files whose answer is waited for: a question that hangs holds a thread, so there is one a file.
var asked sync.Map

// answers says whether a file of a device can be read. While its driver waits for a program, whoever reads one that takes the device's lock
// waits too (Linux, driver_override_show).
func answers(path string) bool {
	if _, waits := asked.LoadOrStore(path, true); waits {
		return false
	}
	done := make(chan struct{})
	go func() {
		_, _ = os.ReadFile(path)
		asked.Delete(path)
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(moment):
		return false
	}
}

// moment is more than a file of sysfs takes.
const moment = 200 * time.Millisecond

// details adds what else stands in the function's own directory.
func (s Sys) details(f Function) Function {
	dir := s.device(f.PCI)
	f.NUMA = -1
	if n, err := strconv.Atoi(text(filepath.Join(dir, "numa_node"))); err == nil {
		f.NUMA = n
	}
	if group, err := os.Readlink(filepath.Join(dir, "iommu_group")); err == nil {
		f.IOMMUGroup = filepath.Base(group)
		if text(filepath.Join(dir, "iommu_group", "name")) == "vfio-noiommu" {
			f.IOMMUGroup = "noiommu-" + f.IOMMUGroup
		}
	}
	f.RDMA = names(filepath.Join(dir, "infiniband"))
	return f
}

// functions are the PCI addresses of a physical function's virtual ones by number. dir is that of its device, on whatever bus.
func (s Sys) functions(dir string) map[int]string {
	out := map[int]string{}
	for _, name := range names(dir) {
		number, is := strings.CutPrefix(name, "virtfn")
		n, err := strconv.Atoi(number)
		if !is || err != nil || n < 0 || n >= maxVFs {
			continue
		}
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && IsPCI(filepath.Base(target)) {
			out[n] = filepath.Base(target)
		}
	}
	return out
}

// virtual is the PCI address of one of them, "" if there is none.
func (s Sys) virtual(dir string, n int) string {
	target, err := os.Readlink(filepath.Join(dir, fmt.Sprintf("virtfn%d", n)))
	if pci := filepath.Base(target); err == nil && IsPCI(pci) {
		return pci
	}
	return ""
}

// maxVFs is how many virtual functions of one device are believed; PCI has 16 bits for them, devices far less.
const maxVFs = 4096

// interfaceOf is the interface of a device, the first by name if it has several; "" if there is none.
func (s Sys) interfaceOf(dir string) string {
	for _, name := range names(filepath.Join(dir, "net")) {
		return name
	}
	return ""
}

// device is a file of a PCI device. The address has been looked at.
func (s Sys) device(pci string, file ...string) string {
	return filepath.Join(append([]string{s.Root, "sys/bus/pci/devices", pci}, file...)...)
}

// names are those in a directory, sorted, none if it cannot be read.
func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// text is a short file's, without blanks around it; "" if it cannot be read.
func text(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number is a file's, false if there is none.
func number(path string) (int, bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w", path, err)
	}
	return n, true, nil
}
