package tenancy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/tenancy"
)

// world is an API server in memory: versions, conflicts, and no cache.
type world struct {
	networks map[string]*danmv1.TenantNetwork
	configs  map[string]*danmv1.TenantConfig
	bundle   v1alpha1.NetworkBundle
	cluster  []danmv1.ClusterNetwork
	links    map[tenancy.Number]string // in node plans: number → UID of the network it was made for
	version  int
	uids     int
	empty    map[types.UID]bool // networks that came without a number: what they have, we wrote
	writes   int
}

func newWorld(configs ...danmv1.TenantConfig) *world {
	w := &world{networks: map[string]*danmv1.TenantNetwork{}, configs: map[string]*danmv1.TenantConfig{}, links: map[tenancy.Number]string{}, empty: map[types.UID]bool{}}
	for i := range configs {
		w.touch(&configs[i])
		w.configs[configs[i].Name] = &configs[i]
	}
	w.bundle.Name = "edge"
	w.touch(&w.bundle)
	return w
}

func (w *world) touch(o metav1.Object) {
	w.version++
	o.SetResourceVersion(strconv.Itoa(w.version))
}

func config(name, namespace string, profiles ...danmv1.IfaceProfile) danmv1.TenantConfig {
	c := danmv1.TenantConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, HostDevices: profiles}
	if namespace != "" {
		c.Extension = &danmv1.TenantExtension{Namespaces: []string{namespace}}
	}
	return c
}

func profileOf(device, kind, ids string) danmv1.IfaceProfile {
	return danmv1.IfaceProfile{Name: device, VniType: kind, VniRange: ids}
}

// create makes a network; change may write what a person would.
func (w *world) create(key string, change ...func(*danmv1.TenantNetwork)) *danmv1.TenantNetwork {
	var namespace, name string
	if i := slices.Index([]byte(key), '/'); i >= 0 {
		namespace, name = key[:i], key[i+1:]
	}
	w.uids++
	n := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(fmt.Sprintf("u%d", w.uids)), Generation: 1,
		CreationTimestamp: metav1.NewTime(time.Unix(int64(w.uids), 0))}, Spec: danmv1.NetworkSpec{NetworkID: name}}
	for _, f := range change {
		f(n)
	}
	w.touch(n)
	w.networks[key] = n
	w.empty[n.UID] = n.Spec.Options.Vlan == 0 && n.Spec.Options.Vxlan == 0
	return n
}

func conflict(what string) error {
	return apierrors.NewConflict(schema.GroupResource{Resource: "x"}, what, errors.New("changed"))
}

// direct is a registry on the world, one operation an atomic step. before is asked at each step and may end it.
type direct struct {
	*world
	before func(op string) error
	after  func(op string) error
}

func (d direct) step(op string, do func() error) error {
	if d.before != nil {
		if err := d.before(op); err != nil {
			return err
		}
	}
	err := do()
	if d.after != nil {
		if lost := d.after(op); lost != nil {
			return lost
		}
	}
	return err
}

func (d direct) read(context.Context) (in Input, err error) {
	steps := []func(){
		func() {
			for _, k := range slices.Sorted(maps.Keys(d.networks)) {
				in.Networks = append(in.Networks, *d.networks[k].DeepCopy())
			}
		},
		func() {
			for _, k := range slices.Sorted(maps.Keys(d.configs)) {
				in.Configs = append(in.Configs, *d.configs[k].DeepCopy())
			}
		},
		func() { in.Bundles = []v1alpha1.NetworkBundle{*d.bundle.DeepCopy()} },
		func() { in.Cluster = slices.Clone(d.cluster) },
	}
	for i, f := range steps {
		if err := d.step(fmt.Sprint("read ", i), func() error { f(); return nil }); err != nil {
			return in, err
		}
	}
	return in, nil
}

