package deploy

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/status"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/argocd"
)

func healthScript(name string) string {
	return filepath.Join(root, "deploy/argocd/health", name+".lua")
}

// build runs kustomize as the project does, in process.
func build(t *testing.T, dir string) resmap.ResMap {
	t.Helper()
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	must(t, err)
	return out
}

// outcomes are all that a round can end with, for every code that there is, and Argo CD's word for it.
func outcomes() map[string]struct {
	status.Outcome
	want string
} {
	type row = struct {
		status.Outcome
		want string
	}
	out := map[string]row{}
	for _, e := range diag.All() {
		reason, err := string(e.Code), fmt.Errorf("\"%s\": what is %q", e.Code, e.Title)
		for kind, r := range map[string]row{
			"terminal": {status.Outcome{Failure: fail.Of(fail.Terminal(reason, err), "")}, "Degraded"},
			"waiting":  {status.Outcome{Failure: fail.Of(fail.Waiting(reason, time.Second, err), "")}, "Progressing"},
			"failed":   {status.Outcome{Failure: fail.Of(err, reason)}, "Progressing"},
			"progress": {status.Outcome{Progress: reason, Message: e.Title}, "Progressing"},
			"success":  {status.Outcome{Reason: reason, Message: e.Title}, "Healthy"},
		} {
			out[reason+" "+kind] = r
		}
	}
	return out
}

func bundle() *v1alpha1.NetworkBundle {
	return &v1alpha1.NetworkBundle{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindNetworkBundle},
		ObjectMeta: metav1.ObjectMeta{Name: "edge", Generation: 3}}
}

// TestHealthOfBundles: of every reason that there is, in every way a round can end, Argo CD's script and kstatus say the same, and it
// is right; the message is the condition's.
func TestHealthOfBundles(t *testing.T) {
	counted := map[string]int{}
	for name, o := range outcomes() {
		nb := bundle()
		nb.Status.ObservedGeneration = 3
		status.Set(&nb.Status.Conditions, 3, "Fetched", o.want == "Healthy", "X", "an own condition decides nothing")
		status.Conclude(&nb.Status.Conditions, 3, o.Outcome)
		lua, message := judge(t, healthScript("networkbundle"), name, nb, o.want)
		counted[lua]++
		ready := nb.Status.Conditions[1]
		if ready.Type != "Ready" || message != ready.Reason+": "+ready.Message {
			t.Errorf("%s: the message is %q", name, message)
		}
		nb.Generation = 4
		judge(t, healthScript("networkbundle"), name+", an older generation", nb, "Progressing")
		nb.Generation, nb.DeletionTimestamp = 3, &metav1.Time{Time: time.Unix(1, 0)}
		judge(t, healthScript("networkbundle"), name+", being deleted", nb, "Progressing")
	}
	if len(counted) != 3 || counted["Degraded"] < 50 {
		t.Errorf("control: %v", counted)
	}
	t.Logf("judged %v", counted)
}

func judge(t *testing.T, path, name string, object any, want string) (lua, message string) {
	t.Helper()
	lua, message, err := argocd.Health(path, object)
	must(t, err)
	judged, err := argocd.Judge(object)
	must(t, err)
	if lua != want || judged != want {
		t.Errorf("%s: want %s, Argo CD says %s (%s), kstatus %s", name, want, lua, message, judged)
	}
	return lua, message
}

// TestHealthOfBundlesBeyondKstatus: what Argo CD knows and kstatus has no word for.
func TestHealthOfBundlesBeyondKstatus(t *testing.T) {
	fresh := bundle()
	suspended := bundle()
	suspended.Spec.Suspend, suspended.Status.ObservedGeneration = true, 3
	status.Conclude(&suspended.Status.Conditions, 3, status.Outcome{Reason: string(diag.Suspended)})
	gone := suspended.DeepCopy()
	gone.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	halfway := bundle() // conditions without the three: a controller of another version
	halfway.Status.ObservedGeneration = 3
	status.Set(&halfway.Status.Conditions, 3, "Fetched", true, "X", "")
	for want, o := range map[string]*v1alpha1.NetworkBundle{"Progressing fresh": fresh, "Suspended": suspended, "Progressing gone": gone, "Progressing halfway": halfway} {
		got, _, err := argocd.Health(healthScript("networkbundle"), o)
		if err != nil || got != strings.Fields(want)[0] {
			t.Errorf("%s: %s %v", want, got, err)
		}
	}
}

