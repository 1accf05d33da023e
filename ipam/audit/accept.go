package audit

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"danm.io/danm/ipam"
)

// InTheWay are the findings that forbid to let nodes go on after the API server went back in time: what they find free or
// theirs again may be on a Pod. The rest is only untidy, and some of it only goes when nodes go on.
func InTheWay(all []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(all), func(f Finding) bool {
		switch f.Kind { //nolint:exhaustive // the others are not in the way
		case Double, NoBlock, HeldAndCeded, Overlap, BadObject, Unheard:
			return false
		}
		return true
	})
}

// Heard finds the nodes that have not renewed their lease since the API server went back: whether they saw it, and what their
// Pods have by now, nobody knows. A node that was declared powered off has no Pods.
func (c Cluster) Heard(leases map[string]coordinationv1.Lease) (out []Finding) {
	back := wentBack(leases)
	for node, l := range leases {
		holder := l.Spec.HolderIdentity
		if holder != nil && *holder != "" && l.Annotations[ipam.AnnotationOff] == *holder {
			continue
		}
		version, err := strconv.ParseUint(l.ResourceVersion, 10, 64)
		age := c.Now.Sub(lastSign(&l))
		if known := back != 0 && err == nil; known && version > back || !known && age <= quietFor {
			continue
		}
		out = append(out, Finding{Unheard, "", "node " + node, fmt.Sprintf("its last sign of life, %s ago, is from before the API server went back: what its Pods have since is not known", age.Round(time.Second)),
			"a node that is well gives one within ten minutes; if the machine is off, danmctl ipam release --node " + node + " --powered-off"})
	}
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Where, b.Where) })
	return out
}

// wentBack is a version of leases that the API server had when the last of the waiting nodes told that it went back; 0 = not known.
// The first one's would do, but a lie of one node must not make every sign a late one.
func wentBack(leases map[string]coordinationv1.Lease) (last uint64) {
	for _, l := range leases {
		v, err := strconv.ParseUint(l.Annotations[ipam.AnnotationSuspectFrom], 10, 64)
		if err == nil && l.Annotations[ipam.AnnotationSuspect] != "" {
			last = max(last, v)
		}
	}
	return last
}