func (d direct) condition(_ context.Context, v Verdict) error {
	return d.step("condition", func() error {
		n := d.networks[v.Network.Namespace+"/"+v.Network.Name]
		if n == nil || n.ResourceVersion != v.Network.ResourceVersion {
			return conflict("condition")
		}
		v.set(&n.Status.Conditions)
		d.touch(n)
		d.writes++
		return nil
	})
}

func (d direct) reserve(_ context.Context, c *danmv1.TenantConfig, list []danmv1.ReservedNumber) error {
	return d.step("reserve", func() error {
		now := d.configs[c.Name]
		if now == nil || now.ResourceVersion != c.ResourceVersion {
			return conflict("reserve")
		}
		now.Status.Reserved = slices.Clone(list)
		d.touch(now)
		d.writes++
		return nil
	})
}

func (d direct) write(_ context.Context, w Write) error {
	return d.step("write", func() error {
		n := d.networks[w.Network.Namespace+"/"+w.Network.Name]
		if n == nil || n.ResourceVersion != w.Network.ResourceVersion {
			return conflict("write")
		}
		o := &n.Spec.Options
		if w.Device != "" {
			o.Device = w.Device
		}
		o.Vlan, o.Vxlan = max(o.Vlan, w.VLAN), max(o.Vxlan, w.VXLAN)
		n.Generation++
		d.touch(n)
		d.writes++
		return nil
	})
}

func (d direct) judge(_ context.Context, c *danmv1.TenantConfig, v ConfigVerdict) error {
	return d.step("judge", func() error {
		now := d.configs[c.Name]
		if now == nil || now.ResourceVersion != c.ResourceVersion {
			return conflict("judge")
		}
		v.apply(now)
		d.touch(now)
		d.writes++
		return nil
	})
}

// actor is one process: direct, and the links, a name that the world has for something else.
type actor struct{ direct }

func (a actor) links(context.Context) (map[tenancy.Number]bool, error) {
	out := map[tenancy.Number]bool{}
	err := a.step("links", func() error {
		for n := range a.world.links {
			out[n] = true
		}
		return nil
	})
	return out, err
}

// inUse is every number that a network or the bundle uses: it is told so, or it is in the spec by our hand. It shares no code
// with what it judges.
func (w *world) inUse() map[string][]string {
	out := map[string][]string{}
	for key, n := range w.networks {
		told := false
		for _, c := range n.Status.Conditions {
			told = told || c.Type == "Assigned" && c.Status == "True"
		}
		if !told && !w.empty[n.UID] {
			continue
		}
		if v := n.Spec.Options.Vlan; v != 0 {
			at := fmt.Sprintf("vlan %s %d", n.Spec.Options.Device, v)
			out[at] = append(out[at], key+" "+string(n.UID))
		}
		if v := n.Spec.Options.Vxlan; v != 0 {
			at := fmt.Sprintf("vni %d", v)
			out[at] = append(out[at], key+" "+string(n.UID))
		}
	}
	return out
}

// relink is hostlinks: node plans have what assigned networks need.
func (w *world) relink() {
	w.links = map[tenancy.Number]string{}
	for _, n := range w.networks {
		for _, c := range n.Status.Conditions {
			if c.Type != "Assigned" || c.Status != "True" {
				continue
			}
			if v := n.Spec.Options.Vlan; v != 0 {
				w.links[tenancy.Number{Kind: "vlan", Device: n.Spec.Options.Device, ID: int64(v)}] = string(n.UID)
			}
			if v := n.Spec.Options.Vxlan; v != 0 {
				w.links[tenancy.Number{Kind: "vxlan", ID: int64(v)}] = string(n.UID)
			}
		}
	}
}

// settle runs rounds by one process until nothing is written any more.
func (w *world) settle() error {
	for range 20 {
		before := w.writes
		res, err := round(context.Background(), actor{direct{world: w}})
		if err != nil {
			return err
		}
		if w.writes == before && res.yielded == 0 {
			return nil
		}
	}
	return errors.New("never at rest")
}

var _ registry = actor{}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }
