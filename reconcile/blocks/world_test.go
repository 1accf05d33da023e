package blocks

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// site is an API in memory that knows versions, UIDs and finalizers, and a clock.
type site struct {
	t       *testing.T
	w       World
	version int
	events  []string
	log     []Action
}

func newSite(t *testing.T, nodes ...string) *site {
	t.Helper()
	s := &site{t: t}
	s.w = World{Now: noon, Nodes: map[string]bool{}, Leases: map[string]*coordinationv1.Lease{}, Segments: map[string]model.Segment{}, Wrote: map[string]time.Time{}, Pods: &Pods{}}
	for _, n := range nodes {
		s.node(n)
	}
	s.w.Plans = append(s.w.Plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "plan"}, Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{API: &v1alpha1.Layer{Segments: []string{"segment"}}}}})
	s.w.Segments["segment"] = model.Segment{}
	return s
}

// node is a node with the identity id-<name>, heard of just now.
func (s *site) node(name string) {
	s.w.Nodes[name] = true
	s.renew(name, "id-"+name, s.w.Now)
}

func (s *site) renew(name, identity string, at time.Time) {
	l := s.w.Leases[name]
	if l == nil {
		l = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: LeasePrefix + name, UID: types.UID("lease-" + name), CreationTimestamp: metav1.NewTime(at)}}
	}
	l = l.DeepCopy()
	if h := l.Spec.HolderIdentity; h == nil || *h != identity {
		l.Spec.HolderIdentity, l.Spec.AcquireTime = &identity, &metav1.MicroTime{Time: at}
	}
	l.Spec.RenewTime = &metav1.MicroTime{Time: at}
	s.w.Leases[name] = l
}

// network is served to nodes: a TenantNetwork acme/<name> on VLAN 10 of a fabric.
func (s *site) network(name, cidr string, change func(*model.Network, *danmv1.TenantNetwork)) {
	p := netip.MustParsePrefix(cidr)
	n := model.Network{Kind: model.TenantNetwork, Namespace: "acme", Name: name, SpaceDomain: "edge", VLAN: 10}
	if p.Addr().Is4() {
		n.IPv4 = &model.Subnet{CIDR: p}
	} else {
		n.IPv6 = &model.Subnet{CIDR: p}
	}
	o := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: name, UID: types.UID("net-" + name), CreationTimestamp: metav1.NewTime(s.w.Now.Add(-time.Hour)), Finalizers: []string{Finalizer}}}
	o.Spec.Options.Vlan, o.Spec.Options.Cidr = 10, cidr
	if change != nil {
		change(&n, o)
	}
	segment := s.w.Segments["segment"]
	segment.Networks = append(segment.Networks, n)
	s.w.Segments["segment"] = segment
	s.object(o)
}

func (s *site) object(o *danmv1.TenantNetwork) {
	n := Network{Kind: danmv1.KindTenantNetwork, Object: o, Spec: &o.Spec, Status: &o.Status}
	if o.DeletionTimestamp != nil {
		n.Deleted = o.DeletionTimestamp.Time
	}
	s.w.Networks = append(s.w.Networks, n)
}

var edge = v1alpha1.IPSpace{Domain: "edge", ID: 10, CIDR: "10.0.0.0/24"}

// put adds an IPBlock as its maker would.
func (s *site) put(role, cidr, owner string, change func(*v1alpha1.IPBlock)) *v1alpha1.IPBlock {
	s.version++
	p := netip.MustParsePrefix(cidr)
	b := v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: role, Space: edge, CIDR: cidr, Owner: owner}}
	b.Name, b.Finalizers = edge.BlockName(p), []string{v1alpha1.IPFinalizer}
	if role == v1alpha1.RoleRoot {
		b.Name = edge.RootName()
	}
	if owner != "" {
		b.Spec.Identity = "id-" + owner
	}
	b.Labels = map[string]string{v1alpha1.LabelSpace: edge.Hash(), v1alpha1.LabelOwner: owner}
	b.UID, b.ResourceVersion = types.UID(fmt.Sprint("uid-", s.version)), fmt.Sprint(s.version)
	b.CreationTimestamp = metav1.NewTime(s.w.Now)
	if change != nil {
		change(&b)
	}
	s.w.Blocks = append(s.w.Blocks, b)
	return &s.w.Blocks[len(s.w.Blocks)-1]
}

func (s *site) root(bits int32) {
	s.put(v1alpha1.RoleRoot, edge.CIDR, "", func(b *v1alpha1.IPBlock) { b.Spec.BlockBits = bits })
}

func (s *site) find(name string) *v1alpha1.IPBlock {
	i := slices.IndexFunc(s.w.Blocks, func(b v1alpha1.IPBlock) bool { return b.Name == name })
	if i < 0 {
		return nil
	}
	return &s.w.Blocks[i]
}

func (s *site) block(cidr string) *v1alpha1.IPBlock {
	return s.find(edge.BlockName(netip.MustParsePrefix(cidr)))
}

