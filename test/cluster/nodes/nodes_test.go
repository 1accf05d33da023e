//go:build linux

// Package nodes tests the cluster home end to end: a real API server, the controller, and on each of two nodes (network
// namespaces) the guard and the agent, all as the processes that users run.
package nodes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/lab"
)

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// site is two nodes and a control plane on a management switch, and a fabric between the nodes.
type site struct {
	t          *testing.T
	dir, bin   string
	world      *lab.World
	cp         *lab.NS
	nodes      map[string]*lab.NS
	api        *bed.API
	controller *lab.Proc
	agents     map[string]*lab.Proc

	kubeconfigs map[string]string
	addresses   string // of the network voice: more of its spec
}

const apiAddress = "10.99.0.1"

func newSite(t *testing.T) *site {
	t.Helper()
	if _, err := bed.Programs(); errors.Is(err, bed.ErrNotBuilt) {
		t.Skip(err)
	}
	s := &site{t: t, dir: t.TempDir(), bin: filepath.Join(bed.Root(), "bin"), nodes: map[string]*lab.NS{}, agents: map[string]*lab.Proc{}, kubeconfigs: map[string]string{}}
	if _, err := os.Stat(filepath.Join(s.bin, "danm-controller")); err != nil {
		t.Fatal("make build comes first: ", err)
	}
	var err error
	s.world, err = lab.NewWorld(s.dir)
	s.must(err)
	t.Cleanup(func() { _ = s.world.Close() })
	sw, err := s.world.Add("sw")
	s.must(err)
	s.must(errors.Join(sw.Switch("mgmt"), sw.Switch("fabric")))
	s.cp, err = s.world.Add("cp")
	s.must(err)
	s.must(sw.Plug("mgmt", s.cp, "eth0", apiAddress+"/24"))
	for i, name := range []string{"n1", "n2"} {
		ns, err := s.world.Add(name)
		s.must(err)
		s.must(errors.Join(sw.Plug("mgmt", ns, "eth0", fmt.Sprintf("10.99.0.1%d/24", i+1)), sw.Plug("fabric", ns, "eth9", "")))
		s.nodes[name] = ns
	}
	s.api, err = bed.StartAPI(s.dir, apiAddress, s.fork(s.cp))
	s.must(err)
	t.Cleanup(func() { _ = s.api.Stop() })
	s.must(s.api.InstallCRDs(s.fork(s.cp)))
	s.kubectl("apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", "production"))
	s.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: acme}\n")
	for name := range s.nodes {
		s.apply(fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s, labels: {role: edge}}\n", name))
	}
	s.controller = s.run(s.cp, "controller", "danm-controller", "--kubeconfig", s.credentials("danm-controller"), "--cache-dir", filepath.Join(s.dir, "cache"), "--metrics-addr", "0", "--health-addr", "0",
		"--leader-elect=false") // nobody here starts a controller again that lost its lease
	for name, ns := range s.nodes {
		s.run(ns, "guard-"+name, "danm-node", "guard", "--state-dir", s.state(name))
		s.startAgent(name)
	}
	return s
}

func (s *site) startAgent(name string) {
	s.t.Helper()
	s.kubeconfigs[name] = s.credentials("danm-node", "--bound-object-kind", "Node", "--bound-object-name", name)
	s.restartAgent(name)
}

// restartAgent needs no API.
func (s *site) restartAgent(name string) {
	s.t.Helper()
	kubeconfig := s.kubeconfigs[name]
	s.agents[name] = s.run(s.nodes[name], "agent-"+name, "danm-node", "agent", "--node-name", name, "--state-dir", s.state(name), "--kubeconfig", kubeconfig,
		"--socket", filepath.Join(s.dir, name+".sock"), "--cni-conf-dir", filepath.Join(s.dir, name+"-net.d"), "--metrics-addr", "0")
}

// credentials are those of a service account of deploy/, as its Pods have them: nothing here runs as the administrator.
func (s *site) credentials(account string, bound ...string) string {
	s.t.Helper()
	token := strings.TrimSpace(s.kubectl(append([]string{"create", "token", account, "-n", "danm-system"}, bound...)...))
	path, err := s.api.Kubeconfig(strings.Join(append([]string{account}, bound...), ""), token)
	s.must(err)
	return path
}

