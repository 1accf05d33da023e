package agent

import (
	"cmp"
	"slices"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/plan"
)

// withUnseen adds to a list the devices of cards that do not tell of their functions now, as they were before, and unhealthy: that they are
// not seen does not mean that they are gone, and what Pods have of them stays known.
func withUnseen(list, before []devplugin.Resource, o plan.Observed) []devplugin.Resource {
	silent := map[string]string{} // by PCI address and by name
	for i := range o.Links {
		if l := &o.Links[i]; l.SRIOV != nil && l.SRIOV.Unseen != "" {
			problem := "its physical function " + l.Name + " does not tell of it: " + l.SRIOV.Unseen
			silent[l.Name], silent[l.PCI] = problem, problem
		}
	}
	if len(silent) == 0 {
		return list
	}
	for i := range list {
		was := slices.IndexFunc(before, func(r devplugin.Resource) bool { return r.Name == list[i].Name })
		if was < 0 {
			continue
		}
		for _, d := range before[was].Devices {
			if problem, is := silent[d.PF]; is {
				d.Problem = problem
				list[i].Devices = append(list[i].Devices, d)
			}
		}
		slices.SortFunc(list[i].Devices, func(a, b devplugin.Device) int { return cmp.Compare(a.ID, b.ID) })
	}
	return list
}
