package ipamsim

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// Cluster is the cluster home: each node's Keeper claims blocks in the API, and the controller's decisions are those of
// reconcile/blocks. Networks reach it as the PlanSegment that every plan names.
type Cluster struct {
	Networks []model.Network
	Cooldown time.Duration
	Lease    time.Duration // of blocks

	mu      sync.Mutex
	wakes   map[string]chan struct{}                     // by node
	keepers map[string]*ipam.Keeper                      // by node, the newest
	asked   map[string]string                            // node that is asked by a Single, by name
	tied    *world.World                                 // of this run
	evict   func(node, spaceHash string, p netip.Prefix) // deletes the Pod
	dirty   bool                                         // something that the controller looks at has changed
	noSets  bool                                         // the StatefulSets were deleted
	clean   time.Time                                    // since when nothing was in the administrator's way; zero: something is
	nonces  map[string]string                            // what nodes waited for when the administrator looked last
}

// Faults are all.
func (h *Cluster) Faults() Faults {
	return Faults{API: true, LiveJournal: true, OtherMachine: true, ClockSteps: true, Sticky: true}
}

// Settle is a block lease, so that what lost nodes had is free, and some rounds.
func (h *Cluster) Settle() time.Duration { return h.Lease + h.Lease/2 + time.Hour }

// Share: any node can give any address that is left.
func (h *Cluster) Share(int, model.Network, func(netip.Addr) bool) int { return -1 }

// wake has a node's Keeper look when somebody asks it for an address, as its watch does.
func (h *Cluster) wake(w *world.World, node string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tied != w {
		h.tied, h.wakes, h.asked, h.noSets, h.clean = w, map[string]chan struct{}{}, map[string]string{}, false, time.Time{}
		h.keepers = map[string]*ipam.Keeper{}
		w.OnChange(func(kind, _, name string) {
			if kind == world.IPBlock || kind == world.Node { // the rest can wait a minute
				h.mu.Lock()
				h.dirty = true
				h.mu.Unlock()
			}
			if kind == world.IPBlock {
				h.changed(w, name)
			}
		})
	}
	if h.wakes[node] == nil {
		h.wakes[node] = make(chan struct{}, 1)
	}
	return h.wakes[node]
}

// Watch has the controller look when the world changes, where no node of this process does.
func (h *Cluster) Watch(w *world.World) { h.wake(w, "") }

func (h *Cluster) changed(w *world.World, name string) {
	o, err := w.Get(world.IPBlock, "", name)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		b, ok := o.(*v1alpha1.IPBlock)
		if !ok || b.Spec.Role != v1alpha1.RoleSingle {
			return
		}
		h.asked[name] = b.Spec.Asked
	}
	if c := h.wakes[h.asked[name]]; c != nil {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Start opens the journal, a damaged one as a lost one, and lets a Keeper run.
func (h *Cluster) Start(ctx context.Context, e Env) (Stack, error) {
	opts := ipam.Options{Cooldown: h.Cooldown, Clock: func() time.Time { return e.BootWall.Add(e.Boottime()) }, Log: e.Log, HighWater: e.HighWater}
	s, err := e.open(opts)
	if errors.Is(err, ipam.ErrCorrupt) && e.Disk != nil {
		if err := clearDisk(e.Disk); err != nil {
			return nil, err
		}
		e.HighWater.Store(0)
		s, err = e.open(opts)
	}
	if err != nil {
		return nil, err
	}
	api, ok := e.API.(*world.NodeAPI)
	if !ok {
		return nil, errors.New("the cluster home needs an API")
	}
	client, ok := api.Client.(*world.Client)
	if !ok {
		return nil, errors.New("the cluster home needs a simulated API")
	}
	k := ipam.NewKeeper(ipam.KeeperOptions{Service: s, API: api, Node: e.Node, Wake: h.wake(client.World, e.Node), Boottime: e.Boottime, BlockLease: h.Lease,
		Sandboxes: func(context.Context) ([]string, error) { return e.Kernel.Sandboxes(), nil }, Sleep: client.Sleep, Random: e.Random, Log: e.Log})
	for e.Doubtful {
		if _, err := k.Round(ctx); err == nil {
			break
		}
		if err := client.Sleep(ctx, time.Second); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	h.mu.Lock()
	h.keepers[e.Node] = k
	h.mu.Unlock()
	n := newKeeperNode(e, s, k)
	n.run(ctx, reporter{store: client, node: e.Node, every: 30 * time.Second, sleep: client.Sleep})
	return n, n.clean(ctx)
}

// clearDisk is what setting a damaged journal aside comes to.
func clearDisk(d ipam.Disk) error {
	names, err := d.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.Remove(name); err != nil {
			return err
		}
	}
	if f, ok := d.(interface{ ForgetJournal() }); ok {
		f.ForgetJournal()
	}
	return nil
}

type keeperNode struct {
	localNode
	k       *ipam.Keeper
	end     context.CancelFunc
	running sync.WaitGroup
}

func newKeeperNode(e Env, s *ipam.Service, k *ipam.Keeper) *keeperNode {
	return &keeperNode{localNode: localNode{env: e, s: s, give: k, claimed: true}, k: k}
}

// run lets the Keeper and its reporter run until ctx ends, or Kill.
func (n *keeperNode) run(ctx context.Context, r reporter) {
	life, end := context.WithCancel(ctx)
	n.end = end
	n.running.Go(func() { n.k.Run(life) })
	n.running.Go(func() { r.report(context.WithValue(life, caller{}, "report"), n.k.Usage) })
}

// Kill ends the Keeper's goroutines without waiting: they find everything dead.
func (n *keeperNode) Kill() {
	n.end()
	n.localNode.Kill()
}

// RunController decides and writes as the controller's loop does, from what the API says at that moment.
func (h *Cluster) RunController(ctx context.Context, c *world.Client) {
	wrote := map[string]time.Time{}
	next := time.Now()
	for ; ctx.Err() == nil; _ = c.Sleep(ctx, 2*time.Second) {
		if !h.woken() && time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(time.Minute)
		w, err := h.look(ctx, c, wrote)
		if err == nil {
			d := blocks.Decide(w)
			for range 4 {
				if !d.Needs.Any() {
					break
				}
				h.satisfy(&w, d.Needs)
				d = blocks.Decide(w)
			}
			for i := range d.Actions {
				if act(ctx, c, &d.Actions[i]) == nil && d.Actions[i].Key != "" {
					wrote[d.Actions[i].Key] = time.Now()
				}
			}
			h.accept(ctx, c, w)
			if !d.Next.IsZero() && d.Next.Before(next) {
				next = d.Next
			}
		}
	}
}

// Restored has every Keeper look again: a restored API server was away, which ends each watch.
func (h *Cluster) Restored() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.keepers {
		k.Doubt(time.Minute)
	}
}