func (s *site) state(name string) string { return filepath.Join(s.dir, name) }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// fork starts programs inside a namespace.
func (s *site) fork(ns *lab.NS) bed.Fork {
	return func(cmd *exec.Cmd) (func() error, error) {
		p, err := ns.Start(cmd)
		return func() error { <-p.Exited; return p.Err }, err
	}
}

func (s *site) run(ns *lab.NS, log, program string, args ...string) *lab.Proc {
	s.t.Helper()
	out, err := os.OpenFile(filepath.Join(s.dir, log+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	s.must(err)
	defer out.Close()
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Stdout, cmd.Stderr = out, out
	p, err := ns.Start(cmd)
	s.must(err)
	s.t.Cleanup(func() {
		p.Stop(syscall.SIGTERM, 5*time.Second)
		if s.t.Failed() {
			b, _ := os.ReadFile(out.Name())
			s.t.Logf("%s:\n%s", log, b[max(0, len(b)-6000):])
		}
	})
	return p
}

func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.api.Kubectl(s.fork(s.cp), args...)
	if err != nil {
		s.t.Fatalf("kubectl %v: %s", args, out)
	}
	return string(out)
}

func (s *site) apply(manifest string) {
	s.t.Helper()
	if out, err := s.api.KubectlInput(s.fork(s.cp), manifest, "apply", "-f", "-"); err != nil {
		s.t.Fatalf("%s\n%s", out, manifest)
	}
}

// commit is the bundle with host routes for the group, as a ConfigMap.
func (s *site) commit(mtu int, routes string) {
	s.t.Helper()
	indent := func(text string) string {
		return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
	}
	s.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: edge, namespace: danm-system, labels: {bundle: edge}}\ndata:\n" +
		"  bundle.yaml: |\n" + indent("apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {confirmTimeout: 5s, rollout: {soak: 0s, maxUnavailable: 1, onFailure: Revert}}") +
		"  topology.yaml: |\n" + indent(fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: site}\nspec:\n  groups:\n  - name: all\n    selector: {role: edge}\n"+
		"    interfaces: [{name: eth9, mtu: %d, addresses: [172.30.0.1/32]}]\n    routes: [%s]\n  fabrics:\n  - {name: f, groups: [all], device: eth9, vniRanges: [\"100-199\"], vxlan: {port: 4789, multicast: 239.1.1.1}}\n", mtu, routes)) +
		"  voice.yaml: |\n" + indent("apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: voice, namespace: acme}\nspec: {type: macvlan, fabric: f, vxlan: auto"+s.addresses+"}") +
		"  tenant.yaml: |\n" + indent("apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {namespaces: [acme]}"))
}

func (s *site) until(what string, within time.Duration, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not %s:\n%s\n%s", what, s.kubectl("get", "networkbundles,nodeplans"), s.kubectl("get", "networkbundles", "-o", "jsonpath={.items[*].status.conditions}"))
		}
	}
}

func (s *site) bundle() v1alpha1.NetworkBundle {
	s.t.Helper()
	var b v1alpha1.NetworkBundle
	s.must(json.Unmarshal([]byte(s.kubectl("get", "networkbundle", "edge", "-o", "json")), &b))
	return b
}

func (s *site) plan(name string) v1alpha1.NodePlan {
	s.t.Helper()
	var p v1alpha1.NodePlan
	s.must(json.Unmarshal([]byte(s.kubectl("get", "nodeplan", name, "-o", "json")), &p))
	return p
}

func (s *site) ready(reason string) func() bool {
	return func() bool {
		b := s.bundle()
		for _, c := range b.Status.Conditions {
			if c.Type == "Ready" {
				return c.Reason == reason && b.Status.Fetched != nil
			}
		}
		return false
	}
}

// rolledOut: the newest commit is on both nodes.
func (s *site) rolledOut(old string) func() bool {
	return func() bool {
		b := s.bundle()
		return b.Status.RolledOut != nil && b.Status.RolledOut.Name != old && b.Status.Nodes == "2/2" && s.ready("RolledOut")()
	}
}

