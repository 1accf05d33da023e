//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/mirror"
	"danm.io/danm/node/state"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/cluster/bed"
)

const (
	simulated   = 200
	publishIn   = time.Second
	kernelIn    = 2 * time.Second
	simulatedIn = 10 * time.Second
	memoryLimit = 512 << 20
)

// waveless is a bundle whose revisions go to all nodes at once.
func waveless(mtu int) []decode.File {
	text := "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: bench}\nspec: {confirmTimeout: 10s, rollout: {soak: 0s, maxUnavailable: 100%, canary: {count: 0}}}\n---\n" +
		fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: bench}\nspec:\n  groups:\n  - {name: all, interfaces: [{name: eth9, mtu: %d}]}\n", mtu) +
		"  fabrics:\n  - {name: f, groups: [all], device: eth9, vniRanges: [\"100-199\"], vxlan: {multicast: 239.1.1.1}}\n---\n" +
		"apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: voice}\nspec: {type: macvlan, fabric: f, vxlan: 100}\n"
	return []decode.File{{Path: "bench.yaml", Data: []byte(text)}}
}

// onCluster gives rows a cluster home of their own: a commit's way to the API, to one kernel and to 200 simulated agents, and the
// scale case.
func onCluster(rows func(*cluster, *report) error) func(options, *report) error {
	return func(o options, r *report) error {
		if _, err := bed.Programs(); err != nil {
			fmt.Fprintln(os.Stdout, "BENCH cluster: skipped:", err)
			return nil
		}
		k, err := startCluster(o)
		if err != nil {
			return err
		}
		defer k.stop()
		return rows(k, r)
	}
}

// oneNodeRows: a real node, guard and agent in a namespace.
func oneNodeRows(k *cluster, r *report) error {
	ns, err := k.world.Add("n1")
	if err != nil {
		return err
	}
	if err := errors.Join(k.sw.Plug("mgmt", ns, "eth0", "10.99.0.11/24"), k.sw.Plug("fabric", ns, "eth9", ""), k.addNode("n1", nil)); err != nil {
		return err
	}
	config, err := k.api.Kubeconfig("node", bed.AdminToken)
	if err != nil {
		return err
	}
	dir := filepath.Join(k.dir, "n1")
	g, err := k.run(ns, "guard", "danm-node", "guard", "--state-dir", dir)
	if err != nil {
		return err
	}
	defer g.Stop(15, 5*time.Second)
	a, err := k.run(ns, "agent", "danm-node", "agent", "--node-name", "n1", "--state-dir", dir, "--kubeconfig", config, "--socket", filepath.Join(k.dir, "n1.sock"),
		"--cni-conf-dir", filepath.Join(k.dir, "net.d"), "--metrics-addr", "0")
	if err != nil {
		return err
	}
	defer a.Stop(15, 5*time.Second)
	if err := errors.Join(k.commit(waveless(1500)), k.follow()); err != nil {
		return err
	}
	confirmed := func() (bool, error) {
		plans, err := k.plans()
		if err != nil || len(plans) != 1 || plans[0].Spec.Layers.Bundle == nil || plans[0].Status.Applied == nil {
			return false, err
		}
		return plans[0].Status.Applied.Revision == plans[0].Spec.Layers.Bundle.Revision, nil
	}
	if err := until("confirmed", time.Minute, 50*time.Millisecond, func() (bool, error) {
		ok, err := confirmed()
		return ok && ns.LinkMTU("eth9") == 1500, err
	}); err != nil {
		return err
	}
	var published, applied []time.Duration
	for i := range 30 {
		mtu := 1400 + i
		before, err := k.plans()
		if err != nil {
			return err
		}
		old := before[0].Spec.Layers.Bundle.Digest
		start := time.Now()
		if err := k.commit(waveless(mtu)); err != nil {
			return err
		}
		if err := until("published", 30*time.Second, 5*time.Millisecond, func() (bool, error) {
			plans, err := k.plans()
			return err == nil && plans[0].Spec.Layers.Bundle.Digest != old, err
		}); err != nil {
			return err
		}
		published = append(published, time.Since(start))
		if err := until("in the kernel", 30*time.Second, 5*time.Millisecond, func() (bool, error) { return ns.LinkMTU("eth9") == mtu, nil }); err != nil {
			return err
		}
		applied = append(applied, time.Since(start))
		if err := until("confirmed", time.Minute, 20*time.Millisecond, confirmed); err != nil {
			return err
		}
	}
	r.below("commit_to_published_p99", quantile(published, .99), publishIn)
	r.below("commit_to_kernel_p99", quantile(applied, .99), kernelIn)
	return nil
}

