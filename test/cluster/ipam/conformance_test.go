// Package ipam compares the API server that the IPAM's simulator has in memory with a real one.
package ipam

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/ipamsim/world"
)

func TestMain(m *testing.M) { bed.Main(m) }

// server is one of the two API servers.
type server interface {
	get(world.Object) (world.Object, error) // of the same kind and name
	create(world.Object) (world.Object, error)
	update(world.Object) (world.Object, error)
	updateStatus(world.Object) (world.Object, error)
	remove(o world.Object, uid, rv string) error
	list(labels map[string]string) ([]world.Object, string, error) // of IPBlocks
}

type memory struct{ w *world.World }

func kindOf(o world.Object) string { return reflect.TypeOf(o).Elem().Name() }

func (m memory) get(o world.Object) (world.Object, error) {
	return m.w.Get(kindOf(o), o.GetNamespace(), o.GetName())
}
func (m memory) create(o world.Object) (world.Object, error) { return m.w.Create("test", o) }
func (m memory) update(o world.Object) (world.Object, error) { return m.w.Update("test", o) }
func (m memory) updateStatus(o world.Object) (world.Object, error) {
	return m.w.UpdateStatus("test", o)
}
func (m memory) remove(o world.Object, uid, rv string) error {
	return m.w.Delete(kindOf(o), o.GetNamespace(), o.GetName(), world.Preconditions{UID: uid, ResourceVersion: rv})
}
func (m memory) list(labels map[string]string) ([]world.Object, string, error) {
	list, version := m.w.List(world.IPBlock, labels)
	return list, version, nil
}

type real struct{ s world.Server }

var ctx = context.Background()

func (r real) get(o world.Object) (world.Object, error) {
	return r.s.Get(ctx, kindOf(o), o.GetNamespace(), o.GetName())
}
func (r real) create(o world.Object) (world.Object, error)       { return r.s.Create(ctx, o) }
func (r real) update(o world.Object) (world.Object, error)       { return r.s.Update(ctx, o) }
func (r real) updateStatus(o world.Object) (world.Object, error) { return r.s.UpdateStatus(ctx, o) }
func (r real) remove(o world.Object, uid, rv string) error {
	return r.s.Delete(ctx, kindOf(o), o.GetNamespace(), o.GetName(), world.Preconditions{UID: uid, ResourceVersion: rv})
}
func (r real) list(labels map[string]string) ([]world.Object, string, error) {
	return r.s.List(ctx, world.IPBlock, labels)
}

// side plays on one server. Both sides draw the same random numbers, and each knows the objects that its own server gave.
type side struct {
	server
	seen     map[string][]world.Object // by kind and name, oldest first
	versions map[string]int            // → the step that first saw it
	last     int64
	trace    []string
}

var space = v1alpha1.IPSpace{Domain: "edge", ID: 10, CIDR: "10.0.0.0/24"}

// fresh makes an object that a program could want to create.
func fresh(rng *rand.Rand) world.Object {
	name := fmt.Sprint("conf-", rng.IntN(2))
	meta := metav1.ObjectMeta{Name: name}
	if rng.IntN(2) == 0 {
		meta.Finalizers = []string{v1alpha1.IPFinalizer}
	}
	meta.Labels = map[string]string{v1alpha1.LabelSpace: strconv.Itoa(rng.IntN(2))}
	switch rng.IntN(7) {
	case 0:
		meta.Finalizers = nil
		return &corev1.Node{ObjectMeta: meta}
	case 1:
		meta.Namespace = "default"
		return &coordinationv1.Lease{ObjectMeta: meta, Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr.To("a"), LeaseTransitions: ptr.To(int32(1))}}
	case 2:
		return &v1alpha1.NodePlan{ObjectMeta: meta, Spec: v1alpha1.NodePlanSpec{Bundle: "a"}, Status: v1alpha1.NodePlanStatus{Phase: "x"}}
	}
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(3) * 64)}), 26)
	meta.Name = space.BlockName(prefix)
	b := &v1alpha1.IPBlock{ObjectMeta: meta, Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleBlock, Space: space, CIDR: prefix.String(), Owner: "a", Epoch: 1},
		Status: v1alpha1.IPBlockStatus{Answer: v1alpha1.AnswerCeded}}
	switch rng.IntN(12) {
	case 0:
		b.Name = "x" + b.Name[:len(b.Name)-1]
	case 1:
		b.Spec.Role = "Odd"
	case 2:
		b.Spec.Role, b.Name = v1alpha1.RoleRoot, space.RootName()
	case 3:
		b.ResourceVersion = "1"
	case 4, 5: // outside, not masked, of the other family, nothing at all, larger than the space
		b.Spec.CIDR = []string{"10.0.1.0/26", "10.0.0.1/26", "fd00::/64", "x", "10.0.0.0/23"}[rng.IntN(5)]
		b.Name = space.Hash() + "-" + strings.NewReplacer("/", "-", ":", "x").Replace(b.Spec.CIDR)
	case 6:
		b.Spec.Role = v1alpha1.RoleSingle
		if rng.IntN(2) == 0 {
			b.Spec.CIDR = "10.0.0.5/32"
			b.Name = space.BlockName(netip.MustParsePrefix(b.Spec.CIDR))
		}
	case 7:
		b.Spec.Role, b.Name, b.Spec.CIDR = v1alpha1.RoleRoot, space.RootName(), space.CIDR
	case 8:
		b.Spec.Space.CIDR = []string{"10.0.0.1/24", "y"}[rng.IntN(2)]
	}
	return b
}

