package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/cli"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/test/cluster/bed"
)

// withController runs the controller with its own credentials until the test ends, in a cluster without nodes.
func withController(t *testing.T) *bed.API {
	t.Helper()
	api := bed.Shared(t)
	r := &rig{t: t, api: api}
	r.admin("apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", "lightweight"))
	token := r.admin("create", "token", "-n", "danm-system", "danm-controller")
	m, err := controller.New(api.Config(token), controller.Options{Namespace: "danm-system", CacheDir: t.TempDir(), MetricsAddr: "0", HealthAddr: "0", LeaderElection: true,
		Patience: 3 * time.Second, Addresses: blocks.Options{Linger: 100 * time.Millisecond, Look: time.Second}, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = m.Start(ctx); close(done) }()
	t.Cleanup(func() {
		_, _ = api.Kubectl(nil, "delete", "networkbundle", "--all", "--timeout=20s")
		cancel()
		<-done
		_, _ = api.Kubectl(nil, "delete", "configmap", "-n", "danm-system", "-l", "danm.io/source")
		bed.ReleaseNetworks(t)
		_, _ = api.Kubectl(nil, "delete", "clusternetwork", "--all")
	})
	return api
}

// TestClusterDocuments runs the commands that docs/gitops.md marks, in their order, against a real API server and the controller.
func TestClusterDocuments(t *testing.T) {
	api := withController(t)
	text, err := os.ReadFile(filepath.Join(bed.Root(), "docs", "gitops.md"))
	if err != nil {
		t.Fatal(err)
	}
	programs, err := bed.Programs()
	if err != nil {
		t.Fatal(err)
	}
	config, err := api.Kubeconfig("docs", bed.AdminToken)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)<!-- cluster test -->\n```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks are marked", len(blocks))
	}
	for _, b := range blocks {
		for _, line := range strings.Split(strings.TrimSpace(b[1]), "\n") {
			cmd := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", line)
			cmd.Dir = bed.Root()
			cmd.Env = append(os.Environ(), "PATH="+filepath.Join(bed.Root(), "bin")+":"+programs+":"+os.Getenv("PATH"), "KUBECONFIG="+config, "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", line, err, out)
			}
			t.Logf("$ %s\n%s", line, out)
			if strings.HasPrefix(line, "kubectl get configmaps") && !strings.Contains(string(out), "edge-") {
				t.Errorf("no ConfigMap: %s", out)
			}
		}
	}
	if out, err := api.Kubectl(nil, "get", "networkbundles,configmaps", "-n", "danm-system", "-l", "danm.io/source"); err != nil || !strings.Contains(string(out), "No resources") {
		t.Errorf("left: %s", out)
	}
}

func kustomized(t *testing.T, dir string) string {
	t.Helper()
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := out.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestClusterFlux: what Flux would apply (kustomize in process, server-side apply) is a bundle to the controller, and a change of a file
// is a new revision of it.
func TestClusterFlux(t *testing.T) {
	api := withController(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(bed.Root(), "deploy", "flux"))); err != nil {
		t.Fatal(err)
	}
	minimal, err := os.ReadFile(filepath.Join(bed.Root(), "examples", "minimal", "bundle.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	topology, network, _ := strings.Cut(string(minimal), "---\napiVersion: bundle.danm.io/v1\nkind: Network\n")
	write := func(name, text string) {
		path := filepath.Join(dir, "bundle", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("bundle.yaml", topology)
	revisions := map[string]bool{}
	for i, name := range []string{"lan", "wan"} {
		write("networks/data.yaml", "apiVersion: bundle.danm.io/v1\nkind: Network\n"+strings.ReplaceAll(network, "lan}", name+"}"))
		if out, err := api.KubectlInput(nil, kustomized(t, dir), "apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-"); err != nil {
			t.Fatalf("%s", out)
		}
		var fetched string
		waitFor(t, "a new revision", func() bool {
			out, _ := api.Kubectl(nil, "get", "networkbundle", "edge", "-o", "jsonpath={.status.rendered.name}")
			fetched = string(out)
			return fetched != "" && !revisions[fetched]
		})
		revisions[fetched] = true
		if i == 1 {
			break
		}
	}
	waitFor(t, "the network of the newest revision alone", func() bool {
		out, _ := api.Kubectl(nil, "get", "clusternetworks", "-o", "name")
		return strings.TrimSpace(string(out)) == "clusternetwork.danm.io/wan"
	})
}

// TestClusterPack: what danmctl pack prints is taken by the API server, becomes the bundle, and a second, larger set replaces the first
// while both are there.
func TestClusterPack(t *testing.T) {
	api := withController(t)
	for _, r := range []struct {
		example, network string
		part             int
	}{{"minimal", "clusternetwork.danm.io/lan", 0}, {"site-overlays//sites/porto", "clusternetwork.danm.io/storage", 300}} {
		var out, problems strings.Builder
		o := cli.PackOptions{Path: filepath.Join(bed.Root(), "examples") + "/" + r.example, Name: "packed", Part: r.part}
		if code := cli.Pack(t.Context(), o, cli.IO{Out: &out, Err: &problems}); code != cli.OK {
			t.Fatal(problems.String())
		}
		if got, err := api.KubectlInput(nil, out.String(), "apply", "--server-side", "--validate=strict", "-f", "-"); err != nil {
			t.Fatalf("%s", got)
		}
		maps := strings.Count(out.String(), "kind: ConfigMap")
		var last string
		waitFor(t, r.network, func() bool {
			got, _ := api.Kubectl(nil, "get", "networkbundle", "packed", "-o", "jsonpath={.status.conditions}")
			last = string(got)
			nets, _ := api.Kubectl(nil, "get", "clusternetworks", "-o", "name")
			return strings.Contains(string(nets), r.network)
		})
		t.Logf("%s: %d ConfigMaps; %s", r.example, maps, last)
		if r.part > 0 && maps < 3 {
			t.Errorf("%s is in %d ConfigMaps", r.example, maps)
		}
	}
}

// TestClusterArgoCDKeepsWhatIsThere: the commands that deploy/argocd names add to Argo CD's own objects and take nothing away, in
// whichever way Argo CD was installed.
func TestClusterArgoCDKeepsWhatIsThere(t *testing.T) {
	r := &rig{t: t, api: bed.Shared(t)}
	text, err := os.ReadFile(filepath.Join(bed.Root(), "deploy", "argocd", "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^#   kubectl (.*)(deploy/argocd/\S+)$`).FindAllStringSubmatch(string(text), -1)
	if len(commands) != 3 {
		t.Fatalf("it names %d commands", len(commands))
	}
	t.Cleanup(func() { _, _ = r.api.Kubectl(nil, "delete", "namespace", "argocd", "--wait=false") })
	_, _ = r.api.Kubectl(nil, "create", "namespace", "argocd")
	for i, install := range [][]string{{"apply"}, {"apply", "--server-side"}, {"create"}} {
		_, _ = r.api.Kubectl(nil, "delete", "configmap,deployment", "--all", "-n", "argocd")
		r.admin(append(install, "-f", r.file(installedArgoCD))...)
		for _, c := range commands {
			r.admin(append(strings.Fields(c[1]), filepath.Join(bed.Root(), c[2]))...)
		}
		cm := r.admin("get", "configmap", "argocd-cm", "-n", "argocd", "-o", "jsonpath={.data}")
		for _, want := range []string{`"url":"https://argocd.example.org"`, "resource.customizations.health.danm.io_NetworkBundle", "resource.customizations.health.danm.io_NodePlan"} {
			if !strings.Contains(cm, want) {
				t.Errorf("installed in way %d: argocd-cm has no %s: %.100s", i, want, cm)
			}
		}
		got := r.admin("get", "deployment", "argocd-repo-server", "-n", "argocd", "-o", "jsonpath={.spec.template.spec.containers[*].name} {.spec.template.spec.volumes[*].name}")
		if len(strings.Fields(got)) != 6 {
			t.Errorf("installed in way %d: the repository server has %s", i, got)
		}
		r.admin("get", "configmap", "danm-plugin", "-n", "argocd")
	}
}

const installedArgoCD = `
apiVersion: v1
kind: ConfigMap
metadata: {name: argocd-cm, namespace: argocd, labels: {app.kubernetes.io/part-of: argocd}}
data: {url: https://argocd.example.org}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: argocd-repo-server, namespace: argocd}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers: [{name: argocd-repo-server, image: x}]
      volumes: [{name: var-files, emptyDir: {}}, {name: plugins, emptyDir: {}}]
`

// TestClusterOverlaysServe: every object of each overlay is taken by the API server with strict validation, and they differ only where
// they say so.
func TestClusterOverlaysServe(t *testing.T) {
	api := bed.Shared(t)
	for _, overlay := range []string{"lightweight", "production"} {
		text := kustomized(t, filepath.Join(bed.Root(), "deploy", "overlays", overlay))
		_, _ = api.Kubectl(nil, "create", "namespace", "danm-system")
		if out, err := api.KubectlInput(nil, text, "apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-"); err != nil {
			t.Errorf("%s: %s", overlay, out)
		}
		if n := strings.Count(fmt.Sprintln(text), "\nkind: ValidatingAdmissionPolicyBinding\n"); n != 2 { // of nodes, and of tenants
			t.Errorf("%s binds %d policies", overlay, n)
		}
	}
}
