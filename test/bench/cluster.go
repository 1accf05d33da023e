//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/lab"
)

const apiAddress = "10.99.0.1"

// cluster is a real API server with the controller as users run it, in a namespace, and a switch for nodes.
type cluster struct {
	o          options
	dir        string
	world      *lab.World
	sw, cp     *lab.NS
	home       *lab.NS // the bench's own
	own        *os.File
	api        *bed.API
	c          client.Client
	controller *lab.Proc
}

func startCluster(o options) (k *cluster, err error) {
	dir, err := os.MkdirTemp(o.cache, "cluster-")
	if err != nil {
		return nil, err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	k = &cluster{o: o, dir: dir}
	defer func() {
		if err != nil {
			k.stop()
		}
	}()
	if k.world, err = lab.NewWorld(dir); err != nil {
		return k, err
	}
	if k.sw, err = k.world.Add("sw"); err != nil {
		return k, err
	}
	if k.cp, err = k.world.Add("cp"); err != nil {
		return k, err
	}
	// The bench's own namespace is plugged in, too: it plays users and simulated nodes.
	own, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return k, err
	}
	k.own, k.home = own, &lab.NS{Name: "bench", Path: fmt.Sprintf("/proc/self/fd/%d", own.Fd())}
	if err = errors.Join(k.sw.Switch("mgmt"), k.sw.Switch("fabric"), k.sw.Plug("mgmt", k.cp, "eth0", apiAddress+"/24"), k.sw.Plug("mgmt", k.home, "bench0", "10.99.0.2/24")); err != nil {
		return k, err
	}
	if k.api, err = bed.StartAPI(dir, apiAddress, k.fork(k.cp)); err != nil {
		return k, err
	}
	if err = k.api.InstallCRDs(k.fork(k.cp)); err != nil {
		return k, err
	}
	scheme, err := controller.Scheme()
	if err != nil {
		return k, err
	}
	if k.c, err = client.New(k.api.Config(bed.AdminToken), client.Options{Scheme: scheme}); err != nil {
		return k, err
	}
	for _, name := range []string{"danm-system", "acme"} {
		if err = k.c.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return k, err
		}
	}
	config, err := k.api.Kubeconfig("controller", bed.AdminToken)
	if err != nil {
		return k, err
	}
	k.controller, err = k.run(k.cp, "controller", "danm-controller", "--kubeconfig", config, "--cache-dir", filepath.Join(dir, "cache"), "--metrics-addr", "0", "--health-addr", "0", "--leader-elect=false")
	return k, err
}

func (k *cluster) fork(ns *lab.NS) bed.Fork {
	return func(cmd *exec.Cmd) (func() error, error) {
		p, err := ns.Start(cmd)
		return func() error { <-p.Exited; return p.Err }, err
	}
}

func (k *cluster) run(ns *lab.NS, log, program string, args ...string) (*lab.Proc, error) {
	out, err := os.Create(filepath.Join(k.dir, log+".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(k.o.bin, program), args...)
	cmd.Stdout, cmd.Stderr = out, out
	return ns.Start(cmd)
}

func (k *cluster) stop() {
	if k.controller != nil {
		k.controller.Stop(syscall.SIGTERM, 5*time.Second)
	}
	if k.api != nil {
		_ = k.api.Stop()
	}
	if k.home != nil {
		_ = k.home.DeleteLink("bench0") // else it goes some time after its namespace
		_ = k.own.Close()
	}
	if k.world != nil {
		_ = k.world.Close()
	}
	_ = os.RemoveAll(k.dir)
}

// commit makes ConfigMaps hold the files: one a file, as several may be over the size of an object.
func (k *cluster) commit(files []decode.File) error {
	for _, f := range files {
		key := strings.ReplaceAll(f.Path, "/", "__")
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "danm-system", Name: strings.TrimSuffix(strings.ReplaceAll(key, "_", "-"), ".yaml"), Labels: map[string]string{"bundle": "bench"}},
			Data: map[string]string{key: string(f.Data)}}
		old := m.DeepCopy()
		err := k.c.Get(context.Background(), client.ObjectKeyFromObject(m), old)
		switch {
		case client.IgnoreNotFound(err) != nil:
			return err
		case err != nil:
			err = k.c.Create(context.Background(), m)
		case old.Data[key] != m.Data[key]:
			err = k.c.Update(context.Background(), m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (k *cluster) follow() error {
	return k.c.Create(context.Background(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, Spec: v1alpha1.NetworkBundleSpec{
		ConfigMaps: &v1alpha1.ConfigMapSource{Namespace: "danm-system", Selector: map[string]string{"bundle": "bench"}}, AllowEmpty: true}})
}

func (k *cluster) addNode(name string, labels map[string]string) error {
	return k.c.Create(context.Background(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// until polls.
func until(what string, within, every time.Duration, ok func() (bool, error)) error {
	for deadline := time.Now().Add(within); ; time.Sleep(every) {
		is, err := ok()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if is {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not %s within %s", what, within)
		}
	}
}

// plans are the node plans now.
func (k *cluster) plans() ([]v1alpha1.NodePlan, error) {
	var list v1alpha1.NodePlanList
	err := k.c.List(context.Background(), &list)
	return list.Items, err
}

// digests are the different digests of the bundle's layers, and how many plans have one.
func digests(plans []v1alpha1.NodePlan) (map[string]int, int) {
	out, n := map[string]int{}, 0
	for i := range plans {
		if l := plans[i].Spec.Layers.Bundle; l != nil {
			out[l.Digest]++
			n++
		}
	}
	return out, n
}

// peak is the largest resident memory of a process so far in bytes (proc(5), VmHWM).
func peak(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range bytes.Split(b, []byte("\n")) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, err := strconv.ParseInt(strings.Fields(string(rest))[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}

// stored is what etcd has on disk in bytes.
func (k *cluster) stored() int64 {
	var total int64
	_ = filepath.Walk(filepath.Join(k.dir, "etcd", "member", "snap"), func(_ string, i os.FileInfo, err error) error {
		if err == nil && !i.IsDir() {
			total += i.Size()
		}
		return nil
	})
	return total
}
