package cluster

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
	"sigs.k8s.io/yaml"
)

func TestMain(m *testing.M) { bed.Main(m) }

// create asks the API server whether it would take a manifest.
func create(t *testing.T, manifest string) (string, error) {
	t.Helper()
	out, err := bed.Shared(t).KubectlInput(nil, manifest, "create", "--dry-run=server", "--validate=strict", "-f", "-")
	return string(out), err
}

// TestClusterCRDsTakeDANMsObjects: real manifests, of every generation, and what DANM itself stores ("" in pools) are accepted
// and come back with every field.
func TestClusterCRDsTakeDANMsObjects(t *testing.T) {
	api := bed.Shared(t)
	files := []string{filepath.Join(bed.Root(), "spec", "danm", "v1", "testdata", "all.yaml")}
	more, _ := filepath.Glob(filepath.Join(bed.Root(), "spec", "danm", "v1", "testdata", "*.yaml"))
	files = append(files, more...)
	if corpus := os.Getenv("DANM_CORPUS"); corpus != "" {
		_ = filepath.WalkDir(corpus, func(p string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(p) == ".yaml" {
				files = append(files, p)
			}
			return nil
		})
	}
	taken := map[string]int{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split("\n"+string(data), "\n---") {
			_, err := danmv1.Decode([]byte(doc))
			if err != nil {
				continue // not of the API
			}
			var m map[string]any
			if err := yaml.Unmarshal([]byte(doc), &m); err != nil {
				t.Fatal(err)
			}
			m["apiVersion"] = danmv1.APIVersion
			delete(m["metadata"].(map[string]any), "namespace")
			text, _ := yaml.Marshal(m)
			out, err := api.KubectlInput(nil, string(text), "create", "--dry-run=server", "--validate=strict", "-o", "yaml", "-f", "-")
			if wrong := filepath.Base(file) == "0_wrong_tconf.yaml"; err != nil || wrong { // DANM's walkthrough has one that its webhook refuses
				if err == nil || !wrong {
					t.Errorf("%s: %s\n%s", file, out, text)
				}
				continue
			}
			kind := m["kind"].(string)
			taken[kind]++
			var back map[string]any
			if err := yaml.Unmarshal(out, &back); err != nil {
				t.Fatal(err)
			}
			for key, value := range m {
				if key == "status" || key == "metadata" {
					continue
				}
				lost(t, file+": "+kind+"."+key, value, back[key])
			}
		}
	}
	for _, kind := range []string{"DanmNet", "TenantNetwork", "ClusterNetwork", "TenantConfig", "DanmEp"} {
		if taken[kind] == 0 {
			t.Errorf("no %s was tried", kind)
		}
	}
}

// lost names every value of want that got does not have.
func lost(t *testing.T, path string, want, got any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		for k, v := range w {
			lost(t, path+"."+k, v, g[k])
		}
	case []any:
		g, _ := got.([]any)
		if len(g) != len(w) {
			t.Errorf("%s: %v became %v", path, want, got)
			return
		}
		for i := range w {
			lost(t, path, w[i], g[i])
		}
	case nil:
	default:
		if want != got {
			t.Errorf("%s: %v became %v", path, want, got)
		}
	}
}

