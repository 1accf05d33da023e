package guard

import (
	"slices"
	"strings"

	"danm.io/danm/node/plan"
)

// hold splits the steps into those to execute and those that must wait: a step that destroys, or without disruptive takes
// down, a link on which, or on whose upper links, Pods are attached, and every step that only makes sense together with it.
// pods names attachments by host link. Order is kept; all disruptive steps name their Pods.
func hold(steps []plan.Step, observed plan.Observed, pods map[string][]string, disruptive bool) (run, held []plan.Step) {
	attached := func(link string) []string { return plan.AttachedTo(link, observed, pods) }
	steps = plan.Plan{Steps: slices.Clone(steps)}.NamePods(attached).Steps
	waits := map[string]bool{} // links whose steps wait
	for _, s := range steps {
		destroyed := s.Disruption == plan.DestroysPods && len(plan.StandingOn(stepLink(s), observed, pods)) > 0 || plan.Away(s, observed)
		if destroyed || !disruptive && s.Disruption.Rank() >= plan.LinkDown.Rank() && len(attached(stepLink(s))) > 0 {
			waits[stepLink(s)] = true
		}
	}
	for n := -1; n != len(waits); { // to the fixed point: a held link holds what depends on it
		n = len(waits)
		for _, s := range steps {
			if dependsOn(s, waits, observed) {
				waits[stepLink(s)] = true
			}
		}
	}
	for _, s := range steps {
		if waits[stepLink(s)] {
			held = append(held, s)
		} else {
			run = append(run, s)
		}
	}
	return run, held
}

// stepLink is the link whose steps wait together with s. A route belongs to its device.
func stepLink(s plan.Step) string {
	if on := s.On(); on != "" {
		return on
	}
	name, _ := strings.CutPrefix(string(s.ID), "link/")
	return name
}

func dependsOn(s plan.Step, waits map[string]bool, observed plan.Observed) bool {
	if s.Op == plan.CreateLink && s.Link != nil {
		// The new link stands on, or takes the place of, one that stays as it is for now.
		if waits[s.Link.Parent] || waits[s.Link.Master] {
			return true
		}
		return slices.ContainsFunc(observed.Links, func(l plan.ObservedLink) bool {
			return waits[l.Name] && (s.Link.VXLAN != nil && l.VXLAN != nil && l.VXLAN.VNI == s.Link.VXLAN.VNI && l.VXLAN.Port == s.Link.VXLAN.Port ||
				s.Link.VLANID != 0 && l.VLANID == s.Link.VLANID && l.Parent == s.Link.Parent)
		})
	}
	if s.Op == plan.SetLink && s.Property == "master" && waits[s.To] {
		return true
	}
	if waits[plan.SRIOVKey(s.LinkName)] && (s.Op == plan.SetVF || s.Op == plan.SetLink && s.Property == "up" && s.To == "down") {
		return true // functions are all to be made anew, and until then are in use
	}
	if s.Op == plan.DeleteLink { // a held link still stands on this one
		gone := stepLink(s)
		return slices.ContainsFunc(observed.Links, func(l plan.ObservedLink) bool {
			return waits[l.Name] && (l.Parent == gone || l.Master == gone)
		})
	}
	return false
}
