package cluster

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/cluster/bed"
)

// who may not: RBAC, or the policy on what is a node's own.
const (
	may      = ""
	byRBAC   = "cannot"
	byPolicy = "ValidatingAdmissionPolicy 'danm-node-own-objects'"
)

// attempt is one thing that somebody tries with kubectl.
type attempt struct {
	name    string
	token   string
	args    []string
	refused string // may, byRBAC or byPolicy
}

// rig is a cluster with the overlays, two nodes with a plan, a Pod and an endpoint each, and the tokens of the programs.
type rig struct {
	t                         *testing.T
	api                       *bed.API
	onN1, nowhere, controller string
}

const rigObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: rig}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: rig}
`

func perNode(n string) string {
	return strings.ReplaceAll(`
apiVersion: v1
kind: Node
metadata: {name: NODE}
---
apiVersion: danm.io/v1alpha1
kind: NodePlan
metadata: {name: NODE}
spec: {bundle: b}
---
apiVersion: v1
kind: Pod
metadata: {name: pod-NODE, namespace: rig, labels: {app: a}, annotations: {keep: it}}
spec: {nodeName: NODE, automountServiceAccountToken: false, containers: [{name: c, image: x}]}
---
apiVersion: danm.io/v1
kind: DanmEp
metadata: {name: ep-NODE, namespace: rig}
spec: {Host: NODE, Pod: pod-NODE}
`, "NODE", n)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	api := bed.Shared(t)
	r := &rig{t: t, api: api}
	for _, overlay := range []string{"lightweight", "production"} {
		r.admin("apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", overlay))
	}
	for _, text := range []string{rigObjects, perNode("n1"), perNode("n2")} {
		r.admin("apply", "--server-side", "--force-conflicts", "-f", r.file(text))
	}
	t.Cleanup(func() {
		_, _ = api.Kubectl(nil, "delete", "--wait=false", "nodeplan,node", "n1", "n2")
		_, _ = api.Kubectl(nil, "delete", "-n", "rig", "--force", "pod,danmep", "--all")
		_, _ = api.Kubectl(nil, "delete", "clusternetwork,lease", "-n", "danm-system", "made-by-test", "danm-node-n1", "danm-node-n2", "--ignore-not-found")
	})
	for _, text := range []string{
		ipblock("10.0.1.0/26", "Block", "n2", ""), ipblock("10.0.1.64/26", "Block", "", ""), ipblock("10.0.0.9/32", "Single", "n2", ", asked: n1"), ipblock("10.0.1.8/32", "Single", "n2", ""),
		ipblock("10.0.1.7/32", "Single", "", ", reservation: {namespace: a, statefulSet: web, uid: u, ordinal: 0, ifName: eth1}"),
	} {
		r.admin("apply", "--server-side", "--force-conflicts", "-f", r.file(text))
	}
	t.Cleanup(func() { _, _ = api.Kubectl(nil, "delete", "ipblock", "--all") })
	r.onN1 = r.admin("create", "token", "-n", "danm-system", "danm-node", "--bound-object-kind", "Node", "--bound-object-name", "n1")
	r.nowhere = r.admin("create", "token", "-n", "danm-system", "danm-node")
	r.controller = r.admin("create", "token", "-n", "danm-system", "danm-controller")
	// The policy is enforced a moment after it is stored: wait until it refuses what nobody may.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if out, err := api.KubectlAs(r.onN1, r.putStatus("n2")...); err != nil && strings.Contains(string(out), byPolicy) {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal("a node may write another node's status")
		}
	}
}

func (r *rig) admin(args ...string) string {
	r.t.Helper()
	out, err := r.api.Kubectl(nil, args...)
	if err != nil {
		r.t.Fatalf("%v: %s", args, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *rig) file(text string) string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "object.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// putStatus writes the plan as it stands, with a status; the version makes it the newest.
func (r *rig) putStatus(node string) []string {
	version := r.admin("get", "nodeplan", node, "-o", "jsonpath={.metadata.resourceVersion}")
	text := `{"apiVersion":"danm.io/v1alpha1","kind":"NodePlan","metadata":{"name":"` + node + `","resourceVersion":"` + version + `"},"spec":{"bundle":"b"},"status":{"phase":"Applied"}}`
	return []string{"replace", "--raw", "/apis/danm.io/v1alpha1/nodeplans/" + node + "/status", "-f", r.file(text)}
}

func (r *rig) try(list []attempt) {
	r.t.Helper()
	allowed := 0
	for _, a := range list {
		out, err := r.api.KubectlAs(a.token, r.current(a.args)...)
		switch {
		case a.refused == may && err != nil:
			r.t.Errorf("%s: refused: %s", a.name, out)
		case a.refused != may && (err == nil || !strings.Contains(string(out), a.refused) || !strings.Contains(string(out), "orbidden")):
			r.t.Errorf("%s: want refused by %q: %v %s", a.name, a.refused, err, out)
		case a.refused == may:
			allowed++
		}
	}
	r.t.Logf("%d attempts, %d may", len(list), allowed)
}

// current puts the version that an object has now into what replaces it.
func (r *rig) current(args []string) []string {
	last := len(args) - 1
	if !strings.Contains(args[last], "VERSION") {
		return args
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(args[2], "/apis/danm.io/v1alpha1/ipblocks/"), "/")
	version := r.admin("get", "ipblock", name, "-o", "jsonpath={.metadata.resourceVersion}")
	var v any
	if err := yaml.Unmarshal([]byte(strings.Replace(args[last], "VERSION", version, 1)), &v); err != nil {
		r.t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		r.t.Fatal(err)
	}
	return append(slices.Clone(args[:last]), r.file(string(text)))
}

func podStatus(pod, patch string) []string {
	return []string{"patch", "pod", pod, "-n", "rig", "--subresource=status", "--type=merge", "-p", patch}
}

func endpoint(name, host string) string {
	return "apiVersion: danm.io/v1\nkind: DanmEp\nmetadata: {name: " + name + ", namespace: rig}\nspec: {Host: " + host + ", Pod: p}\n"
}

// blockName is what an IPBlock of the tests' space is called, for a range of IPv4.
func blockName(cidr string) string {
	return v1alpha1.IPSpace{Domain: "d", ID: 1, CIDR: "10.0.0.0/16"}.BlockName(netip.MustParsePrefix(cidr))
}

func ipblock(cidr, role, owner, more string) string {
	labels := `danm.io/owner: "` + owner + `"`
	if owner != "" {
		more = ", owner: " + owner + more
	}
	if _, asked, ok := strings.Cut(more, "asked: "); ok {
		labels += ", danm.io/asked: " + asked
	}
	return "apiVersion: danm.io/v1alpha1\nkind: IPBlock\nmetadata: {name: " + blockName(cidr) + ", labels: {" + labels + "}}\nspec: {role: " + role + ", cidr: " + cidr + ", space: {domain: d, id: 1, cidr: 10.0.0.0/16}" + more + "}\nstatus: {answer: Ceded}\n"
}

// rewrite replaces an IPBlock, or its status, as it stands.
func (r *rig) rewrite(cidr, role, owner, more, part string) []string {
	text := strings.Replace(ipblock(cidr, role, owner, more), "metadata: {", "metadata: {resourceVersion: \"VERSION\", ", 1)
	name := blockName(cidr)
	return []string{"replace", "--raw", "/apis/danm.io/v1alpha1/ipblocks/" + name + part, "-f", text}
}

func lease(namespace, name string) string {
	return "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: " + name + ", namespace: " + namespace + "}\nspec: {holderIdentity: x}\n"
}

func event(name, kind, about, instance string) string {
	namespace := "default"
	if kind == "Pod" {
		namespace = "rig"
	}
	return "apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {name: " + name + ", namespace: " + namespace + "}\neventTime: 2026-01-01T00:00:00.000000Z\n" +
		"action: Apply\ntype: Normal\nreason: Applied\nnote: x\nreportingController: danm-node\nreportingInstance: " + instance +
		"\nregarding: {kind: " + kind + ", name: " + about + ", namespace: \"" + strings.TrimPrefix(namespace, "default") + "\"}\n"
}

const networkStatus = `k8s.v1.cni.cncf.io/network-status`

// TestClusterDeploy applies the overlays to a real API server, and tries what the credentials of a node may do.
func TestClusterDeploy(t *testing.T) {
	r := newRig(t)
	create := func(text string) []string { return []string{"create", "-f", r.file(text)} }
	replace := func(text string) []string { return []string{"replace", "-f", r.file(text)} }
	annotate := func(key, value string) string { return `{"metadata":{"annotations":{"` + key + `":` + value + `}}}` }
	r.try([]attempt{
		{"a node reads plans", r.onN1, []string{"get", "nodeplans"}, may},
		{"a node reads segments and peers", r.onN1, []string{"get", "plansegments,fabricpeers"}, may},
		{"a node writes another's status", r.onN1, r.putStatus("n2"), byPolicy},
		{"a token of no node writes a status", r.nowhere, r.putStatus("n1"), byPolicy},
		{"a node writes its own status", r.onN1, r.putStatus("n1"), may},
		{"a node patches its status", r.onN1, []string{"patch", "nodeplan", "n1", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Applied"}}`}, byRBAC},
		{"a node changes its own plan", r.onN1, []string{"patch", "nodeplan", "n1", "--type=merge", "-p", `{"spec":{"teardown":true}}`}, byRBAC},
		{"a node deletes its plan", r.onN1, []string{"delete", "nodeplan", "n1"}, byRBAC},
		{"a node reads Secrets", r.onN1, []string{"get", "secrets", "-n", "danm-system"}, byRBAC},
		{"a node reads ConfigMaps", r.onN1, []string{"get", "configmaps", "-n", "danm-system"}, byRBAC},
		{"a node reads bundles", r.onN1, []string{"get", "networkbundles"}, byRBAC},
		{"a node makes networks", r.onN1, create("apiVersion: danm.io/v1\nkind: ClusterNetwork\nmetadata: {name: made-by-test}\nspec: {NetworkID: a}\n"), byRBAC},

		{"a node makes an endpoint of its own", r.onN1, create(endpoint("made", "n1")), may},
		{"a node makes an endpoint of another", r.onN1, create(endpoint("made2", "n2")), byPolicy},
		{"a node makes an endpoint of nobody", r.onN1, create("apiVersion: danm.io/v1\nkind: DanmEp\nmetadata: {name: made3, namespace: rig}\nspec: {Pod: p}\n"), byPolicy},
		{"a node changes its endpoint", r.onN1, replace(endpoint("ep-n1", "n1")), may},
		{"a node takes over another's endpoint", r.onN1, replace(endpoint("ep-n2", "n1")), byPolicy},
		{"a node gives its endpoint to another", r.onN1, replace(endpoint("ep-n1", "n2")), byPolicy},
		{"a node deletes another's endpoint", r.onN1, []string{"delete", "danmep", "ep-n2", "-n", "rig"}, byPolicy},
		{"a node deletes all endpoints at once", r.onN1, []string{"delete", "--raw", "/apis/danm.io/v1/namespaces/rig/danmeps"}, byRBAC},
		{"a token of no node makes an endpoint", r.nowhere, create(endpoint("made4", `""`)), byPolicy},
		{"a node deletes its endpoint", r.onN1, []string{"delete", "danmep", "made", "-n", "rig"}, may},

		{"a node takes its lease", r.onN1, create(lease("danm-system", "danm-node-n1")), may},
		{"a node renews its lease", r.onN1, replace(lease("danm-system", "danm-node-n1")), may},
		{"a node takes another's lease", r.onN1, create(lease("danm-system", "danm-node-n2")), byPolicy},
		{"a node takes the controller's lease", r.onN1, create(lease("danm-system", "danm-controller")), byPolicy},
		{"a node takes a lease elsewhere", r.onN1, create(lease("rig", "danm-node-n1")), byRBAC},
		{"a node deletes its lease", r.onN1, []string{"delete", "lease", "danm-node-n1", "-n", "danm-system"}, byRBAC},

		{"a node claims a block", r.onN1, create(ipblock("10.0.0.0/26", "Block", "n1", "")), may},
		{"a node claims a block for another", r.onN1, create(ipblock("10.0.0.64/26", "Block", "n2", "")), byPolicy},
		{"a node makes a root", r.onN1, create(ipblock("10.0.0.0/16", "Root", "n1", "")), byPolicy},
		{"a node makes an orphan", r.onN1, create(ipblock("10.0.0.64/26", "Block", "", "")), byPolicy},
		{"a token of no node claims a block", r.nowhere, create(ipblock("10.0.0.64/26", "Block", "n1", "")), byPolicy},
		{"a node changes its block", r.onN1, r.rewrite("10.0.0.0/26", "Block", "n1", ", epoch: 2", ""), may},
		{"a node gives its block to another", r.onN1, r.rewrite("10.0.0.0/26", "Block", "n2", "", ""), byPolicy},
		{"a node changes another's block", r.onN1, r.rewrite("10.0.1.0/26", "Block", "n2", ", epoch: 2", ""), byPolicy},
		{"a node takes another's block", r.onN1, r.rewrite("10.0.1.0/26", "Block", "n1", "", ""), byPolicy},
		{"a node deletes another's block", r.onN1, []string{"delete", "ipblock", blockName("10.0.1.0/26"), "--wait=false"}, byPolicy},
		{"a node takes a reservation and changes it", r.onN1, r.rewrite("10.0.1.7/32", "Single", "n1", ", reservation: {namespace: a, statefulSet: web, uid: u, ordinal: 1, ifName: eth1}", ""), byPolicy},
		{"a node takes a reservation", r.onN1, r.rewrite("10.0.1.7/32", "Single", "n1", ", identity: i, reservation: {namespace: a, statefulSet: web, uid: u, ordinal: 0, ifName: eth1}", ""), may},
		{"a node makes an orphan of its block", r.onN1, r.rewrite("10.0.0.0/26", "Block", "", "", ""), byPolicy},
		{"a node names Pods from before", r.onN1, create(ipblock("10.0.0.128/26", "Block", "n1", ", held: [{address: 10.0.0.129}]")), byPolicy},
		{"a node labels a block as another's", r.onN1, create(strings.Replace(ipblock("10.0.0.128/26", "Block", "n1", ""), `owner: "n1"`, `owner: "n2"`, 1)), byPolicy},
		{"a node takes an orphan", r.onN1, r.rewrite("10.0.1.64/26", "Block", "n1", "", ""), byPolicy},
		{"a node answers who asked it", r.onN1, r.rewrite("10.0.0.9/32", "Single", "n2", ", asked: n1", "/status"), may},
		{"a node answers who asked another", r.onN1, r.rewrite("10.0.1.8/32", "Single", "n2", "", "/status"), byPolicy},
		{"a node deletes all blocks at once", r.onN1, []string{"delete", "--raw", "/apis/danm.io/v1alpha1/ipblocks"}, byRBAC},
		{"a node deletes its block", r.onN1, []string{"delete", "ipblock", blockName("10.0.0.0/26"), "--wait=false"}, may},
		{"a node reads its Node", r.onN1, []string{"get", "node", "n1"}, may},
		{"a node lists Nodes", r.onN1, []string{"get", "nodes"}, byRBAC},

		{"a node writes network-status of its Pod", r.onN1, podStatus("pod-n1", annotate(networkStatus, `"[]"`)), may},
		{"a node changes network-status of its Pod", r.onN1, podStatus("pod-n1", annotate(networkStatus, `"[{}]"`)), may},
		{"a node writes network-status of another's Pod", r.onN1, podStatus("pod-n2", annotate(networkStatus, `"[]"`)), byPolicy},
		{"a token of no node writes network-status", r.nowhere, podStatus("pod-n1", annotate(networkStatus, `"[]"`)), byPolicy},
		{"a node writes another annotation", r.onN1, podStatus("pod-n1", annotate("other", `"x"`)), byPolicy},
		{"a node changes another annotation", r.onN1, podStatus("pod-n1", annotate("keep", `"x"`)), byPolicy},
		{"a node removes another annotation", r.onN1, podStatus("pod-n1", annotate("keep", `null`)), byPolicy},
		{"a node labels its Pod", r.onN1, podStatus("pod-n1", `{"metadata":{"labels":{"app":"b"}}}`), byPolicy},
		{"a node adds a finalizer to its Pod", r.onN1, podStatus("pod-n1", `{"metadata":{"finalizers":["danm.io/x"]}}`), byPolicy},
		{"a node writes its Pod's status", r.onN1, podStatus("pod-n1", `{"status":{"podIP":"10.0.0.1"}}`), byPolicy},
		{"a node takes network-status away", r.onN1, podStatus("pod-n1", annotate(networkStatus, `null`)), may},
		{"a node patches its Pod itself", r.onN1, []string{"patch", "pod", "pod-n1", "-n", "rig", "--type=merge", "-p", annotate(networkStatus, `"[]"`)}, byRBAC},
		{"a node deletes its Pod", r.onN1, []string{"delete", "pod", "pod-n1", "-n", "rig"}, byRBAC},

		{"a node tells of its plan", r.onN1, create(event("e1", "NodePlan", "n1", "n1")), may},
		{"a node tells of its Pod", r.onN1, create(event("e2", "Pod", "pod-n1", "n1")), may},
		{"a node tells of another's plan", r.onN1, create(event("e3", "NodePlan", "n2", "n1")), byPolicy},
		{"a node speaks as another", r.onN1, create(event("e4", "Pod", "pod-n2", "n2")), byPolicy},
		{"a node tells of a Secret", r.onN1, create(event("e5", "Secret", "n1", "n1")), byPolicy},
		{"a token of no node tells", r.nowhere, create(event("e6", "NodePlan", "n1", "n1")), byPolicy},
	})
	if got := r.admin("get", "pod", "pod-n1", "-n", "rig", "-o", "jsonpath={.metadata.annotations}{.metadata.labels}{.status.podIP}"); got != `{"keep":"it"}{"app":"a"}` {
		t.Errorf("the Pod is %s", got)
	}
}

