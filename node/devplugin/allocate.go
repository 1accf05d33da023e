package devplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

var (
	// errUnknown says that a resource does not have a device.
	errUnknown = errors.New("no such device")
	// errUnhealthy says that a device cannot be given now.
	errUnhealthy = errors.New("the device cannot be had")
)

// vfioControl is the device through which a program drives IOMMU groups (Linux, Documentation/driver-api/vfio.rst).
const vfioControl = "/dev/vfio/vfio"

// allocate is what a container gets with devices of the resource. Errors: errUnknown, errUnhealthy, with the device's name.
func (r Resource) allocate(ids []string) (*deviceplugin.ContainerAllocateResponse, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids))) // the kubelet's order is that of a map
	out := &deviceplugin.ContainerAllocateResponse{}
	if len(ids) == 0 {
		return out, nil
	}
	info := map[string]map[string]map[string]string{}
	for _, id := range ids {
		d, found := r.device(id)
		if !found {
			return nil, fmt.Errorf("%.80q of %s: %w", id, r.Name, errUnknown)
		}
		if d.Problem != "" {
			return nil, fmt.Errorf("%s of %s: %w: %s", id, r.Name, errUnhealthy, d.Problem)
		}
		info[id] = map[string]map[string]string{"generic": {"deviceID": id}}
		if group := d.group(); group != "" {
			info[id]["vfio"] = map[string]string{"mount": vfioControl, "dev-mount": group}
			out.Devices = withDevice(withDevice(out.Devices, vfioControl), group)
		}
	}
	told, err := json.Marshal(info)
	if err != nil {
		return nil, fmt.Errorf("devices of %s: %w", r.Name, err)
	}
	name := variable(r.Name)
	out.Envs = map[string]string{name: strings.Join(ids, ","), name + "_INFO": string(told)}
	return out, nil
}

// group is the path of the device's IOMMU group, "" for a device that containers do not get themselves.
func (d Device) group() string {
	if !d.ForPrograms() || d.IOMMUGroup == "" {
		return ""
	}
	return "/dev/vfio/" + d.IOMMUGroup
}

// withDevice adds one by its path, which is the same on the host and in the container.
func withDevice(all []*deviceplugin.DeviceSpec, path string) []*deviceplugin.DeviceSpec {
	if slices.ContainsFunc(all, func(d *deviceplugin.DeviceSpec) bool { return d.GetHostPath() == path }) {
		return all
	}
	return append(all, &deviceplugin.DeviceSpec{HostPath: path, ContainerPath: path, Permissions: "rw"})
}

// variable is the name of the variable by which a container finds its devices, as programs know it of the SR-IOV network device plugin
// (its README, "Pod device information"). That with _INFO behind it is an object of what is known, by address.
func variable(resource string) string {
	return "PCIDEVICE_" + strings.ToUpper(strings.NewReplacer(".", "_", "/", "_", "-", "_").Replace(resource))
}
