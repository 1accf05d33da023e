// Package devplugin offers a node's SR-IOV pools to the kubelet: one extended resource a pool, over the kubelet's device plugin API
// (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1), whose devices are virtual functions by their PCI addresses. For each it leaves a
// device-info file (NPWG, device-info specification 1.1.0), by which whoever attaches a Pod finds out about the device.
//
// It is told what there is by Set and decides nothing about it: which function belongs to which pool is node/plan's, and no device is
// touched. A device that leaves a pool while a container has it stays that container's: the kubelet is told that it offers one less.
//
// A resource is registered as long as the kubelet listens to its list: whatever ends that (the kubelet restarts and removes all sockets, the
// socket is lost, the connection breaks) makes a new server on a socket of a new name, and another registration. Names are never used
// twice, because a kubelet that has not noticed the end of the old server refuses its socket for good (Kubernetes 1.37,
// pkg/kubelet/cm/devicemanager, PluginConnected: "device plugin already connected").
package devplugin

import (
	"slices"
	"strings"

	"danm.io/danm/node/plan"
)

// Resource is what one or more pools of a name offer.
type Resource struct {
	Name    string   // such as danm.io/fast
	Devices []Device // sorted by ID
}

// Device is a virtual function.
type Device struct {
	ID         string // PCI address
	Problem    string // why no container can have it now, "" = it is healthy
	NUMA       int    // node, -1 = none
	PF         string // PCI address of the physical function, or its interface's name where it has none
	Driver     string // as plan.VFSettings.Driver
	IOMMUGroup string // name below /dev/vfio; "" = none
	RDMA       []string
}

// ForPrograms says whether a container gets the device itself, rather than an interface of it.
func (d Device) ForPrograms() bool { return d.Driver == plan.DriverVFIO }

// device finds one by its ID.
func (r Resource) device(id string) (Device, bool) {
	i, found := slices.BinarySearchFunc(r.Devices, id, func(d Device, id string) int { return strings.Compare(d.ID, id) })
	if !found {
		return Device{}, false
	}
	return r.Devices[i], true
}
