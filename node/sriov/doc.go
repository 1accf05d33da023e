// Package sriov reads and sets SR-IOV of network cards: what sysfs tells below an injected root (Documentation/PCI/pci-iov-howto.rst and
// sysfs-pci.rst of Linux), and the settings of virtual functions that go by rtnetlink through the physical one (IFLA_VFINFO_LIST).
//
// Sys is sysfs alone, for whoever has to find a function: a device plugin, a driver of Pods' interfaces. Kernel is a plan.Kernel with SR-IOV
// in what it observes and applies; around another one it leaves everything else to that.
//
// It decides nothing: which function belongs to which pool, and what has to change, is node/plan's. It does not move devices into Pods.
package sriov
