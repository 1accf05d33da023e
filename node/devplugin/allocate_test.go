package devplugin

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

// TestEnvironment: what a container gets is, to the byte, what programs know of the SR-IOV network device plugin.
func TestEnvironment(t *testing.T) {
	vfio := func(n int, group string) Device {
		d := vf(1, n, 0)
		d.Driver, d.IOMMUGroup = "vfio-pci", group
		return d
	}
	kernel := vf(2, 0, 0)
	kernel.IOMMUGroup = "7" // that of any device where there is an IOMMU
	r := Resource{Name: "danm.io/dpdk-2.x", Devices: []Device{vfio(0, "178"), vfio(1, "180"), vfio(2, "180"), vfio(3, "noiommu-0"), kernel}}
	for _, c := range []struct{ ids, name, list, info, devices string }{
		{"0000:01:02.1 0000:01:02.0", "PCIDEVICE_DANM_IO_DPDK_2_X", "0000:01:02.0,0000:01:02.1",
			`{"0000:01:02.0":{"generic":{"deviceID":"0000:01:02.0"},"vfio":{"dev-mount":"/dev/vfio/178","mount":"/dev/vfio/vfio"}},"0000:01:02.1":{"generic":{"deviceID":"0000:01:02.1"},"vfio":{"dev-mount":"/dev/vfio/180","mount":"/dev/vfio/vfio"}}}`,
			"/dev/vfio/vfio /dev/vfio/178 /dev/vfio/180"},
		{"0000:01:02.1 0000:01:02.2", "PCIDEVICE_DANM_IO_DPDK_2_X", "0000:01:02.1,0000:01:02.2",
			`{"0000:01:02.1":{"generic":{"deviceID":"0000:01:02.1"},"vfio":{"dev-mount":"/dev/vfio/180","mount":"/dev/vfio/vfio"}},"0000:01:02.2":{"generic":{"deviceID":"0000:01:02.2"},"vfio":{"dev-mount":"/dev/vfio/180","mount":"/dev/vfio/vfio"}}}`,
			"/dev/vfio/vfio /dev/vfio/180"},
		{"0000:01:02.3", "PCIDEVICE_DANM_IO_DPDK_2_X", "0000:01:02.3",
			`{"0000:01:02.3":{"generic":{"deviceID":"0000:01:02.3"},"vfio":{"dev-mount":"/dev/vfio/noiommu-0","mount":"/dev/vfio/vfio"}}}`, "/dev/vfio/vfio /dev/vfio/noiommu-0"},
		{"0000:02:02.0", "PCIDEVICE_DANM_IO_DPDK_2_X", "0000:02:02.0", `{"0000:02:02.0":{"generic":{"deviceID":"0000:02:02.0"}}}`, ""},
	} {
		got, err := r.allocate(fields(c.ids))
		must(t, err)
		var paths []string
		for _, d := range got.Devices {
			if d.HostPath != d.ContainerPath || d.Permissions != "rw" {
				t.Errorf("%s: %v", c.ids, d)
			}
			paths = append(paths, d.HostPath)
		}
		if len(got.Envs) != 2 || got.Envs[c.name] != c.list || got.Envs[c.name+"_INFO"] != c.info || !slices.Equal(paths, fields(c.devices)) {
			t.Errorf("%s: %v %q", c.ids, got.Envs, paths)
		}
		if len(got.Mounts)+len(got.Annotations)+len(got.CdiDevices) != 0 {
			t.Errorf("%s: %v", c.ids, got)
		}
	}
	if got, err := r.allocate(nil); err != nil || len(got.Envs)+len(got.Devices) != 0 {
		t.Errorf("none: %v %v", got, err)
	}
	r.Devices[0].Problem = "x"
	for id, want := range map[string]error{"0000:01:02.0": errUnhealthy, "0000:01:02.7": errUnknown, "": errUnknown, "../x": errUnknown} {
		if got, err := r.allocate([]string{"0000:01:02.1", id}); !errors.Is(err, want) {
			t.Errorf("%q: %v %v", id, got, err)
		}
	}
}

func TestChecked(t *testing.T) {
	for name, good := range map[string]bool{"danm.io/fast": true, "a/b": true, "x.example.org/Fast_2.x-y": true,
		"": false, "fast": false, "kubernetes.io/x": false, "sub.kubernetes.io/x": false, "requests.danm.io/x": false, "a/b/c": false, "/x": false,
		"a/": false, "a/..": false, "a/-x": false, "A.io/x": false, "a b/c": false, "danm.io/" + fmt.Sprintf("%064d", 0): false, "danm.io/" + fmt.Sprintf("%063d", 0): true} {
		out, problems := checked([]Resource{{Name: name}})
		if (len(out) == 1) != good || (len(problems) == 0) != good {
			t.Errorf("%q: %v %v", name, out, problems)
		}
	}
	out, problems := checked([]Resource{{Name: "a/b", Devices: []Device{vf(2, 0, 0), vf(1, 0, 0), vf(2, 0, 0), {ID: "eth0"}, {ID: "../../x"}}}, {Name: "a/a"}, {Name: "a/b"}})
	if len(out) != 2 || out[0].Name != "a/a" || len(out[1].Devices) != 2 || out[1].Devices[0].ID != "0000:01:02.0" || len(problems) != 2 {
		t.Errorf("%v %v", out, problems)
	}
	many := Resource{Name: "a/a"}
	for i := range maxDevices + 10 {
		many.Devices = append(many.Devices, Device{ID: fmt.Sprintf("%04x:00:00.0", i)})
	}
	all := []Resource{many}
	for i := range maxResources {
		all = append(all, Resource{Name: fmt.Sprintf("b/%d", i)})
	}
	if out, problems = checked(all); len(out) != maxResources || len(out[0].Devices) != maxDevices || len(problems) != 2 {
		t.Errorf("%d resources, %d devices, %v", len(out), len(out[0].Devices), problems)
	}
}
