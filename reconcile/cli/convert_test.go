package cli

import (
	"bytes"
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
	code = Convert(t.Context(), ConvertOptions{Paths: paths, Dir: dir, Stdin: strings.NewReader(stdin)}, IO{Out: &o, Err: &e})
	return code, dir, o.String(), e.String()
}

const manifest = "apiVersion: danm.io/v1\nkind: DanmNet\nmetadata: {name: a, namespace: ns}\nspec: {NetworkID: a, Options: {host_device: eth0}}\n"

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
