package sriov_test

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/vfio.h: _IO(';', 100 + n).
const (
	vfioSetIOMMU       = ';'<<8 | 102
	vfioGroupContainer = ';'<<8 | 104
	vfioGroupDevice    = ';'<<8 | 106
	vfioType1          = 1
)

// openDevice opens a device as a program that drives it does, until the function that it returns is called.
func openDevice(t *testing.T, pci string) func() {
	t.Helper()
	link, err := os.Readlink("/sys/bus/pci/devices/" + pci + "/iommu_group")
	must(t, err)
	container, err := unix.Open("/dev/vfio/vfio", unix.O_RDWR, 0)
	must(t, err)
	group, err := unix.Open("/dev/vfio/"+filepath.Base(link), unix.O_RDWR, 0)
	must(t, err)
	must(t, unix.IoctlSetPointerInt(group, vfioGroupContainer, container))
	must(t, unix.IoctlSetInt(container, vfioSetIOMMU, vfioType1))
	name := append([]byte(pci), 0)
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(group), vfioGroupDevice, uintptr(unsafe.Pointer(&name[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	return func() {
		_ = unix.Close(int(fd))
		_ = unix.Close(group)
		_ = unix.Close(container)
	}
}
