package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/reconcile/desired"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// objects are what an API server of a test lists.
type objects struct {
	bundles   []v1alpha1.NetworkBundle
	plans     []v1alpha1.NodePlan
	segments  []v1alpha1.PlanSegment
	peers     []v1alpha1.FabricPeers
	tenants   []danmv1.TenantConfig
	cluster   []danmv1.ClusterNetwork
	networks  []danmv1.TenantNetwork
	danm      []danmv1.DanmNet
	endpoints []danmv1.DanmEp
	nodes     []corev1.Node
	blocks    []v1alpha1.IPBlock
	leases    []coordinationv1.Lease
	pods      []corev1.Pod
	refuse    map[string]int // status codes by resource
	writes    *[]string      // what was written; nil: nothing may be
}

// serve answers lists, and fails the test on anything that would write.
func (o *objects) serve(t *testing.T) LiveOptions {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		lists := map[string]any{"networkbundles": o.bundles, "nodeplans": o.plans, "plansegments": o.segments, "fabricpeers": o.peers,
			"tenantconfigs": o.tenants, "clusternetworks": o.cluster, "tenantnetworks": o.networks, "danmnets": o.danm,
			"danmeps": o.endpoints, "nodes": o.nodes, "ipblocks": o.blocks, "leases": o.leases, "pods": o.pods}
		w.Header().Set("Content-Type", "application/json")
		if r.Method != http.MethodGet && o.writes == nil {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		if _, list := lists[resource]; !list && o.one(w, r) {
			return
		}
		if code := o.refuse[resource]; code != 0 {
			reason := map[int]metav1.StatusReason{401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound}[code]
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: "refused: " + resource})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": "List", "apiVersion": "v1", "metadata": map[string]any{}, "items": generic(lists[resource])})
	}))
	t.Cleanup(s.Close)
	return LiveOptions{Kubeconfig: kubeconfig(t, s.URL)}
}

// one answers for a single object, and notes what would be written to it.
func (o *objects) one(w http.ResponseWriter, r *http.Request) bool {
	name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	if r.Method != http.MethodGet {
		body, _ := io.ReadAll(r.Body)
		*o.writes = append(*o.writes, r.Method+" "+name+" "+string(body))
		_, _ = io.WriteString(w, `{"kind":"Any","apiVersion":"any/v1","metadata":{"name":"x"}}`)
		return true
	}
	for _, all := range []any{o.nodes, o.leases, o.pods, o.blocks} {
		for _, item := range generic(all) {
			if meta, _ := item["metadata"].(map[string]any); meta["name"] == name {
				_ = json.NewEncoder(w).Encode(item)
				return true
			}
		}
	}
	w.WriteHeader(http.StatusNotFound)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404, Message: name + " not found"})
	return true
}

// generic gives each item the kind that a client wants to see.
func generic(items any) []map[string]any {
	b, _ := json.Marshal(items)
	var out []map[string]any
	_ = json.Unmarshal(b, &out)
	for _, o := range out {
		o["kind"], o["apiVersion"] = "Any", "any/v1"
	}
	return out
}

func kubeconfig(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {token: t}}]\n"+
		"contexts: [{name: here, context: {cluster: c, user: u}}]\ncurrent-context: here\n", url)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rolledOut is a cluster in which every node has applied what dir says.
func rolledOut(t *testing.T, dir string) *objects {
	t.Helper()
	snap, err := fetch(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	b, _, diags := compile(snap, model.Inventory{})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	o := &objects{}
	for _, n := range b.Nodes {
		o.nodes = append(o.nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels}})
	}
	nb := v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}
	lists := desired.Lists{}
	lists.Nodes.Items = o.nodes
	r, err := desired.Decide(snap, desired.Origin{Bundle: "edge", Revision: "main@sha1:3f2c9d1aaaa"}, lists.World(&nb))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Nodes {
		l := r.Rendered.Layers[n.Name]
		o.plans = append(o.plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: n.Name}, Spec: v1alpha1.NodePlanSpec{Bundle: "edge", Layers: v1alpha1.Layers{Bundle: &l}},
			Status: v1alpha1.NodePlanStatus{Phase: "Applied", Applied: &v1alpha1.AppliedPlan{Revision: l.Revision, Short: l.Short, Digest: l.Digest, Segments: l.Segments}}})
	}
	o.segments = r.Rendered.Segments
	for i, p := range r.Rendered.Peers {
		o.peers = append(o.peers, v1alpha1.FabricPeers{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", p.Fabric, i)}, Spec: p})
	}
	nb.Status.Inventory, nb.Status.Assignments, nb.Status.Version = r.References, r.Assignments, r.Bundle.Version
	nb.Status.RolledOut = &v1alpha1.Revision{Name: "main@sha1:3f2c9d1aaaa", Short: "main@3f2c9d1"}
	o.bundles = []v1alpha1.NetworkBundle{nb}
	return o
}
