package blocks

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// truth is what really is so: machines live whether the API knows it or not, and Pods hold addresses. It is kept apart from
// everything that Decide reads.
type truth struct {
	heard map[string]time.Time // identity → when it renewed last
	off   map[string]bool      // identities that a person said are off, and that are
	pods  map[string]string    // address → UID of the Pod that has it from before and lives
}

type history struct {
	*site
	r      *rand.Rand
	truth  truth
	serial int
	stale  []World // what caches saw
}

// check holds one write of ours against the truth, before it is carried out.
func (h *history) check(a *Action) {
	h.t.Helper()
	if a.Block == nil || a.Verb == Create || a.Verb == UpdateStatus {
		return
	}
	old := h.find(a.Block.Name)
	if old == nil || old.ResourceVersion != a.Block.ResourceVersion {
		return // the API refuses it
	}
	gone := a.Verb == Remove
	if old.Spec.Owner != "" && (gone || a.Block.Spec.Owner != old.Spec.Owner) {
		id := old.Spec.Identity
		if h.w.Now.Sub(h.truth.heard[id]) < 12*time.Hour && !h.truth.off[id] {
			h.t.Fatalf("%s of %s is freed, which was heard of %s ago", old.Name, id, h.w.Now.Sub(h.truth.heard[id]))
		}
		if h.w.Nodes[old.Spec.Owner] && !h.truth.off[id] {
			if l := h.w.Leases[old.Spec.Owner]; l == nil || *l.Spec.HolderIdentity == id {
				h.t.Fatalf("%s of %s is freed, whose Node is there", old.Name, id)
			}
		}
	}
	if old.Spec.Role == v1alpha1.RoleRoot {
		for _, b := range h.w.Blocks {
			if gone && b.Spec.Role != v1alpha1.RoleRoot {
				h.t.Fatalf("the root goes while %s stands", b.Name)
			}
		}
		return
	}
	kept := map[string]string{}
	if !gone {
		for _, c := range a.Block.Spec.Ceded {
			if kept[c.Address] != "" {
				h.t.Fatalf("%s lists %s twice", old.Name, c.Address)
			}
			kept[c.Address] = c.UID
			if h.truth.pods[c.Address] != "" && !slices.Contains(old.Spec.Ceded, c) {
				h.t.Fatalf("%s is ceded and Pod %s has it", c.Address, h.truth.pods[c.Address])
			}
		}
	}
	for _, c := range old.Spec.Ceded {
		if single := h.find(edge.BlockName(netip.PrefixFrom(netipAddr(c.Address), 32))); single != nil && string(single.UID) == c.UID && kept[c.Address] != c.UID {
			h.t.Fatalf("%s %s: %s is taken back from a Single that stands", a.Verb, old.Name, c.Address)
		}
	}
	for _, x := range old.Spec.Held {
		still := !gone && slices.ContainsFunc(a.Block.Spec.Held, func(y v1alpha1.IPHolder) bool { return y.Address == x.Address })
		if x.UID != "" && h.truth.pods[x.Address] == x.UID && !still {
			h.t.Fatalf("%s of Pod %s is let go, which lives", x.Address, x.UID)
		}
	}
	if gone && old.Spec.Reservation != nil && old.Spec.Owner == "" {
		if set, there := h.w.Sets[old.Spec.Reservation.UID]; there && old.Spec.Reservation.Ordinal < set.Replicas && h.w.Sets["steady"].Replicas == 2 {
			h.t.Fatalf("a reservation goes that ordinal %d of %+v can come back for", old.Spec.Reservation.Ordinal, set)
		}
	}
}

func (h *history) node() string { return fmt.Sprint("n", h.r.IntN(4)) }

// holder is the identity that has a node's lease, "" if none.
func (h *history) holder(node string) string {
	if l := h.w.Leases[node]; l != nil && l.Spec.HolderIdentity != nil {
		return *l.Spec.HolderIdentity
	}
	return ""
}

