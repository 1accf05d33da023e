package audit

import (
	"fmt"
	"slices"
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

// Heard finds the nodes that have not renewed their lease for a while: whether they saw that the API server went back, and what
// their Pods have by now, nobody knows. A node that was declared powered off has no Pods.
func (c Cluster) Heard(leases map[string]coordinationv1.Lease) (out []Finding) {
	for node, l := range leases {
		holder := l.Spec.HolderIdentity
		if holder != nil && *holder != "" && l.Annotations[ipam.AnnotationOff] == *holder {
			continue
		}
		if age := c.Now.Sub(lastSign(&l)); age > quietFor {
			out = append(out, Finding{Unheard, "", "node " + node, fmt.Sprintf("it was heard of %s ago: what its Pods have since the API server went back is not known", age.Round(time.Second)),
				"bring it back, or, if the machine is off, danmctl ipam release --node " + node + " --powered-off"})
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Where, b.Where) })
	return out
}
