package ipamsim

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/audit"
	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/test/ipamsim/world"
)

// lookAgain is how long nothing must be in the way: nodes look every two minutes whether the API has what they reported.
const lookAgain = 150 * time.Second

// accept is the administrator who says, when an etcd restore was noticed, that what nodes hold was checked, as `danmctl ipam
// check --accept` does it. Pods that stand in the way are deleted.
func (h *Cluster) accept(ctx context.Context, c *world.Client, w blocks.World) {
	var waiting []*coordinationv1.Lease
	all := map[string]coordinationv1.Lease{}
	for _, node := range slices.Sorted(maps.Keys(w.Leases)) {
		l := w.Leases[node]
		all[node] = *l
		if nonce := l.Annotations[ipam.AnnotationSuspect]; nonce != "" && l.Annotations[ipam.AnnotationChecked] != nonce {
			waiting = append(waiting, l)
		}
	}
	nonces := map[string]string{}
	for _, l := range waiting {
		nonces[l.Name] = l.Annotations[ipam.AnnotationSuspect]
		if was := h.nonces[l.Name]; was != "" && was != nonces[l.Name] { // etcd was restored once more
			h.clean = time.Time{}
		}
	}
	h.nonces = nonces
	if len(waiting) == 0 {
		h.clean = time.Time{}
		return
	}
	for _, p := range w.Plans {
		for _, u := range p.Status.Addresses {
			for _, s := range u.Strays {
				if a, err := netip.ParseAddr(s); err == nil {
					h.evict(p.Name, u.Space, netip.PrefixFrom(a, a.BitLen()))
				} else {
					h.evict(p.Name, u.Space, netip.MustParsePrefix(s))
				}
			}
		}
	}
	view := audit.Cluster{Blocks: w.Blocks, Plans: w.Plans, Nodes: w.Nodes, Now: w.Now}
	if len(audit.InTheWay(append(view.Check(), view.Heard(all)...))) > 0 {
		h.clean = time.Time{}
		return
	}
	if h.clean.IsZero() {
		h.clean = time.Now()
	}
	if time.Since(h.clean) < lookAgain {
		return
	}
	for _, l := range waiting {
		l.Annotations[ipam.AnnotationChecked] = l.Annotations[ipam.AnnotationSuspect]
		_, _ = c.Update(ctx, l)
	}
}