// fresh answers what a decision asks for, from what there is.
func (s *site) fresh(n Needs, w *World) {
	for _, node := range n.Nodes {
		if w.Signs == nil {
			w.Signs = map[string]Sign{}
		}
		w.Signs[node] = Sign{Node: w.Nodes[node], Lease: w.Leases[node]}
	}
	w.Fresh = w.Fresh || n.Fresh
	if (n.Endpoints || n.Users) && w.Endpoints == nil {
		w.Endpoints = []danmv1.DanmEp{}
	}
	if n.Sets && w.Sets == nil {
		w.Sets = map[string]StatefulSet{}
	}
}

// decide is what the loop does between looking and acting.
func (s *site) decide() Decision {
	w := s.w
	for range passes {
		d := Decide(w)
		if !d.Needs.Any() {
			return d
		}
		s.fresh(d.Needs, &w)
	}
	return Decide(w)
}

// settle runs rounds until nothing is to do, and returns how many wrote.
func (s *site) settle() int {
	s.t.Helper()
	for n := range 40 {
		d := s.decide()
		if len(d.Actions) == 0 {
			return n
		}
		for i := range d.Actions {
			s.carry(&d.Actions[i])
		}
	}
	s.t.Fatalf("never idle: %s", summary(s.decide()))
	return 0
}

func (s *site) later(d time.Duration) { s.w.Now = s.w.Now.Add(d) }

// carry is an action as the API server carries it out; false if the object is not the one that was decided upon.
func (s *site) carry(a *Action) bool {
	s.log = append(s.log, *a)
	for _, e := range a.Events {
		s.events = append(s.events, e.Reason+": "+e.Text)
	}
	if a.Key != "" {
		s.w.Wrote[a.Key] = s.w.Now
	}
	s.version++
	switch a.Verb {
	case Create:
		if s.find(a.Block.Name) != nil {
			return false
		}
		b := a.Block.DeepCopy()
		b.UID, b.ResourceVersion, b.CreationTimestamp = types.UID(fmt.Sprint("uid-", s.version)), fmt.Sprint(s.version), metav1.NewTime(s.w.Now)
		s.w.Blocks = append(slices.Clip(s.w.Blocks), *b)
	case Update, UpdateStatus, Remove:
		have := s.find(a.Block.Name)
		if have == nil || have.UID != a.Block.UID || have.ResourceVersion != a.Block.ResourceVersion {
			return false
		}
		next := have.DeepCopy()
		next.ResourceVersion = fmt.Sprint(s.version)
		switch a.Verb {
		case Update:
			next.Spec, next.ObjectMeta.Labels, next.Annotations = *a.Block.Spec.DeepCopy(), a.Block.Labels, a.Block.Annotations
		case UpdateStatus:
			next.Status = *a.Block.Status.DeepCopy()
		default:
			name := a.Block.Name
			s.w.Blocks = slices.DeleteFunc(slices.Clone(s.w.Blocks), func(b v1alpha1.IPBlock) bool { return b.Name == name })
			return true
		}
		*have = *next
	case DeleteLease:
		delete(s.w.Leases, strings.TrimPrefix(a.Lease.Name, LeasePrefix))
	case Finalize, Tell:
		i := slices.IndexFunc(s.w.Networks, func(n Network) bool { return n.Key() == a.Network.Key() })
		o := s.w.Networks[i].Object.DeepCopyObject().(*danmv1.TenantNetwork)
		if a.Verb == Tell {
			o.Status = *a.Status.DeepCopy()
		} else if o.Finalizers = nil; a.Keep {
			o.Finalizers = []string{Finalizer}
		} else if o.DeletionTimestamp != nil {
			s.w.Networks = slices.Delete(slices.Clone(s.w.Networks), i, i+1)
			return true
		}
		s.w.Networks[i].Object, s.w.Networks[i].Spec, s.w.Networks[i].Status = o, &o.Spec, &o.Status
	}
	return true
}

func summary(d Decision) string {
	var out []string
	for _, a := range d.Actions {
		out = append(out, string(a.Verb)+" "+a.name()+" "+a.Why)
	}
	return strings.Join(out, "\n")
}

func (s *site) want(what string, ok bool) {
	s.t.Helper()
	if !ok {
		var have []string
		for _, b := range s.w.Blocks {
			have = append(have, fmt.Sprintf("%s %s owner=%q ceded=%v held=%v %v %+v", b.Spec.Role, b.Spec.CIDR, b.Spec.Owner, b.Spec.Ceded, b.Spec.Held, b.Annotations, b.Status))
		}
		s.t.Fatalf("not so: %s\n%s\nevents: %s", what, strings.Join(have, "\n"), strings.Join(s.events, "; "))
	}
}

func netipAddr(text string) netip.Addr     { return netip.MustParseAddr(text) }
func netipPrefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }
