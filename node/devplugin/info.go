package devplugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"danm.io/danm/node/sriov"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// unfinished begins the names of files that are being written, and of those that a killed process left.
const unfinished = ".danm-device-"

// infoFiles are the device-info files of our resources in a directory. Others' are left alone: a file is ours if its name is that of one of
// our resources and of a PCI address.
type infoFiles struct {
	dir   string
	names []string // of resources that there may be files of
}

// sync makes the directory have the files of these resources' devices, each in one step, and none of ours else. It does all that it can;
// the error tells of the rest.
func (f *infoFiles) sync(resources []Resource) error {
	want := map[string][]byte{}
	var names []string
	for _, r := range resources {
		names = append(names, r.Name)
		for _, d := range r.Devices {
			text, err := json.Marshal(infoOf(d))
			if err != nil {
				return fmt.Errorf("information of device %s: %w", d.ID, err)
			}
			want[npwgv1.DeviceInfoName(r.Name, d.ID)] = text
		}
	}
	f.names = append(f.names, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(f.names, n) })...)
	if len(f.names) == 0 {
		return nil
	}
	errs := []error{f.clear(want)}
	for _, name := range sortedKeys(want) {
		errs = append(errs, f.put(name, want[name]))
	}
	err := errors.Join(errs...)
	if err == nil {
		f.names = names
	}
	return err
}

// infoOf is what is told of a device.
func infoOf(d Device) npwgv1.DeviceInfo {
	pci := &npwgv1.PCIDevice{Address: d.ID}
	if sriov.IsPCI(d.PF) {
		pci.PFAddress = d.PF
	}
	if len(d.RDMA) > 0 {
		pci.RDMADevice = d.RDMA[0]
	}
	return npwgv1.DeviceInfo{Type: npwgv1.DeviceTypePCI, Version: npwgv1.DeviceInfoVersion, PCI: pci}
}

// sameInfo says whether two lists of resources have the same files.
func sameInfo(a, b []Resource) bool {
	return slices.EqualFunc(a, b, func(a, b Resource) bool {
		return a.Name == b.Name && slices.EqualFunc(a.Devices, b.Devices, func(a, b Device) bool {
			return a.ID == b.ID && a.PF == b.PF && slices.Equal(a.RDMA, b.RDMA)
		})
	})
}

// clear removes what is ours and not wanted.
func (f *infoFiles) clear(want map[string][]byte) error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list information of devices: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if _, wanted := want[e.Name()]; wanted || !f.ours(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove information of a device: %w", err))
		}
	}
	return errors.Join(errs...)
}

func (f *infoFiles) ours(file string) bool {
	return strings.HasPrefix(file, unfinished) || slices.ContainsFunc(f.names, func(resource string) bool {
		id, its := npwgv1.DeviceOfInfoName(resource, file)
		return its && sriov.IsPCI(id)
	})
}

// put makes a file have this text. One that has is not touched.
func (f *infoFiles) put(name string, text []byte) error {
	path := filepath.Join(f.dir, name)
	// What is no file, a pipe say, is never opened: it would hold us up.
	if is, err := os.Lstat(path); err == nil && is.Mode().IsRegular() && is.Size() == int64(len(text)) {
		if has, err := os.ReadFile(path); err == nil && bytes.Equal(has, text) {
			return nil
		}
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of devices' information: %w", err)
	}
	if err := replace(path, text); err != nil {
		return fmt.Errorf("write information of a device: %w", err)
	}
	return nil
}

// replace gives a file another text in one step. It lasts as long as the machine is up, as the directory does: nothing is synced to a disk.
func replace(path string, text []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), unfinished)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(text)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func sortedKeys(m map[string][]byte) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