func TestClusterCRDRules(t *testing.T) {
	network := func(kind, spec string) string {
		return "apiVersion: danm.io/v1\nkind: " + kind + "\nmetadata: {name: a}\nspec: " + spec
	}
	bundle := func(spec string) string {
		return "apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: a}\nspec: " + spec
	}
	for _, r := range []struct{ name, manifest, message string }{
		{"empty texts", network("DanmNet", `{NetworkID: "", NetworkType: "", Options: {host_device: "", cidr: "", allocation_pool: {start: "", end: "", lastIp: ""}, net6: "", allocation_pool_v6: {start: "", end: "", lastIp: "", cidr: ""}, alloc: "", rt_tables: 300}}`), ""},
		{"old shape of a tenant config", "apiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: a}\nhostDevices: [{name: ens4, vniType: vlan, vniRange: \"2000-2500,2601\", alloc: \"gA==\"}, {name: nokia.k8s.io/sriov, vniType: \"\", vniRange: \"\"}]\nnetworkIds: {flannel: flannel}", ""},
		{"both ids", network("ClusterNetwork", "{NetworkID: a, Options: {vlan: 3, vxlan: 4}}"), "vlan and vxlan exclude each other"},
		{"vlan 0 and a vni", network("ClusterNetwork", "{NetworkID: a, Options: {vlan: 0, vxlan: 4}}"), ""},
		{"vlan range", network("ClusterNetwork", "{NetworkID: a, Options: {vlan: 4095}}"), "4094"},
		{"both devices", network("DanmNet", "{NetworkID: a, Options: {host_device: a, device_pool: b/c}}"), "host_device and device_pool exclude each other"},
		{"way out of the directory", network("DanmNet", "{NetworkID: ../../etc/x}"), "holds no slash"},
		{"plugin with a path", network("DanmNet", "{NetworkID: a, NetworkType: ../x}"), "holds no slash"},
		{"tenants of a tenant's network", network("TenantNetwork", "{NetworkID: a, AllowedTenants: [b]}"), "AllowedTenants is for ClusterNetworks"},
		{"routes without subnet", network("DanmNet", "{NetworkID: a, Options: {routes: {10.0.0.0/8: 10.1.1.1}}}"), "routes need a cidr"},
		{"unknown field", network("DanmNet", "{NetworkID: a, Options: {vlna: 3}}"), "unknown field"},
		{"half a profile", "apiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: a}\nhostDevices: [{name: a, vniType: vlan}]", "given together"},
		{"unknown type of number", "apiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: a}\nhostDevices: [{name: a, vniType: vni, vniRange: \"1\"}]", "vlan or vxlan"},
		{"malformed range", "apiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: a}\nhostDevices: [{name: a, vniType: vlan, vniRange: \"1..3\"}]", "vniRange"},

		{"git", bundle("{git: {url: https://git.example.org/a.git, ref: {branch: main}, path: sites/a}}"), ""},
		{"config maps", bundle("{configMaps: {namespace: danm-system, selector: {a: b}}}"), ""},
		{"no source", bundle("{}"), "exactly one source"},
		{"two sources", bundle("{git: {url: https://h/a}, configMaps: {namespace: a, selector: {a: b}}}"), "exactly one source"},
		{"file", bundle("{git: {url: file:///etc}}"), "other schemes are refused"},
		{"plain http", bundle("{git: {url: http://h/a}}"), "other schemes are refused"},
		{"password in the URL", bundle("{git: {url: https://bob:secret@h/a}}"), "credentials do not stand in the URL"},
		{"password in an ssh URL", bundle("{git: {url: ssh://bob:secret@h/a}}"), "credentials do not stand in the URL"},
		{"ssh user", bundle("{git: {url: ssh://git@h/a}}"), ""},
		{"two references", bundle("{git: {url: https://h/a, ref: {branch: a, tag: b}}}"), "exactly one of"},
		{"way out", bundle("{git: {url: https://h/a, path: a/../../b}}"), "must stay inside"},
		{"every ConfigMap", bundle("{configMaps: {namespace: a, selector: {}}}"), "selector"},
		{"hot loop", bundle("{git: {url: https://h/a}, interval: 1s}"), "at least 5s"},
	} {
		out, err := create(t, r.manifest)
		switch {
		case r.message == "" && err != nil:
			t.Errorf("%s: refused: %s", r.name, out)
		case r.message != "" && err == nil:
			t.Errorf("%s: accepted", r.name)
		case r.message != "" && !strings.Contains(out, r.message):
			t.Errorf("%s: says %q, not %q", r.name, out, r.message)
		}
	}
}

// TestClusterSegmentsNeverChange: a segment is named by its content.
func TestClusterSegmentsNeverChange(t *testing.T) {
	api := bed.Shared(t)
	const segment = "apiVersion: danm.io/v1alpha1\nkind: PlanSegment\nmetadata: {name: segment-x}\ndata: '%s'\n"
	if out, err := api.KubectlInput(nil, strings.Replace(segment, "%s", "{}", 1), "create", "-f", "-"); err != nil {
		t.Fatalf("%s", out)
	}
	defer func() { _, _ = api.Kubectl(nil, "delete", "plansegment", "segment-x") }()
	if out, err := api.KubectlInput(nil, strings.Replace(segment, "%s", "{\"a\":1}", 1), "replace", "-f", "-"); err == nil || !strings.Contains(string(out), "never changes") {
		t.Errorf("changed: %s", out)
	}
	big := strings.Replace(strings.Replace(segment, "segment-x", "segment-big", 1), "%s", strings.Repeat("x", 512<<10), 1)
	if out, err := create(t, big); err != nil {
		t.Errorf("512 KiB: %.300s", out)
	}
	if _, err := create(t, strings.Replace(big, "'x", "'xx", 1)); err == nil {
		t.Error("more than 512 KiB was accepted")
	}
}

// TestClusterListsSayWhy: whatever is listed with READY is listed with the reason, too.
func TestClusterListsSayWhy(t *testing.T) {
	api := bed.Shared(t)
	for _, kind := range []string{"danmnets", "tenantnetworks", "clusternetworks", "tenantconfigs", "networkbundles"} {
		out, err := api.Kubectl(nil, "get", "crd", kind+".danm.io", "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].jsonPath}")
		if err != nil || !strings.Contains(string(out), `.status.conditions[?(@.type=="Ready")].reason`) {
			t.Errorf("%s: %s", kind, out)
		}
	}
}
