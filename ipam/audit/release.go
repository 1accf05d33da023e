package audit

import (
	"fmt"
	"net/netip"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
)

// quietFor is how long a node must not have renewed its Lease before it is believed to be off: two renewals.
const quietFor = 20 * time.Minute

// Refusal is why something is not done, and whether force overrides it.
type Refusal struct {
	Why    string
	Forced bool // --force does it all the same
}

func (r *Refusal) Error() string {
	if r.Forced {
		return r.Why + " (--force, if you are sure)"
	}
	return r.Why
}

// PowerOff decides whether a node may be called powered off, and says which identity is. lease is nil if it has none, node if there is
// no such Node.
func PowerOff(name string, lease *coordinationv1.Lease, node *corev1.Node, now time.Time, force bool) (identity string, err error) {
	switch {
	case lease == nil:
		return "", &Refusal{Why: fmt.Sprintf("node %s has no Lease %s in danm-system: it has no addresses, or another name", name, ipam.LeaseName(name))}
	case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "":
		return "", &Refusal{Why: fmt.Sprintf("lease %s does not say of which machine it is: wait for its agent, or for a whole block lease (12 h)", lease.Name)}
	case force:
		return *lease.Spec.HolderIdentity, nil
	case ready(node):
		return "", &Refusal{Why: fmt.Sprintf("node %s is Ready: its Pods live, and their addresses would be given to others", name), Forced: true}
	}
	if age, silent := Silent(lease, now); !silent {
		return "", &Refusal{Why: fmt.Sprintf("node %s gave a sign of life %s ago, and a node that is off gives none for %s", name, age.Round(time.Second), quietFor), Forced: true}
	}
	return *lease.Spec.HolderIdentity, nil
}

func ready(n *corev1.Node) bool {
	if n == nil {
		return false
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Silent says for how long a node has given no sign of life, and whether that is too long for an agent that is well.
func Silent(l *coordinationv1.Lease, now time.Time) (time.Duration, bool) {
	return tooLong(lastSign(l), now)
}

// NeverHeard says the same of a node that has no Lease, and since some time a plan.
func NeverHeard(since, now time.Time) (time.Duration, bool) { return tooLong(since, now) }

func tooLong(last, now time.Time) (time.Duration, bool) {
	age := max(0, now.Sub(last))
	return age, age >= quietFor
}

// lastSign is the node's own word, or the API server's time of its last write, whichever is later: a node's clock may be behind. What
// danmctl itself wrote is no sign.
func lastSign(l *coordinationv1.Lease) time.Time {
	last := l.CreationTimestamp.Time
	if t := l.Spec.RenewTime; t != nil && t.After(last) {
		last = t.Time
	}
	for _, f := range l.ManagedFields {
		if f.Time != nil && f.Manager != "danmctl" && f.Time.After(last) {
			last = f.Time.Time
		}
	}
	return last
}

// Freed is what is to be freed by hand: an imported address of an orphan, or a Single kept for a Pod that nobody has.
type Freed struct {
	Block *v1alpha1.IPBlock
	Held  *v1alpha1.IPHolder // of an orphan; nil: Block itself is the address
	Pod   v1alpha1.IPHolder  // that must not be there: namespace, and name or UID
	Left  []v1alpha1.IPHolder
}

// String says what will be done.
func (f Freed) String() string {
	if f.Held == nil {
		r := f.Block.Spec.Reservation
		return fmt.Sprintf("delete IPBlock %s: %s is kept for Pod %d of StatefulSet %s/%s, and no node has it", f.Block.Name, f.Block.Spec.CIDR, r.Ordinal, r.Namespace, r.StatefulSet)
	}
	who := "a Pod that is not known"
	if p := podName(f.Held.Namespace, f.Held.Pod); p != "" {
		who = "Pod " + p
	}
	return fmt.Sprintf("take %s from the held addresses of IPBlock %s: it was imported as %s's", f.Held.Address, f.Block.Name, who)
}

// Find looks for an address that a person may free. network is "namespace/name" or "name".
func (c Cluster) Find(network string, a netip.Addr) (Freed, error) {
	var spaces []ipam.Space
	for _, n := range c.Networks {
		if n.Key() == network {
			for s := range SpacesOf(n) {
				if s.CIDR.Contains(a) {
					spaces = append(spaces, s)
				}
			}
		}
	}
	if len(spaces) == 0 {
		return Freed{}, &Refusal{Why: fmt.Sprintf("there is no network %q with %s", network, a)}
	}
	var around *v1alpha1.IPBlock
	for i := range c.Blocks {
		b := &c.Blocks[i]
		s, ok := Parse(b.Spec.Space)
		p, err := netip.ParsePrefix(b.Spec.CIDR)
		if !ok || err != nil || s != spaces[0] || !p.Contains(a) {
			continue
		}
		switch b.Spec.Role {
		case v1alpha1.RoleSingle:
			return parked(b)
		case v1alpha1.RoleBlock:
			around = b
		}
	}
	switch {
	case around == nil:
		return Freed{}, &Refusal{Why: fmt.Sprintf("%s is in nobody's block: it is free", a)}
	case around.Spec.Owner != "":
		return Freed{}, &Refusal{Why: fmt.Sprintf("%s is in a block of node %s, which frees it when its Pod is gone: see danmctl ipam show on that node", a, around.Spec.Owner)}
	}
	f := Freed{Block: around, Left: []v1alpha1.IPHolder{}}
	for i := range around.Spec.Held {
		if h := &around.Spec.Held[i]; h.Address == a.String() {
			f.Held, f.Pod = h, *h
		} else {
			f.Left = append(f.Left, *h)
		}
	}
	if f.Held == nil {
		return Freed{}, &Refusal{Why: fmt.Sprintf("IPBlock %s does not hold %s for anybody: nothing keeps it", around.Name, a)}
	}
	return f, nil
}

func parked(b *v1alpha1.IPBlock) (Freed, error) {
	r := b.Spec.Reservation
	switch {
	case b.Spec.Owner != "":
		return Freed{}, &Refusal{Why: fmt.Sprintf("node %s has %s, and frees it when its Pod is gone: see danmctl ipam show on that node", b.Spec.Owner, b.Spec.CIDR)}
	case r == nil:
		return Freed{}, &Refusal{Why: fmt.Sprintf("IPBlock %s is kept for nobody: the controller removes it", b.Name)}
	}
	return Freed{Block: b, Pod: v1alpha1.IPHolder{Namespace: r.Namespace, Pod: fmt.Sprintf("%s-%d", r.StatefulSet, r.Ordinal)}}, nil
}