// step is something that others do.
func (h *history) step() {
	n := h.node()
	h.serial++
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + h.r.IntN(60))})
	switch h.r.IntN(13) {
	case 0: // its machine renews, if it is the one with the name, or takes the name over
		id := h.holder(n)
		if id == "" || h.r.IntN(6) == 0 {
			id = fmt.Sprintf("id-%s-%d", n, h.serial)
		}
		if !h.truth.off[id] {
			h.w.Leases = clone(h.w.Leases)
			h.renew(n, id, h.w.Now)
			h.truth.heard[id] = h.w.Now
		}
	case 1:
		h.w.Nodes = clone(h.w.Nodes)
		delete(h.w.Nodes, n)
	case 2:
		h.w.Nodes = clone(h.w.Nodes)
		h.w.Nodes[n] = true
	case 3, 4: // claim
		if p := netip.PrefixFrom(a, 29).Masked(); h.find(edge.RootName()) != nil && h.block(p.String()) == nil && h.alive(n) {
			h.put(v1alpha1.RoleBlock, p.String(), n, func(b *v1alpha1.IPBlock) { b.Spec.Identity = h.holder(n) })
		}
	case 5, 6: // ask
		p := netip.PrefixFrom(a, 32)
		cover := h.block(netip.PrefixFrom(a, 29).Masked().String())
		if cover != nil && h.block(p.String()) == nil && h.alive(n) && cover.Spec.Owner != n {
			h.put(v1alpha1.RoleSingle, p.String(), n, func(b *v1alpha1.IPBlock) {
				b.Spec.Asked, b.Spec.Identity = cover.Spec.Owner, h.holder(n)
				if h.r.IntN(2) == 0 {
					b.Spec.Reservation = &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: "web", UID: "steady", Ordinal: int32(h.r.IntN(3)), IfName: "eth1"}
				}
			})
		}
	case 7: // a live owner cedes to whoever asks
		for i := range h.w.Blocks {
			b := &h.w.Blocks[i]
			if b.Spec.Role != v1alpha1.RoleSingle || b.Spec.Asked == "" || b.Status.Answer != "" || !h.alive(b.Spec.Asked) {
				continue
			}
			if c := h.block(netip.PrefixFrom(netipPrefix(b.Spec.CIDR).Addr(), 29).Masked().String()); c != nil && c.Spec.Owner == b.Spec.Asked && c.Spec.Identity == h.holder(b.Spec.Asked) {
				address := netipPrefix(b.Spec.CIDR).Addr().String()
				next := c.DeepCopy()
				next.Spec.Ceded = append(slices.DeleteFunc(next.Spec.Ceded, func(x v1alpha1.IPCession) bool { return x.Address == address }), v1alpha1.IPCession{Address: address, UID: string(b.UID), Node: b.Spec.Owner})
				h.write(next)
			}
		}
	case 8: // a Single goes back, or is parked
		for i := range h.w.Blocks {
			b := h.w.Blocks[i].DeepCopy()
			if b.Spec.Role != v1alpha1.RoleSingle || b.Spec.Owner != n || !h.alive(n) {
				continue
			}
			if b.Spec.Owner = ""; b.Spec.Reservation != nil {
				h.write(b)
			} else {
				h.w.Blocks = slices.Delete(slices.Clone(h.w.Blocks), i, i+1)
			}
			break
		}
	case 9: // a Pod from before dies
		for _, address := range sortedKeys(h.truth.pods) {
			delete(h.w.Pods.UIDs, h.truth.pods[address])
			delete(h.truth.pods, address)
			break
		}
	case 10: // a machine is off, and a person says so
		if id := h.holder(n); id != "" && h.r.IntN(4) == 0 {
			h.truth.off[id] = true
			l := h.w.Leases[n].DeepCopy()
			l.Annotations = map[string]string{AnnotationPoweredOff: id}
			h.w.Leases = clone(h.w.Leases)
			h.w.Leases[n] = l
		}
	case 11:
		h.later(time.Duration(h.r.IntN(int(8 * time.Hour))))
	case 12:
		h.later(time.Duration(h.r.IntN(int(time.Minute))))
	}
}

// alive says whether the machine that has a node's name may still give out: it believes so for half a lease.
func (h *history) alive(n string) bool {
	id := h.holder(n)
	return id != "" && !h.truth.off[id] && h.w.Now.Sub(h.truth.heard[id]) < 6*time.Hour
}

func (h *history) write(b *v1alpha1.IPBlock) {
	h.version++
	b.ResourceVersion = fmt.Sprint(h.version)
	h.w.Blocks = slices.Clone(h.w.Blocks)
	*h.find(b.Name) = *b
}

