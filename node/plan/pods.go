package plan

import (
	"maps"
	"slices"
)

// AttachedTo names the Pods on a link and on every link that stands on it or has it as a port: those that notice when it goes
// down. pods names attachments by host link. Sorted.
func AttachedTo(link string, observed Observed, pods map[string][]string) []string {
	return podsAbove(link, observed, pods, true)
}

// StandingOn is AttachedTo without what is only reached through a bridge: the Pods whose links the kernel deletes together
// with the link.
func StandingOn(link string, observed Observed, pods map[string][]string) []string {
	return podsAbove(link, observed, pods, false)
}

func podsAbove(link string, observed Observed, pods map[string][]string, masters bool) []string {
	if link == "" || len(pods) == 0 {
		return nil
	}
	links := map[string]bool{link: true}
	for n := 0; n != len(links); {
		n = len(links)
		for _, l := range observed.Links {
			if links[l.Parent] && l.Parent != "" {
				links[l.Name] = true
			}
			if masters && links[l.Name] && l.Master != "" { // a bridge loses what its port carried
				links[l.Master] = true
			}
		}
	}
	all := map[string]bool{}
	for l := range links {
		for _, p := range pods[l] {
			all[p] = true
		}
		if masters { // functions have no carrier while their card is down
			for _, p := range pods[SRIOVKey(l)] {
				all[p] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
