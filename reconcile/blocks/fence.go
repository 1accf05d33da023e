package blocks

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// Sign is what is known of a node's life.
type Sign struct {
	Node  bool // its Node object exists
	Lease *coordinationv1.Lease
}

// verdict says whether a node's blocks with some identity may be freed, and when.
type verdict struct {
	lost bool      // Node gone, or another identity has the name
	at   time.Time // when its lease has passed; the zero time is now
	why  string
}

// judge is R14. since is asked for the time since which the loss has been seen, where nothing in the API tells it.
func judge(s Sign, identity string, lease time.Duration, since func(what string) time.Time) verdict {
	holder := ""
	if s.Lease != nil && s.Lease.Spec.HolderIdentity != nil {
		holder = *s.Lease.Spec.HolderIdentity
	}
	switch {
	case s.Lease != nil && identity != "" && poweredOff(s.Lease) == identity:
		return verdict{lost: true, why: "powered-off"}
	case s.Lease != nil && holder != "" && identity != "" && machine(holder) != machine(identity):
		// The new machine's clock may be wrong, so the time at which it took the name only says which taking it was.
		what := "other identity " + identity
		if t := s.Lease.Spec.AcquireTime; t != nil {
			what += " since its " + t.UTC().Format(time.RFC3339Nano)
		}
		return verdict{lost: true, at: since(what).Add(lease), why: "identity"}
	case s.Node:
		return verdict{}
	case s.Lease != nil:
		return verdict{lost: true, at: lastSign(s.Lease).Add(lease), why: "node-gone"}
	}
	return verdict{lost: true, at: since("node and lease gone").Add(lease), why: "node-gone"}
}

// machine is an identity's first half. The other is the Node object's UID: a Node that was made anew on the machine that it always was is
// no other machine, and its agent writes the new identity on its blocks.
func machine(identity string) string {
	m, _, _ := strings.Cut(identity, "/")
	return m
}

// lastSign is the last renewal: the time at which the API server took the last write or, where it does not tell that, the node's own
// word. A clock that is behind must not shorten the lease, and one that is ahead, or a lie, not lengthen it.
func lastSign(l *coordinationv1.Lease) time.Time {
	last, told := l.CreationTimestamp.Time, false
	for _, f := range l.ManagedFields {
		if f.Time == nil {
			continue
		}
		if told = true; f.Time.After(last) {
			last = f.Time.Time
		}
	}
	if t := l.Spec.RenewTime; !told && t != nil && t.After(last) {
		last = t.Time
	}
	return last
}

// poweredOff is the identity that a person says is off, "" if nobody says so, or the node was heard of since.
func poweredOff(l *coordinationv1.Lease) string {
	word := l.Annotations[AnnotationPoweredOff]
	if word == "" {
		return ""
	}
	var said, renewed time.Time
	for _, f := range l.ManagedFields {
		if f.Time == nil || f.FieldsV1 == nil {
			continue
		}
		if raw := f.FieldsV1.GetRawBytes(); bytes.Contains(raw, []byte(`"f:`+AnnotationPoweredOff+`"`)) {
			said = f.Time.Time
		} else if bytes.Contains(raw, []byte(`"f:renewTime"`)) && f.Time.After(renewed) {
			renewed = f.Time.Time
		}
	}
	if !said.IsZero() && renewed.After(said) {
		return ""
	}
	return word
}

// sign is what is known of a node, fresh if the API server itself was asked.
func (x *decider) sign(node string) (s Sign, fresh bool) {
	if s, fresh := x.w.Signs[node]; fresh {
		return s, true
	}
	return Sign{Node: x.w.Nodes[node], Lease: x.w.Leases[node]}, false
}

// owned frees what a lost node owned, and marks what will be. It never touches what a live node owns, but for removing a mark.
func (x *decider) owned(s *space, b block) {
	m := marksOf(b.IPBlock, x.w.Now)
	sign, fresh := x.sign(b.Spec.Owner)
	v := judge(sign, b.Spec.Identity, x.o.BlockLease, m.since)
	if v.lost && !v.at.After(x.w.Now) {
		if x.waiting && v.why != "powered-off" { // the lease may be from the backup, too
			x.lost[b.Spec.Owner] = true
			return
		}
		if !fresh {
			x.needNode(b.Spec.Owner)
			return
		}
		x.free(s, b, v)
		return
	}
	if v.lost {
		x.lost[b.Spec.Owner] = true
		x.wake(v.at)
	}
	x.mark(m, b.IPBlock)
}

// free is R14 and R15: what nobody has addresses of goes; the rest is the controller's until nobody has.
func (x *decider) free(s *space, b block, v verdict) {
	a := Action{Verb: Remove, Block: b.IPBlock, Why: v.why, Node: b.Spec.Owner, Prompt: true}
	if !b.void && (b.Spec.Role == v1alpha1.RoleBlock && (len(b.Spec.Ceded) > 0 || slices.ContainsFunc(s.asking(b.prefix), block.used)) || b.Spec.Reservation != nil) {
		next := b.DeepCopy()
		next.Spec.Owner, next.Spec.Identity, next.Spec.Epoch = "", "", 0
		setLabel(next, v1alpha1.LabelOwner, "")
		delete(next.Annotations, AnnotationSince)
		if slices.ContainsFunc(s.asking(b.prefix), func(o block) bool { return o.used() && o.Spec.Before != "" }) {
			next.Annotations = maps.Clone(next.Annotations)
			if next.Annotations == nil {
				next.Annotations = map[string]string{}
			}
			next.Annotations[AnnotationAgain] = x.w.Now.UTC().Format(time.RFC3339)
		}
		a.Verb, a.Block = Update, next
	}
	if x.act(a) {
		x.freed[freed{b.Spec.Owner, v.why}]++
	}
}

// freed is whose blocks went, and why.
type freed struct{ node, why string }

// tellFreed makes one event of each node's: it may have had thousands of blocks.
func (x *decider) tellFreed() {
	for i := range x.d.Actions {
		a := &x.d.Actions[i]
		f := freed{a.Node, a.Why}
		n := x.freed[f]
		if n == 0 {
			continue
		}
		delete(x.freed, f)
		a.Events = append(a.Events, Event{About: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}}, Reason: string(diag.AddressesFreed),
			Text: fmt.Sprintf("%d blocks of addresses of node %s are freed: %s", n, f.node, reasons[f.why])})
	}
}

var reasons = map[string]string{
	"node-gone":   "the node is gone, and nothing was heard of it for a whole block lease",
	"identity":    "another machine has had its name for a whole block lease",
	"powered-off": "a person said that the machine is off",
}

// leases deletes those of nodes that are gone for good, once nothing in the API is theirs.
func (x *decider) leases() {
	for _, node := range sortedKeys(x.w.Leases) {
		if x.owners[node] > 0 || x.w.Nodes[node] {
			continue
		}
		s, fresh := x.sign(node)
		if s.Node || s.Lease == nil {
			continue
		}
		at := lastSign(s.Lease).Add(x.o.BlockLease)
		if h := s.Lease.Spec.HolderIdentity; h != nil && poweredOff(s.Lease) == *h && *h != "" {
			at = time.Time{}
		}
		switch {
		case at.After(x.w.Now):
			x.wake(at)
		case !fresh:
			x.needNode(node)
		default:
			x.act(Action{Verb: DeleteLease, Lease: s.Lease, Why: "node-gone", Prompt: true})
		}
	}
}

func setLabel(b *v1alpha1.IPBlock, key, value string) {
	if b.Labels == nil {
		b.Labels = map[string]string{}
	}
	b.Labels[key] = value
}