func clone[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// TestRandomWorlds: whatever happens, and however old the cache is that a controller decides upon, nothing of what lives is freed;
// and when nothing happens any more, nothing is written.
func TestRandomWorlds(t *testing.T) {
	writes := map[string]int{}
	for seed := range uint64(200) {
		h := &history{site: newSite(t), r: rand.New(rand.NewPCG(seed, 7)), truth: truth{map[string]time.Time{}, map[string]bool{}, map[string]string{}}}
		h.w.Pods = &Pods{UIDs: map[string]bool{}}
		h.w.Sets = map[string]StatefulSet{"steady": {Namespace: "acme", Name: "web", Replicas: 2}}
		h.network("voice", edge.CIDR, func(n *model.Network, _ *danmv1.TenantNetwork) { n.BlockSize = 8 })
		h.root(29)
		for i := range 6 {
			a := fmt.Sprintf("10.0.0.%d", 8*i+3)
			uid := fmt.Sprint("pod-", i)
			h.truth.pods[a], h.w.Pods.UIDs[uid] = uid, true
			h.put(v1alpha1.RoleBlock, netip.PrefixFrom(netipAddr(a), 29).Masked().String(), "", func(b *v1alpha1.IPBlock) {
				b.Spec.Held = []v1alpha1.IPHolder{{Address: a, Pod: uid, UID: uid}}
				b.UID = types.UID("orphan-" + uid)
			})
		}
		for range 4 {
			n := h.node()
			h.boot(n)
		}
		for range 150 {
			h.step()
			snapshot := h.w
			snapshot.Blocks = slices.Clone(h.w.Blocks)
			h.stale = append(h.stale, snapshot)
			if h.r.IntN(2) == 0 {
				continue
			}
			w := h.stale[max(0, len(h.stale)-1-h.r.IntN(4))] // a cache that is behind
			w.Now, w.Wrote, w.Pods, w.Sets = h.w.Now, h.w.Wrote, h.w.Pods, h.w.Sets
			d := Decide(w)
			for range passes {
				if !d.Needs.Any() {
					break
				}
				for _, node := range d.Needs.Nodes {
					if w.Signs == nil {
						w.Signs = map[string]Sign{}
					}
					w.Signs[node] = Sign{Node: h.w.Nodes[node], Lease: h.w.Leases[node]}
				}
				if d.Needs.Fresh {
					w.Fresh, w.Plans, w.Segments, w.Networks = true, h.w.Plans, h.w.Segments, h.w.Networks
				}
				if d.Needs.Endpoints || d.Needs.Users {
					w.Endpoints = []danmv1.DanmEp{}
				}
				d = Decide(w)
			}
			once := map[string]bool{}
			for _, a := range d.Actions {
				if a.Block != nil && once[a.name()] {
					t.Fatalf("seed %d: two writes to %s in one decision", seed, a.name())
				}
				once[a.name()] = true
			}
			h.r.Shuffle(len(d.Actions), func(i, j int) { d.Actions[i], d.Actions[j] = d.Actions[j], d.Actions[i] })
			for i := range d.Actions {
				if h.r.IntN(10) == 0 {
					continue // cut off
				}
				a := &d.Actions[i]
				h.check(a)
				h.w.Blocks = slices.Clone(h.w.Blocks)
				if h.carry(a) {
					writes[string(a.Verb)+" "+a.Why]++
				}
			}
		}
		h.settle()
		if d := h.decide(); len(d.Actions) != 0 {
			t.Fatalf("seed %d: idle, and writes %s", seed, summary(d))
		}
	}
	for _, want := range []string{"remove node-gone", "update node-gone", "remove identity", "remove powered-off", "update cession", "remove empty", "remove reservation", "updateStatus Ceded", "updateStatus Refused", "deleteLease node-gone"} {
		if writes[want] == 0 {
			t.Errorf("never happened: %s", want)
		}
	}
	t.Log(writes)
}

// boot is a machine that comes up.
func (h *history) node4(n string) {
	h.w.Nodes = clone(h.w.Nodes)
	h.w.Nodes[n] = true
	h.w.Leases = clone(h.w.Leases)
	h.renew(n, "id-"+n, h.w.Now)
	h.truth.heard["id-"+n] = h.w.Now
}

// boot is a machine that comes up.
func (h *history) boot(n string) {
	h.w.Nodes = clone(h.w.Nodes)
	h.w.Nodes[n] = true
	h.w.Leases = clone(h.w.Leases)
	h.renew(n, "id-"+n, h.w.Now)
	h.truth.heard["id-"+n] = h.w.Now
}
