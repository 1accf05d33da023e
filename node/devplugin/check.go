package devplugin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"danm.io/danm/node/sriov"
)

// Bounds of what is offered. A kubelet takes lists of 4 MiB, which is ten times as many devices.
const (
	maxResources = 64
	maxDevices   = 4096 // of one resource
)

// checked is what of resources can be offered: by name, each once, its devices by ID and each once. The problems say what cannot, in the
// order of names.
func checked(in []Resource) (out []Resource, problems []error) {
	in = slices.Clone(in)
	slices.SortStableFunc(in, func(a, b Resource) int { return cmp.Compare(a.Name, b.Name) })
	for _, r := range in {
		if err := checkName(r.Name); err != nil {
			problems = append(problems, err)
			continue
		}
		if n := len(out); n > 0 && out[n-1].Name == r.Name {
			problems = append(problems, fmt.Errorf("resource %s: it is given twice", r.Name))
			continue
		}
		if len(out) == maxResources {
			problems = append(problems, fmt.Errorf("resource %s: %d are offered already", r.Name, maxResources))
			continue
		}
		devices, err := checkDevices(r)
		if err != nil {
			problems = append(problems, err)
		}
		out = append(out, Resource{Name: r.Name, Devices: devices})
	}
	return out, problems
}

// checkName is the kubelet's rule for names of extended resources (Kubernetes, pkg/apis/core/v1/helper, IsExtendedResourceName).
func checkName(name string) error {
	const quota = "requests." // what quotas put before it
	switch wrong := validation.IsQualifiedName(quota + name); {
	case !strings.Contains(name, "/") || strings.Contains(name, "kubernetes.io/") || strings.HasPrefix(name, quota):
		return fmt.Errorf("resource %.300q: the name is of Kubernetes' own resources", name)
	case len(wrong) > 0:
		return fmt.Errorf("resource %.300q: %s", name, strings.Join(wrong, "; "))
	}
	return nil
}

// checkDevices leaves those that have a PCI address, so that ids can be parts of paths. The error tells of the others.
func checkDevices(r Resource) ([]Device, error) {
	devices := slices.Clone(r.Devices)
	devices = slices.DeleteFunc(devices, func(d Device) bool { return !sriov.IsPCI(d.ID) })
	slices.SortStableFunc(devices, func(a, b Device) int { return cmp.Compare(a.ID, b.ID) })
	devices = slices.CompactFunc(devices, func(a, b Device) bool { return a.ID == b.ID })
	devices = devices[:min(len(devices), maxDevices)]
	if n := len(r.Devices) - len(devices); n > 0 {
		return devices, fmt.Errorf("resource %s: %d devices are not offered: they have no PCI address, are there twice or are beyond %d", r.Name, n, maxDevices)
	}
	return devices, nil
}