// TestClusterNodePolicyAlone: with every right that RBAC has to give, a node still writes only what the policy lists.
func TestClusterNodePolicyAlone(t *testing.T) {
	r := newRig(t)
	r.admin("create", "clusterrolebinding", "too-much", "--clusterrole=cluster-admin", "--serviceaccount=danm-system:danm-node")
	t.Cleanup(func() { _, _ = r.api.Kubectl(nil, "delete", "clusterrolebinding", "too-much") })
	create := func(text string) []string { return []string{"create", "-f", r.file(text)} }
	waitFor(t, "RBAC to hold", func() bool {
		_, err := r.api.KubectlAs(r.onN1, "get", "secrets", "-n", "danm-system")
		return err == nil
	})
	r.try([]attempt{
		{"its own status", r.onN1, r.putStatus("n1"), may},
		{"another's status", r.onN1, r.putStatus("n2"), byPolicy},
		{"its own plan", r.onN1, []string{"patch", "nodeplan", "n1", "--type=merge", "-p", `{"spec":{"teardown":true}}`}, byPolicy},
		{"the end of its plan", r.onN1, []string{"delete", "nodeplan", "n1"}, byPolicy},
		{"a network", r.onN1, create("apiVersion: danm.io/v1\nkind: ClusterNetwork\nmetadata: {name: made-by-test}\nspec: {NetworkID: a}\n"), byPolicy},
		{"a bundle", r.onN1, create("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: made-by-test}\nspec: {configMaps: {namespace: a, selector: {a: b}}}\n"), byPolicy},
		{"a Secret", r.onN1, []string{"create", "secret", "generic", "x", "-n", "danm-system"}, byPolicy},
		{"a Node", r.onN1, []string{"label", "node", "n1", "a=b"}, byPolicy},
		{"its Pod", r.onN1, []string{"annotate", "pod", "pod-n1", "-n", "rig", networkStatus + "=[]"}, byPolicy},
		{"the end of its Pod", r.onN1, []string{"delete", "pod", "pod-n1", "-n", "rig", "--wait=false"}, byPolicy},
		{"all endpoints at once", r.onN1, []string{"delete", "--raw", "/apis/danm.io/v1/namespaces/rig/danmeps"}, byPolicy},
		{"the end of its lease elsewhere", r.onN1, create(lease("rig", "danm-node-n1")), byPolicy},
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) { // a leader that just ended may have to run out first
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestClusterControllerRights tries what the controller's credentials may do.
func TestClusterControllerRights(t *testing.T) {
	r := newRig(t)
	create := func(text string) []string { return []string{"create", "-f", r.file(text)} }
	r.try([]attempt{
		{"reads bundles", r.controller, []string{"get", "networkbundles"}, may},
		{"makes networks", r.controller, create("apiVersion: danm.io/v1\nkind: ClusterNetwork\nmetadata: {name: made-by-test}\nspec: {NetworkID: a}\n"), may},
		{"reads a Secret by name", r.controller, []string{"get", "secret", "none", "-n", "danm-system", "--ignore-not-found"}, may},
		{"makes IPBlocks", r.controller, create(ipblock("10.0.2.0/26", "Block", "", "")), may},
		{"answers", r.controller, r.rewrite("10.0.1.8/32", "Single", "n2", "", "/status"), may},
		{"changes an IPBlock", r.controller, r.rewrite("10.0.2.0/26", "Block", "", ", epoch: 1", ""), may},
		{"deletes an IPBlock", r.controller, []string{"delete", "ipblock", blockName("10.0.2.0/26")}, may},
		{"lists Pods", r.controller, []string{"get", "pods", "-A"}, may},
		{"lists StatefulSets", r.controller, []string{"get", "statefulsets", "-A"}, may},
		{"lists endpoints", r.controller, []string{"get", "danmeps", "-A"}, may},
		{"reads leases of nodes", r.controller, []string{"get", "leases", "-n", "danm-system"}, may},
		{"reads a Pod", r.controller, []string{"get", "pod", "pod-n1", "-n", "rig"}, byRBAC},
		{"lists Secrets", r.controller, []string{"get", "secrets", "-n", "danm-system"}, byRBAC},
		{"reads Secrets elsewhere", r.controller, []string{"get", "secret", "x", "-n", "default"}, byRBAC},
		{"reads ConfigMaps elsewhere", r.controller, []string{"get", "configmaps", "-n", "default"}, byRBAC},
		{"writes ConfigMaps", r.controller, []string{"create", "configmap", "x", "-n", "danm-system"}, byRBAC},
		{"makes bundles", r.controller, create("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: made-by-test}\nspec: {configMaps: {namespace: a, selector: {a: b}}}\n"), byRBAC},
		{"writes a node's status", r.controller, []string{"patch", "nodeplan", "n1", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Applied"}}`}, byRBAC},
		{"changes nodes", r.controller, []string{"label", "node", "n1", "a=b"}, byRBAC},
		{"makes Pods", r.controller, []string{"run", "x", "--image=x", "-n", "danm-system"}, byRBAC},
		{"writes endpoints", r.controller, create(endpoint("made5", "n1")), byRBAC},
		{"takes a lease elsewhere", r.controller, create(lease("kube-system", "x")), byRBAC},
		{"gives itself more", r.controller, []string{"create", "clusterrolebinding", "x", "--clusterrole=cluster-admin", "--serviceaccount=danm-system:danm-controller"}, byRBAC},
		{"takes the policy away", r.controller, []string{"delete", "validatingadmissionpolicybinding", "danm-node-own-objects"}, byRBAC},
		{"is somebody else", r.controller, []string{"get", "nodes", "--as", "admin"}, byRBAC},
		{"makes a token of a node", r.controller, []string{"create", "token", "danm-node", "-n", "danm-system"}, byRBAC},
	})
}