// TestHealthOfNetworks: networks and tenants with conditions are judged by them; kstatus agrees on every outcome.
func TestHealthOfNetworks(t *testing.T) {
	for name, o := range outcomes() {
		net := &danmv1.ClusterNetwork{TypeMeta: metav1.TypeMeta{APIVersion: danmv1.APIVersion, Kind: "ClusterNetwork"}, ObjectMeta: metav1.ObjectMeta{Name: "n", Generation: 2}}
		net.Status.ObservedGeneration = 2
		status.Conclude(&net.Status.Conditions, 2, o.Outcome)
		judge(t, healthScript("network"), name, net, o.want)
		net.Generation = 3
		judge(t, healthScript("network"), name+", an older generation", net, "Progressing")
		tenant := &danmv1.TenantConfig{TypeMeta: metav1.TypeMeta{APIVersion: danmv1.APIVersion, Kind: "TenantConfig"}, ObjectMeta: metav1.ObjectMeta{Name: "t", Generation: 2}}
		tenant.Status.ObservedGeneration = 2
		status.Conclude(&tenant.Status.Conditions, 2, o.Outcome)
		judge(t, healthScript("network"), name+" of a tenant", tenant, o.want)
	}
	judge(t, healthScript("network"), "no conditions", &danmv1.DanmNet{TypeMeta: metav1.TypeMeta{APIVersion: danmv1.APIVersion, Kind: "DanmNet"}, ObjectMeta: metav1.ObjectMeta{Name: "n", Generation: 2}}, "Healthy")
}

var update = flag.Bool("update", false, "write deploy/argocd/argocd-cm-patch.yaml anew")

// scripts are the kinds that Argo CD is to judge.
var scripts = map[string]string{"NetworkBundle": "networkbundle", "NodePlan": "nodeplan", "DanmNet": "network", "TenantNetwork": "network", "ClusterNetwork": "network", "TenantConfig": "network"}

const patchHead = "# Made of health/*.lua by: go test ./test/deploy -run TestArgoCDPatch -update\n"

// TestArgoCDPatch: the patch of argocd-cm has each script under the key that Argo CD looks for, for kinds that exist.
func TestArgoCDPatch(t *testing.T) {
	data := map[string]string{}
	for kind, name := range scripts {
		b, err := os.ReadFile(healthScript(name))
		must(t, err)
		data["resource.customizations.health.danm.io_"+kind] = string(b)
		if _, err := os.Stat(filepath.Join(root, "deploy/crd/danm.io_"+strings.ToLower(kind)+"s.yaml")); err != nil {
			t.Error(err)
		}
	}
	want, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "argocd-cm", "namespace": "argocd"}, "data": data})
	must(t, err)
	path := filepath.Join(root, "deploy/argocd/argocd-cm-patch.yaml")
	if *update {
		must(t, os.WriteFile(path, append([]byte(patchHead), want...), 0o644)) //nolint:gosec // a file of the repository
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if string(got) != patchHead+string(want) {
		t.Errorf("argocd-cm-patch.yaml is stale: %s", patchHead)
	}
}

// TestArgoCDComponent: over an installation of Argo CD the component adds keys, a container and the plugin, and takes nothing away.
func TestArgoCDComponent(t *testing.T) {
	dir := t.TempDir()
	must(t, os.CopyFS(filepath.Join(dir, "danm"), os.DirFS(filepath.Join(root, "deploy/argocd"))))
	must(t, os.WriteFile(filepath.Join(dir, "argocd.yaml"), []byte(argoCD), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: [argocd.yaml]\ncomponents: [danm]\n"), 0o600))
	var cm, plugin struct{ Data map[string]string }
	var server struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct {
						Name         string
						VolumeMounts []struct{ Name string }
					}
					Volumes []struct{ Name string }
				}
			}
		}
	}
	for _, r := range build(t, dir).Resources() {
		into := map[string]any{"argocd-cm": &cm, "danm-plugin": &plugin, "argocd-repo-server": &server}[r.GetName()]
		if into == nil {
			t.Errorf("%s %s is not Argo CD's", r.GetKind(), r.GetName())
			continue
		}
		must(t, yaml.Unmarshal([]byte(r.MustYaml()), into))
	}
	if len(cm.Data) != len(scripts)+1 || cm.Data["url"] == "" || plugin.Data["plugin.yaml"] == "" {
		t.Errorf("%d keys", len(cm.Data))
	}
	pod := server.Spec.Template.Spec
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	if len(pod.Containers) != 2 || len(volumes) != 4 {
		t.Errorf("%+v", pod)
	}
	for _, c := range pod.Containers {
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s mounts %s, which is no volume", c.Name, m.Name)
			}
		}
	}
}