// alter changes an object as a program could, also as it must not.
func alter(rng *rand.Rand, o world.Object) {
	if rng.IntN(3) == 0 {
		o.SetLabels(map[string]string{v1alpha1.LabelSpace: strconv.Itoa(rng.IntN(2))})
	}
	switch rng.IntN(10) {
	case 0, 1, 2:
		o.SetFinalizers(nil)
	case 3:
		if _, isNode := o.(*corev1.Node); !isNode { // ours are on blocks only
			o.SetFinalizers([]string{v1alpha1.IPFinalizer, "danm.io/other"}[:1+rng.IntN(2)])
		}
	case 4:
		o.SetResourceVersion("")
	case 5:
		o.SetUID("")
	case 6:
		o.SetUID("00000000-0000-0000-0000-000000000001")
	case 7:
		o.SetGeneration(77)
	}
	if _, isNode := o.(*corev1.Node); isNode { // taken without version and UID: then an earlier Node's fields would count as a change
		o.SetManagedFields(nil)
	}
	n := rng.IntN(3)
	switch o := o.(type) {
	case *v1alpha1.IPBlock:
		alterBlock(rng, o, n)
	case *v1alpha1.NodePlan:
		o.Spec.Bundle, o.Status.Phase = fmt.Sprint(n), []string{"x", "y", ""}[n]
	case *coordinationv1.Lease:
		o.Spec.LeaseTransitions = ptr.To(int32(n))
	}
}

func alterBlock(rng *rand.Rand, o *v1alpha1.IPBlock, n int) {
	o.Status.Answer = []string{"", v1alpha1.AnswerCeded, v1alpha1.AnswerRefused}[rng.IntN(3)]
	switch rng.IntN(12) {
	case 0:
		o.Spec.Owner = []string{"a", "b", ""}[n]
	case 1:
		o.Spec.Epoch = int64(n)
	case 2:
		o.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.5", UID: fmt.Sprint(n)}}
	case 3:
		o.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.5", UID: "1"}, {Address: "10.0.0.5", UID: "2"}}
	case 4:
		o.Spec.CIDR = "10.0.0.0/27"
	case 5:
		o.Spec.Role = v1alpha1.RoleSingle
	case 6:
		o.Spec.Space.ID++
	case 7:
		o.Status.Answer = "Odd"
	case 8:
		o.Status.Used = int64(n)
	}
}

func id(o world.Object) string { return kindOf(o) + " " + o.GetName() }

