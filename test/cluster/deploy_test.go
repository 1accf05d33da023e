package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/test/cluster/bed"
)

// TestClusterDeploy applies the overlays to a real API server, and tries what each program's credentials may do.
func TestClusterDeploy(t *testing.T) {
	api := bed.Shared(t)
	for _, overlay := range []string{"lightweight", "production"} {
		if out, err := api.Kubectl(nil, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", overlay)); err != nil {
			t.Fatalf("%s: %s", overlay, out)
		}
	}
	for _, n := range []string{"n1", "n2"} {
		if out, err := api.KubectlInput(nil, "apiVersion: v1\nkind: Node\nmetadata: {name: "+n+"}\n---\napiVersion: danm.io/v1alpha1\nkind: NodePlan\nmetadata: {name: "+n+"}\nspec: {bundle: b}\n", "apply", "-f", "-"); err != nil {
			t.Fatalf("%s", out)
		}
	}
	t.Cleanup(func() { _, _ = api.Kubectl(nil, "delete", "nodeplan,node", "n1", "n2") })
	token := func(args ...string) string {
		out, err := api.Kubectl(nil, append([]string{"create", "token", "-n", "danm-system"}, args...)...)
		if err != nil {
			t.Fatalf("%s", out)
		}
		return strings.TrimSpace(string(out))
	}
	onN1 := token("danm-node", "--bound-object-kind", "Node", "--bound-object-name", "n1")
	nowhere := token("danm-node")
	controller := token("danm-controller")
	// The policy is enforced a moment after it is stored: wait until it refuses what nobody may.
	try := func(token string, args ...string) (string, error) {
		out, err := api.KubectlAs(token, args...)
		return string(out), err
	}
	status := func(node string) []string {
		return []string{"patch", "nodeplan", node, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Applied"}}`}
	}
	update := func(node string) []string {
		return []string{"replace", "--raw", "/apis/danm.io/v1alpha1/nodeplans/" + node + "/status", "-f", statusFile(t, api, node)}
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if out, err := try(onN1, update("n2")...); err != nil && strings.Contains(out, "its own NodePlan only") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a node may write another node's status")
		}
	}
	for _, r := range []struct {
		name, token string
		args        []string
		may         bool
	}{
		{"a node reads plans", onN1, []string{"get", "nodeplans"}, true},
		{"a node reads segments and peers", onN1, []string{"get", "plansegments,fabricpeers"}, true},
		{"a node writes another's status", onN1, update("n2"), false},
		{"a token of no node", nowhere, update("n1"), false},
		{"a node writes its own status", onN1, update("n1"), true},
		{"a node patches", onN1, status("n1"), false},
		{"a node changes its own plan", onN1, []string{"patch", "nodeplan", "n1", "--type=merge", "-p", `{"spec":{"teardown":true}}`}, false},
		{"a node deletes its plan", onN1, []string{"delete", "nodeplan", "n1"}, false},
		{"a node reads Secrets", onN1, []string{"get", "secrets", "-n", "danm-system"}, false},
		{"a node reads bundles", onN1, []string{"get", "networkbundles"}, false},
		{"a node makes networks", onN1, []string{"create", "-f", networkFile(t)}, false},
		{"the controller reads bundles", controller, []string{"get", "networkbundles"}, true},
		{"the controller makes networks", controller, []string{"create", "-f", networkFile(t)}, true},
		{"the controller lists Secrets", controller, []string{"get", "secrets", "-n", "danm-system"}, false},
		{"the controller reads Secrets elsewhere", controller, []string{"get", "secret", "x", "-n", "default"}, false},
		{"the controller reads ConfigMaps elsewhere", controller, []string{"get", "configmaps", "-n", "default"}, false},
		{"the controller writes a node's status", controller, status("n1"), false},
		{"the controller changes nodes", controller, []string{"label", "node", "n1", "a=b"}, false},
		{"the controller makes Pods", controller, []string{"run", "x", "--image=x", "-n", "danm-system"}, false},
	} {
		out, err := try(r.token, r.args...)
		if r.may && err != nil {
			t.Errorf("%s: refused: %s", r.name, out)
		}
		if !r.may && (err == nil || !strings.Contains(out, "orbidden") && !strings.Contains(out, "its own NodePlan only")) {
			t.Errorf("%s: %v %s", r.name, err, out)
		}
	}
	_, _ = api.Kubectl(nil, "delete", "clusternetwork", "made-by-test")
}

func networkFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "network.yaml")
	if err := os.WriteFile(path, []byte("apiVersion: danm.io/v1\nkind: ClusterNetwork\nmetadata: {name: made-by-test}\nspec: {NetworkID: a}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// statusFile is the plan as it stands, with a status to put.
func statusFile(t *testing.T, api *bed.API, node string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "status.json")
	text := `{"apiVersion":"danm.io/v1alpha1","kind":"NodePlan","metadata":{"name":"` + node + `","resourceVersion":"VERSION"},"spec":{"bundle":"b"},"status":{"phase":"Applied"}}`
	version, err := api.Kubectl(nil, "get", "nodeplan", node, "-o", "jsonpath={.metadata.resourceVersion}")
	if err != nil {
		t.Fatalf("%s", version)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text, "VERSION", string(version), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