// Evictor is how a Pod is deleted that stands in the way.
func (h *Cluster) Evictor(evict func(node, spaceHash string, p netip.Prefix)) { h.evict = evict }

// Reached says whether the node's agent has compared its journal with the API since it started.
func (h *Cluster) Reached(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keepers[node] != nil && h.keepers[node].Reached()
}

// SetsDeleted has every StatefulSet be gone from now on.
func (h *Cluster) SetsDeleted() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noSets = true
}

func (h *Cluster) woken() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	was := h.dirty
	h.dirty = false
	return was
}

func (h *Cluster) look(ctx context.Context, c *world.Client, wrote map[string]time.Time) (blocks.World, error) {
	w := blocks.World{Now: time.Now(), Options: blocks.Options{BlockLease: h.Lease, Cooldown: h.Cooldown}, Nodes: map[string]bool{}, Leases: map[string]*coordinationv1.Lease{},
		Segments: map[string]model.Segment{"all": {Networks: h.Networks}}, Wrote: wrote}
	for _, kind := range []string{world.Node, world.IPBlock, world.Lease, world.NodePlan} {
		list, _, err := c.List(ctx, kind, nil)
		if err != nil {
			return w, err
		}
		for _, o := range list {
			switch o := o.(type) {
			case *v1alpha1.IPBlock:
				w.Blocks = append(w.Blocks, *o)
			case *coordinationv1.Lease:
				w.Leases[o.Name[len("danm-node-"):]] = o
			case *v1alpha1.NodePlan:
				w.Plans = append(w.Plans, *o)
			default:
				w.Nodes[o.GetName()] = true
			}
		}
	}
	w.Plans = append(w.Plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "everybody"},
		Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Segments: []string{"all"}}}}})
	return w, nil
}

// satisfy says what was asked for. Everything was read from the API itself a moment ago.
func (h *Cluster) satisfy(w *blocks.World, need blocks.Needs) {
	w.Fresh = w.Fresh || need.Fresh
	if w.Signs == nil {
		w.Signs = map[string]blocks.Sign{}
	}
	for _, n := range need.Nodes {
		w.Signs[n] = blocks.Sign{Node: w.Nodes[n], Lease: w.Leases[n]}
	}
	if need.Endpoints || need.Users {
		w.Endpoints = []danmv1.DanmEp{}
	}
	if need.Pods {
		w.Pods = &blocks.Pods{}
	}
	if need.Sets { // every StatefulSet that anything is kept for lives, until all are deleted
		w.Sets = map[string]blocks.StatefulSet{}
		h.mu.Lock()
		gone := h.noSets
		h.mu.Unlock()
		if gone {
			return
		}
		for i := range w.Blocks {
			if r := w.Blocks[i].Spec.Reservation; r != nil {
				w.Sets[r.UID] = blocks.StatefulSet{Namespace: r.Namespace, Name: r.StatefulSet, Replicas: 1 << 20}
			}
		}
	}
}

func act(ctx context.Context, c *world.Client, a *blocks.Action) (err error) {
	switch a.Verb {
	case blocks.Create:
		_, err = c.Create(ctx, a.Block)
	case blocks.Update:
		_, err = c.Update(ctx, a.Block)
	case blocks.UpdateStatus:
		_, err = c.UpdateStatus(ctx, a.Block)
	case blocks.Remove:
		b := a.Block.DeepCopy()
		if i := slices.Index(b.Finalizers, v1alpha1.IPFinalizer); i >= 0 {
			b.Finalizers = slices.Delete(b.Finalizers, i, i+1)
			o, err := c.Update(ctx, b)
			if err != nil {
				return err
			}
			if x, ok := o.(*v1alpha1.IPBlock); ok {
				b = x
			}
		}
		err = c.Delete(ctx, world.IPBlock, "", b.Name, world.Preconditions{UID: string(b.UID), ResourceVersion: b.ResourceVersion})
		if apierrors.IsNotFound(err) {
			err = nil
		}
	case blocks.DeleteLease:
		err = c.Delete(ctx, world.Lease, a.Lease.Namespace, a.Lease.Name, world.Preconditions{UID: string(a.Lease.UID), ResourceVersion: a.Lease.ResourceVersion})
	}
	return err
}

// Frozen are the blocks that the node does not use.
func (n *keeperNode) Frozen() (out []string) {
	for _, b := range n.k.Blocks() {
		if b.State == ipam.Frozen {
			out = append(out, b.CIDR.String())
		}
	}
	return out
}

// Entries is what the journal says.
func (n *keeperNode) Entries() ([]history.Entry, error) { return entries(n.env.Node, n.s) }