// TestClusterHomeEndToEnd: commits roll to two kernels, a commit that cuts nodes off the API is undone by the nodes and goes no
// further, nodes ride through an API that is frozen, gone, and back.
func TestClusterHomeEndToEnd(t *testing.T) {
	s := newSite(t)
	s.commit(1400, "")
	s.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n")
	s.until("rolled out", time.Minute, s.rolledOut(""))
	for name, ns := range s.nodes {
		if ns.LinkMTU("eth9") != 1400 || ns.LinkMTU("vx_voice") != 1350 {
			t.Errorf("%s: eth9 %d, vx_voice %d", name, ns.LinkMTU("eth9"), ns.LinkMTU("vx_voice"))
		}
		if p := s.plan(name); p.Status.Phase != "Applied" || p.Status.Applied.Plan == "" {
			t.Errorf("%s: %+v", name, p.Status)
		}
	}
	first := s.bundle().Status.RolledOut.Name

	dumps := map[string]string{}
	for name, ns := range s.nodes {
		d, err := ns.Dump()
		s.must(err)
		dumps[name] = d
	}
	s.commit(1400, "{to: "+apiAddress+"/32, dev: eth9}") // the way to the API server leads into the fabric
	s.until("quarantined", 90*time.Second, s.ready("RevisionQuarantined"))
	b := s.bundle()
	if q := b.Status.Quarantined; len(q) != 1 || q[0].Node != "n1" || !strings.Contains(q[0].Reason, "apiserver") || b.Status.RolledOut.Name != first {
		t.Fatalf("%+v", b.Status)
	}
	s.until("back on both nodes", 30*time.Second, func() bool { return s.bundle().Status.Nodes == "2/2" })
	for name, ns := range s.nodes {
		if d, err := ns.Dump(); err != nil || d != dumps[name] {
			t.Errorf("%s is not as before: %v\n%s\nwas\n%s", name, err, d, dumps[name])
		}
	}
	t.Logf("%s", s.kubectl("get", "networkbundles,nodeplans"))
	if p := s.plan("n1"); p.Status.Phase != "RolledBack" || !strings.Contains(p.Status.Reason, "apiserver") {
		t.Errorf("n1: %+v", p.Status)
	}

	// The API server is frozen: drift is repaired from disk, and an agent that starts has its plan.
	s.must(s.api.Freeze())
	s.must(s.nodes["n1"].DeleteLink("vx_voice"))
	s.agents["n2"].Stop(syscall.SIGKILL, time.Second)
	s.restartAgent("n2")
	s.must(s.nodes["n2"].DeleteLink("vx_voice"))
	for deadline := time.Now().Add(20 * time.Second); s.nodes["n1"].LinkMTU("vx_voice") != 1350 || s.nodes["n2"].LinkMTU("vx_voice") != 1350; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("drift was not repaired without the API")
		}
	}
	s.must(s.api.Thaw())
	s.api.StopServer()
	s.must(s.api.Restart(s.fork(s.cp)))
	s.commit(1300, "")
	s.until("rolled out after the outage", 2*time.Minute, s.rolledOut(first))
	for name, ns := range s.nodes {
		if ns.LinkMTU("eth9") != 1300 {
			t.Errorf("%s: eth9 %d", name, ns.LinkMTU("eth9"))
		}
	}
	if p := s.plan("n1"); p.Status.Drift == 0 || p.Status.Refused != nil || p.Status.Phase != "Applied" {
		t.Errorf("n1: %+v", p.Status)
	}

	// A NodePlan that is gone is no empty plan; teardown is.
	s.controller.Stop(syscall.SIGTERM, 5*time.Second)
	s.kubectl("delete", "nodeplan", "n1")
	time.Sleep(2 * time.Second)
	if s.nodes["n1"].LinkMTU("vx_voice") == 0 {
		t.Error("a deleted NodePlan took the node's links")
	}
	s.kubectl("patch", "nodeplan", "n2", "--type", "merge", "-p", `{"spec":{"teardown":true}}`)
	s.until("torn down", 30*time.Second, func() bool { return s.nodes["n2"].LinkMTU("vx_voice") == 0 && s.nodes["n2"].LinkMTU("eth9") == 1500 })
}
