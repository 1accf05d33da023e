package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// convertTo runs convert on paths; the result is in the directory that comes back.
func convertTo(t *testing.T, stdin string, paths ...string) (code int, dir, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	dir = filepath.Join(t.TempDir(), "site")
	code = Convert(t.Context(), ConvertOptions{Paths: paths, Dir: dir, Output: "text", Stdin: strings.NewReader(stdin)}, IO{Out: &o, Err: &e})
	return code, dir, o.String(), e.String()
}

const manifest = "apiVersion: danm.io/v1\nkind: DanmNet\nmetadata: {name: a, namespace: ns}\nspec: {NetworkID: a, Options: {host_device: eth0}}\n"

const (
	policy = "apiVersion: sriovnetwork.openshift.io/v1\nkind: SriovNetworkNodePolicy\nmetadata: {name: p, namespace: op}\nspec: {resourceName: fast, numVfs: 4, nicSelector: {pfNames: [ens1f0]}}\n"
	plugin = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: devices, namespace: kube-system}\ndata:\n  config.json: '{\"resourceList\": [{\"resourceName\": \"fast\", \"selectors\": {}}]}'\n"
)

func TestConvertInput(t *testing.T) {
	list := `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"danm.k8s.io/v1","kind":"ClusterNetwork","metadata":{"name":"b"},"spec":{"NetworkID":"b","Options":{"host_device":"eth0"}}},{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}]}`
	service := "---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: ns, annotations: {danm.io/network: a}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: other}\n"
	for _, r := range []struct {
		name, stdin string
		code        int
		out         string // part of the output
	}{
		{"a manifest", manifest, OK, "1 network, 1 tenant of 1 object\n"},
		{"a list", list, OK, "1 network, 0 tenants of 1 object\n"},
		{"a service", manifest + service, OK, "note: Service ns/s: keeps its annotations"},
		{"an endpoint", manifest + "---\napiVersion: danm.io/v1\nkind: DanmEp\nmetadata: {name: e, namespace: ns}\n", OK, "note: DanmEp ns/e"},
		{"a policy of the operator", policy, OK, "0 networks, 0 tenants, 1 pool of 1 object\n"},
		{"a device plugin's configuration", policy + plugin, OK, "note: ConfigMap kube-system/devices: offers intel.com/fast: write an SRIOVPool"},
		{"another ConfigMap", policy + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n---\nkind: Odd\napiVersion: x/v1\ndata: [1]\n", OK, "1 pool of 1 object\n"},
		{"another kind of the operator", policy + "---\napiVersion: sriovnetwork.openshift.io/v1\nkind: SriovIBNetwork\nmetadata: {name: ib, namespace: op}\nspec: {}\n", OK, "note: SriovIBNetwork op/ib: InfiniBand is not supported"},
		{"a policy that is none", strings.Replace(policy, "numVfs: 4", "numVfs: four", 1), Failed, "standard input, document 1"},
		{"policies that quarrel", policy + "---\n" + strings.NewReplacer("name: p", "name: q", "numVfs: 4", "numVfs: 5").Replace(policy), Invalid, "error[NumVFsDiffer]"},
		{"whose cards a policy may find", policy + "---\n" + strings.NewReplacer("name: p", "name: q", "pfNames: [ens1f0]", `rootDevices: ["0000:3b:00.0"]`).Replace(policy), OK, "may find the cards of p (priorities 0 and 0"},
		{"nothing of ours", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", Failed, "no network"},
		{"a misspelt field", strings.Replace(manifest, "host_device", "host_devise", 1), Failed, "standard input, document 1"},
		{"no YAML", "a: [", Failed, "standard input, document 1"},
		{"what DANM refuses", manifest + "---\napiVersion: danm.io/v1\nkind: TenantConfig\nmetadata: {name: t}\nhostDevices: [{name: e, vniType: vlan}]\n", Invalid, "refused: TenantConfig t"},
		{"what does not validate", strings.Replace(manifest, "host_device: eth0", "host_device: eth0, cidr: 10.0.0.0/24, allocation_pool: {start: 10.1.0.1, end: 10.1.0.2}", 1), Invalid, "error[PoolOutside]"},
	} {
		code, dir, out, errs := convertTo(t, r.stdin, "-")
		if code != r.code || !strings.Contains(out+errs, r.out) {
			t.Errorf("%s: exit %d\n%s%s", r.name, code, out, errs)
		}
		if _, err := os.Stat(dir); (err == nil) != (r.code != Failed) {
			t.Errorf("%s: written: %v", r.name, err == nil)
		}
	}
}

// TestConvertForPrograms: the result as JSON, with resources of an operator that was deployed with another prefix.
func TestConvertForPrograms(t *testing.T) {
	convert := func(prefix, output string) (Converted, string, string, int) {
		var o, e bytes.Buffer
		dir := filepath.Join(t.TempDir(), "site")
		code := Convert(t.Context(), ConvertOptions{Paths: []string{"-"}, Dir: dir, Output: output, ResourcePrefix: prefix, Stdin: strings.NewReader(policy + plugin)}, IO{Out: &o, Err: &e})
		var c Converted
		_ = json.Unmarshal(o.Bytes(), &c)
		return c, dir, e.String(), code
	}
	c, dir, _, code := convert("lab.example", "json")
	if code != OK || !c.Valid || c.Directory != dir || c.Objects != 1 || c.Pools != 1 || len(c.Notes) != 1 || c.Notes[0].Object != "ConfigMap kube-system/devices" || c.Notes[0].Refused {
		t.Errorf("%d %+v", code, c)
	}
	pools, err := os.ReadFile(filepath.Join(dir, "pools.yaml"))
	if err != nil || !strings.Contains(string(pools), "resourceName: lab.example/fast\n") {
		t.Errorf("%v\n%s", err, pools)
	}
	if _, _, errs, code := convert("lab/x", "json"); code != Failed || !strings.Contains(errs, `--resource-prefix "lab/x"`) {
		t.Errorf("%d %s", code, errs)
	}
	if _, _, errs, code := convert("", "yaml"); code != Failed || !strings.Contains(errs, "text or json") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestConvertChangesNoFile(t *testing.T) {
	var o, e bytes.Buffer
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	code := Convert(t.Context(), ConvertOptions{Paths: []string{"-"}, Dir: dir, Output: "text", Stdin: strings.NewReader(manifest)}, IO{Out: &o, Err: &e})
	if entries, _ := os.ReadDir(dir); code != Failed || len(entries) != 1 || !strings.Contains(e.String(), "not empty; convert writes into a new directory") {
		t.Errorf("exit %d, %d entries: %s", code, len(entries), &e)
	}
}

func TestConvertIsBounded(t *testing.T) {
	huge := "#" + strings.Repeat("x", maxManifests)
	if code, _, _, errs := convertTo(t, huge, "-"); code != Failed || !strings.Contains(errs, "over 64 MiB") {
		t.Errorf("exit %d %s", code, errs)
	}
}

// TestConvertCorpus holds every manifest of DANM's own examples to what DANM does with it.
func TestConvertCorpus(t *testing.T) {
	corpus := os.Getenv("DANM_CORPUS")
	if corpus == "" {
		t.Skip("DANM_CORPUS is not set")
	}
	walk := func(names ...string) (out []string) {
		for _, n := range names {
			out = append(out, filepath.Join(corpus, "production-walkthrough", n))
		}
		return out
	}
	for _, r := range []struct {
		name  string
		paths []string
		code  int
		out   string
	}{
		{"vniType without a range", walk("0_wrong_tconf.yaml", "8_external_cnet.yaml"), Invalid, "refused: TenantConfig wrong-tconf"},
		{"a good configuration", walk("1_good_tconf.yaml", "3_chosen_device.yaml"), OK, "1 network, 1 tenant"},
		{"a number outside of the tenant's range", walk("1_good_tconf.yaml", "2_tnet_with_vlan.yaml"), Invalid, "error[IDOutsideRange]"},
		{"a device chosen by DANM", walk("1_good_tconf.yaml", "4_random_device.yaml"), OK, "chose its interface at random"},
		{"a device tenants may not use", walk("1_good_tconf.yaml", "5_wrong_device.yaml"), Invalid, "refused: TenantNetwork default/internal3"},
		{"a static delegate", walk("1_good_tconf.yaml", "6_static_tnet.yaml"), OK, "iknowitbetter.conf on every node"},
		{"cluster networks", walk("7_default_cnet.yaml", "8_external_cnet.yaml"), OK, "2 networks"},
		{"Deployments are no part of it", walk("9_wrong_deployment.yaml", "10_good_deployment.yaml", "11_allowed_default.yaml", "12_not_allowed_default.yaml"), Failed, "no network"},
		{"service discovery", []string{filepath.Join(corpus, "service-discovery")}, OK, "4 networks, 2 tenants"},
	} {
		if code, _, out, errs := convertTo(t, "", r.paths...); code != r.code || !strings.Contains(out+errs, r.out) {
			t.Errorf("%s: exit %d\n%s%s", r.name, code, out, errs)
		}
	}
}