// argoCD is what of an installation of Argo CD the component touches.
const argoCD = `
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

// TestArgoCDPluginManifest: the plugin is one that Argo CD reads, and runs danmctl pack.
func TestArgoCDPluginManifest(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "deploy/argocd/plugin.yaml"))
	must(t, err)
	var plugin struct{ Data map[string]string }
	must(t, yaml.Unmarshal(b, &plugin))
	var cmp struct {
		APIVersion, Kind string
		Metadata         struct{ Name string }
		Spec             struct {
			Version  string
			Generate struct{ Command, Args []string }
		}
	}
	must(t, yaml.UnmarshalStrict([]byte(plugin.Data["plugin.yaml"]), &cmp))
	command := append(cmp.Spec.Generate.Command, cmp.Spec.Generate.Args...)
	if cmp.APIVersion != "argoproj.io/v1alpha1" || cmp.Kind != "ConfigManagementPlugin" || strings.Join(command, " ") != "danmctl pack --argocd" {
		t.Errorf("%+v", cmp)
	}
}

// TestE2EArgoCDPlugin runs what the plugin says as Argo CD does: in the Application's directory of a checkout, with the Application's
// name in the environment. What comes out is ConfigMaps and a NetworkBundle; a broken commit gives nothing but its problem.
func TestE2EArgoCDPlugin(t *testing.T) {
	var app struct {
		Metadata struct{ Name string }
		Spec     struct {
			Source struct {
				Path   string
				Plugin struct {
					Name string
					Env  []struct{ Name, Value string }
				}
			}
			SyncPolicy struct{ SyncOptions []string }
		}
	}
	b, err := os.ReadFile(filepath.Join(root, "deploy/argocd/application.yaml"))
	must(t, err)
	must(t, yaml.Unmarshal(b, &app))
	if o := strings.Join(app.Spec.SyncPolicy.SyncOptions, " "); o != "ServerSideApply=true PruneLast=true" || app.Spec.Source.Plugin.Name != "danm-bundle" {
		t.Errorf("%+v", app)
	}
	checkout := t.TempDir()
	must(t, os.CopyFS(filepath.Join(checkout, app.Spec.Source.Path), os.DirFS(filepath.Join(root, "examples/edge-site"))))
	run := func() (string, string, error) {
		env := []string{"ARGOCD_APP_NAME=" + app.Metadata.Name, "ARGOCD_APP_SOURCE_PATH=" + app.Spec.Source.Path}
		for _, e := range app.Spec.Source.Plugin.Env {
			env = append(env, "ARGOCD_ENV_"+e.Name+"="+e.Value)
		}
		return execute(t, filepath.Join(checkout, app.Spec.Source.Path), env, "danmctl", "pack", "--argocd")
	}
	out, problems, err := run()
	if err != nil {
		t.Fatal(problems)
	}
	kinds := map[string]int{}
	for _, doc := range strings.Split(strings.TrimPrefix(out, "---\n"), "\n---\n") {
		var m struct {
			Kind     string
			Metadata struct{ Name string }
		}
		must(t, yaml.Unmarshal([]byte(doc), &m))
		kinds[m.Kind]++
		if m.Kind == "NetworkBundle" && m.Metadata.Name != app.Metadata.Name {
			t.Errorf("the NetworkBundle is %s", m.Metadata.Name)
		}
	}
	if len(kinds) != 2 || kinds["NetworkBundle"] != 1 || kinds["ConfigMap"] == 0 {
		t.Errorf("%v", kinds)
	}
	must(t, os.WriteFile(filepath.Join(checkout, app.Spec.Source.Path, "broken.yaml"), []byte("apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: x}\nspec: {vlam: 1}\n"), 0o600))
	if out, problems, err := run(); err == nil || out != "" || !strings.Contains(problems, "broken.yaml:4") {
		t.Errorf("%v %q %q", err, out, problems)
	}
}

// TestHealthScriptsFail: a script that answers what Argo CD does not know is noticed.
func TestHealthScriptsFail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lua")
	for _, text := range []string{`return {status = "Fine"}`, `return 1`, `return obj.no.field`, `os.exit(1)`, `while true do end`} {
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if got, _, err := argocd.Health(path, bundle()); err == nil {
			t.Errorf("%s: %s", text, got)
		}
	}
	if _, _, err := argocd.Health("nowhere.lua", bundle()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