// manyNodeRows: 200 mirrors with a state directory each, in this process; what they read they say is applied.
func manyNodeRows(k *cluster, r *report) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// Each node has a disk of its own; 200 here would wait for one.
	disks := filepath.Join(k.dir, "disks")
	if err := os.Mkdir(disks, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", disks, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount memory for the nodes' disks: %w", err)
	}
	defer func() { _ = unix.Unmount(disks, unix.MNT_DETACH) }()
	dirs := make([]*state.Dir, simulated)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range dirs {
		name := fmt.Sprintf("n%03d", i)
		if err := k.addNode(name, nil); err != nil {
			return err
		}
		d := state.Open(filepath.Join(disks, name))
		dirs[i] = d
		running.Add(1)
		go func() {
			defer running.Done()
			_ = mirror.Run(ctx, mirror.Options{Node: name, Config: k.api.Config(bed.AdminToken), Dir: d, View: func(context.Context) mirror.View { return viewOf(d) }})
		}()
	}
	if err := errors.Join(k.commit(waveless(1500)), k.follow()); err != nil {
		return err
	}
	have := func(mtu int) func() (bool, error) {
		return func() (bool, error) {
			for _, d := range dirs {
				st, err := d.Read()
				if err != nil || len(st.Plan.Links) == 0 || st.Plan.Links[0].MTU != mtu {
					return false, nil
				}
			}
			return true, nil
		}
	}
	if err := until("at all simulated nodes", 2*time.Minute, 100*time.Millisecond, have(1500)); err != nil {
		return err
	}
	var took []time.Duration
	for i := range 5 {
		if err := until("at rest", time.Minute, 100*time.Millisecond, k.rolledOut); err != nil {
			return err
		}
		start := time.Now()
		if err := k.commit(waveless(1400 + i)); err != nil {
			return err
		}
		if err := until("at all simulated nodes", time.Minute, 50*time.Millisecond, have(1400+i)); err != nil {
			return err
		}
		took = append(took, time.Since(start))
	}
	r.below("commit_to_200_nodes_p99", quantile(took, .99), simulatedIn)
	return nil
}

// viewOf is a node that has applied whatever it was told.
func viewOf(d *state.Dir) mirror.View {
	st, err := d.Read()
	if err != nil {
		return mirror.View{}
	}
	return mirror.View{Wanted: &st, Confirmed: &st, Guard: guard.Status{}, Hardware: []model.NIC{{Name: "eth9"}}}
}

func (k *cluster) rolledOut() (bool, error) {
	b := &v1alpha1.NetworkBundle{}
	if err := k.c.Get(context.Background(), client.ObjectKey{Name: "bench"}, b); err != nil {
		return false, err
	}
	return b.Status.Rollout != nil && b.Status.Rollout.Complete && b.Status.RolledOut != nil && b.Status.Fetched != nil && b.Status.RolledOut.Name == b.Status.Fetched.Name, nil
}

// scaleRows: 5,000 nodes in 20 groups, 1,000 networks, 100 tenants: what one changed network writes, and what it all costs.
func scaleRows(k *cluster, r *report) error {
	shape := rendertest.Budget
	if err := k.many(shape.Nodes, func(i int) error {
		return k.addNode(fmt.Sprintf("node-%05d", i), map[string]string{"group": fmt.Sprintf("g%03d", i%shape.Groups), "kubernetes.io/os": "linux"})
	}); err != nil {
		return err
	}
	if err := k.many(shape.Tenants, func(i int) error { return k.namespace(fmt.Sprintf("tenant-%03d", i)) }); err != nil {
		return err
	}
	written := shape
	written.Nodes = 0 // they come from the API
	files := rendertest.Files(written)
	for i := range files {
		files[i].Data = []byte(strings.Replace(string(files[i].Data), "  version: 1.0.0\n", "  version: 1.0.0\n  rollout: {soak: 0s, maxUnavailable: 100%, canary: {count: 0}}\n", 1))
	}
	start := time.Now()
	if err := errors.Join(k.commit(files), k.follow()); err != nil {
		return err
	}
	if err := until("published", 10*time.Minute, time.Second, func() (bool, error) {
		plans, err := k.plans()
		_, n := digests(plans)
		return n == shape.Nodes, err
	}); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "scale: %d node plans published after %s\n", shape.Nodes, time.Since(start).Round(time.Second))
	if err := k.confirmAll(); err != nil {
		return err
	}
	if err := until("rolled out", 10*time.Minute, time.Second, k.rolledOut); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	before, err := k.versions()
	if err != nil {
		return err
	}
	for i := range files {
		if files[i].Path == "tenants/tenant-000.yaml" {
			files[i].Data = []byte(strings.Replace(string(files[i].Data), "type: macvlan", "mtu: 1400\n  type: macvlan", 1))
		}
	}
	start = time.Now()
	if err := k.commit(files); err != nil {
		return err
	}
	group := shape.Nodes / shape.Groups
	var plans, others int
	if err := until("published again", 3*time.Minute, 500*time.Millisecond, func() (bool, error) {
		now, err := k.versions()
		plans, others = changes(before, now)
		return err == nil && plans >= group, err
	}); err != nil {
		return err
	}
	took := time.Since(start)
	if err := k.confirmAll(); err != nil {
		return err
	}
	if err := until("rolled out again", 10*time.Minute, time.Second, k.rolledOut); err != nil {
		return err
	}
	after, err := k.versions()
	if err != nil {
		return err
	}
	plans, others = changes(before, after)
	memory, err := peak(k.controller.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "scale: one changed network is published in %s; it wrote %d node plans of %d, and %d other objects; etcd holds %.0f MiB\n",
		took.Round(10*time.Millisecond), plans, shape.Nodes, others, float64(k.stored())/(1<<20))
	r.row("scale_one_network_writes", fmt.Sprint(plans+others), fmt.Sprint(group), float64(plans+others)/float64(group), "1.05x of the group's nodes", plans == group && others <= 12)
	r.row("scale_controller_memory", fmt.Sprintf("%dMiB", memory>>20), fmt.Sprintf("%dMiB", memoryLimit>>20), float64(memory)/memoryLimit, "<=512MiB", memory <= memoryLimit)
	return nil
}