// step does one operation, decided by rng and by what this side knows, and notes what came of it.
func (s *side) step(n int, rng *rand.Rand) {
	o := fresh(rng)
	known := s.seen[id(o)]
	var mine world.Object
	if len(known) > 0 { // mostly the newest
		mine = known[max(0, len(known)-1-rng.IntN(1+rng.IntN(4)))].DeepCopyObject().(world.Object)
	}
	what, alterSeed := rng.IntN(12), rng.Uint64()
	withUID, withRV := rng.IntN(2) == 0, rng.IntN(3) == 0
	if mine == nil && what >= 3 {
		what = 2
		if alterSeed%8 == 0 {
			what = []int{3, 6, 8}[alterSeed/8%3]
			mine = o.DeepCopyObject().(world.Object)
		}
	}
	var out world.Object
	var err error
	switch {
	case what < 1:
		out, err = s.get(o)
	case what < 3:
		out, err = s.create(o)
	case what < 6:
		alter(rand.New(rand.NewPCG(alterSeed, 1)), mine)
		out, err = s.update(mine)
	case what < 8:
		alter(rand.New(rand.NewPCG(alterSeed, 1)), mine)
		out, err = s.updateStatus(mine)
	case what < 10:
		var uid, rv string
		if withUID {
			uid = string(mine.GetUID())
		}
		if withRV {
			rv = mine.GetResourceVersion()
		}
		err = s.remove(mine, uid, rv)
	default:
		s.listed(n, rng)
		return
	}
	text := fmt.Sprintf("%d: %s of %s: %s", n, []string{"get", "create", "create", "update", "update", "update", "status", "status", "delete", "delete"}[what], id(o), world.Class(err))
	if err == nil && out != nil {
		s.seen[id(o)] = append(s.seen[id(o)], out)
		text += " " + s.version(n, out.GetResourceVersion()) + " " + plain(out)
	}
	s.trace = append(s.trace, text)
}

func (s *side) listed(n int, rng *rand.Rand) {
	labels := map[string]string{v1alpha1.LabelSpace: strconv.Itoa(rng.IntN(2))}
	list, version, err := s.list(labels)
	text := fmt.Sprintf("%d: list: %s %d", n, world.Class(err), len(list))
	at, _ := strconv.ParseInt(version, 10, 64)
	for _, o := range list {
		text += "\n" + s.version(n, o.GetResourceVersion()) + " " + plain(o)
		if v, _ := strconv.ParseInt(o.GetResourceVersion(), 10, 64); v > at {
			text += " newer than the list"
		}
	}
	s.trace = append(s.trace, text)
}

// version is a version by order: which step first saw it, and whether it was then the newest.
func (s *side) version(n int, v string) string {
	if at, ok := s.versions[v]; ok {
		return fmt.Sprint("version of step ", at)
	}
	s.versions[v] = n
	num, err := strconv.ParseInt(v, 10, 64)
	older := err != nil || num <= s.last
	s.last = max(s.last, num)
	return fmt.Sprintf("new version, older %v", older)
}

// plain is an object without what differs by nature.
func plain(o world.Object) string {
	o = o.DeepCopyObject().(world.Object)
	o.SetUID("")
	o.SetResourceVersion("")
	o.SetManagedFields(nil)
	o.SetCreationTimestamp(metav1.Time{})
	if o.GetDeletionTimestamp() != nil {
		o.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0).UTC()})
	}
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	if n, ok := o.(*corev1.Node); ok {
		n.Spec, n.Status = corev1.NodeSpec{}, corev1.NodeStatus{} // admission adds a taint
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// TestClusterConformance: whatever programs do to it, the world in memory answers as an API server does.
func TestClusterConformance(t *testing.T) {
	api := bed.Shared(t)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(api.Config(bed.AdminToken), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	steps, seed := 2000, uint64(1)
	if v, err := strconv.Atoi(os.Getenv("DANM_IPAMSIM_OPS")); err == nil {
		steps = v
	}
	if v, err := strconv.ParseUint(os.Getenv("DANM_IPAMSIM_SEED"), 10, 64); err == nil {
		seed = v
	}
	mem := &side{server: memory{world.New(time.Now)}, seen: map[string][]world.Object{}, versions: map[string]int{}}
	api2 := &side{server: real{world.Server{Client: c}}, seen: map[string][]world.Object{}, versions: map[string]int{}}
	outcomes := map[string]int{}
	for n := range steps {
		for _, s := range []*side{mem, api2} {
			s.step(n, rand.New(rand.NewPCG(seed, uint64(n))))
		}
		got, want := mem.trace[n], api2.trace[n]
		outcome := strings.Fields(strings.SplitN(want, " ", 2)[1])
		outcomes[outcome[0]+strings.Join(outcome[min(4, len(outcome)):min(5, len(outcome))], "")]++
		if got != want {
			t.Fatalf("seed %d\nthe world     %s\nthe API server %s\nbefore:\n%s", seed, got, want, strings.Join(api2.trace[max(0, n-12):n], "\n"))
		}
	}
	t.Logf("%d operations, seed %d: %v", steps, seed, outcomes)
}
