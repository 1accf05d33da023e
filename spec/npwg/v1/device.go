package v1

import "strings"

// DeviceInfoDir is where, on a node, those who hand devices out and those who call CNI plugins leave what is known of a device for one
// another: dp/ is the former's, cni/ the latter's (device-info specification 1.1.0, section 3). It says /var/run, which is a link to /run.
const DeviceInfoDir = "/run/k8s.cni.cncf.io/devinfo"

// DeviceInfoVersion is the version of the specification that DeviceInfo is of.
const DeviceInfoVersion = "1.1.0"

// DeviceTypePCI is the type of a device that is told by PCIDevice.
const DeviceTypePCI = "pci"

// DeviceInfo is a file about a device (device-info specification 1.1.0, section 2), of the types there the one that DANM writes.
type DeviceInfo struct {
	Type    string     `json:"type"`
	Version string     `json:"version"`
	PCI     *PCIDevice `json:"pci,omitempty"`
}

// PCIDevice is what is told of a device of type pci. Addresses are as sysfs writes them.
type PCIDevice struct {
	Address    string `json:"pci-address"`
	PFAddress  string `json:"pf-pci-address,omitempty"` // of its physical function
	RDMADevice string `json:"rdma-device,omitempty"`    // of those that belong to it
}

// DeviceInfoName is the name below dp/ of the file about a device of a resource. The id is one that can be part of a file's name.
func DeviceInfoName(resource, id string) string {
	return deviceInfoPrefix(resource) + id + deviceInfoSuffix
}

// DeviceOfInfoName is the device that a file below dp/ is about if it is about one of a resource, by its name alone: a resource's name may
// begin like another's, so whoever asks has to know what ids look like.
func DeviceOfInfoName(resource, file string) (id string, its bool) {
	id, its = strings.CutPrefix(file, deviceInfoPrefix(resource))
	if !its {
		return "", false
	}
	return strings.CutSuffix(id, deviceInfoSuffix)
}

const deviceInfoSuffix = "-device.json"

func deviceInfoPrefix(resource string) string { return strings.ReplaceAll(resource, "/", "-") + "-" }
