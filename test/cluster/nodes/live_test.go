//go:build linux

package nodes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/reconcile/cli"
)

// danmctl runs the program on the control plane's host, with a kubeconfig; exit code and both outputs.
func (s *site) danmctl(args ...string) (code int, out, errs string) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "danmctl"), args...)
	cmd.Env = append(os.Environ(), "HOME="+s.dir, "KUBECONFIG=")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := s.cp.Start(cmd)
	s.must(err)
	<-p.Exited
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// viewer is the kubeconfig of somebody who has danm-viewer and nothing else.
func (s *site) viewer() string {
	s.kubectl("create", "serviceaccount", "looker", "-n", "danm-system")
	s.kubectl("create", "clusterrolebinding", "looker", "--clusterrole", "danm-viewer", "--serviceaccount", "danm-system:looker")
	return s.credentials("looker")
}

// documents are a bundle's files: an MTU of the fabric's device, routes, and networks by name with what they say.
func documents(mtu int, routes string, networks map[string]string) map[string]string {
	out := map[string]string{
		"bundle.yaml": "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {confirmTimeout: 5s, rollout: {soak: 0s, maxUnavailable: 1, onFailure: Revert}}\n",
		"topology.yaml": fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: site}\nspec:\n  groups:\n  - name: all\n    selector: {role: edge}\n"+
			"    interfaces: [{name: eth9, mtu: %d, addresses: [172.30.0.1/24]}]\n    routes: [%s]\n  fabrics:\n"+
			"  - {name: f, groups: [all], device: eth9, vniRanges: [\"100-199\"], vxlan: {port: 4789, multicast: 239.1.1.1}}\n", mtu, routes),
		"tenant.yaml": "apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {namespaces: [acme]}\n",
	}
	for name, spec := range networks {
		out[name+".yaml"] = fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: %s, namespace: acme}\nspec: %s\n", name, spec)
	}
	return out
}

// working is the files as a directory, before anybody commits them.
func (s *site) working(files map[string]string) string {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, text := range files {
		s.must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// push commits the files: the ConfigMap that the NetworkBundle reads.
func (s *site) push(files map[string]string) {
	s.t.Helper()
	manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: edge, namespace: danm-system, labels: {bundle: edge}}\ndata:\n"
	for _, name := range slices.Sorted(maps.Keys(files)) {
		manifest += "  " + name + ": |\n    " + strings.ReplaceAll(strings.TrimSpace(files[name]), "\n", "\n    ") + "\n"
	}
	s.apply(manifest)
}

// versions are the resourceVersions of everything that a diff reads, and of what it might write.
func (s *site) versions() string {
	return s.kubectl("get", "networkbundles,nodeplans,plansegments,fabricpeers,tenantconfigs,tenantnetworks,clusternetworks,configmaps,nodes", "-A",
		"-o", "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,V:.metadata.resourceVersion", "--no-headers")
}

// atRest waits until nothing is written any more, and returns what says so: loops have their words on networks a moment after a rollout.
func (s *site) atRest(versions func() string) (now string) {
	s.t.Helper()
	now = versions()
	s.until("at rest", time.Minute, func() bool {
		last := now
		time.Sleep(2 * time.Second)
		now = versions()
		return now == last
	})
	return now
}

// journal is the newest confirmed transaction of a node's guard, as its state directory tells it.
func (s *site) journal(name string) guard.Transaction {
	s.t.Helper()
	var st cli.NodeStatus
	code, out, errs := s.danmctl("status", "--state-dir", s.state(name), "-o", "json")
	if code != 0 {
		s.t.Fatal(errs)
	}
	s.must(json.Unmarshal([]byte(out), &st))
	if st.Guard == nil || st.Guard.Confirmed == nil {
		s.t.Fatalf("%s: the guard has confirmed nothing: %s", name, out)
	}
	return *st.Guard.Confirmed
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestClusterLiveDiffIsWhatGuardsDo: what danmctl diff --live says before a commit is, step by step as JSON, what the guards of both
// nodes have in their journals after it, commit after commit. It reads with danm-viewer alone and writes nothing.
func TestClusterLiveDiffIsWhatGuardsDo(t *testing.T) {
	s := newSite(t)
	viewer := s.viewer()
	live := []string{"--live", "--kubeconfig", viewer}
	voice, data := "{type: macvlan, fabric: f, vxlan: auto}", "{type: ipvlan, fabric: f, vxlan: auto}"
	first := documents(1400, "", map[string]string{"voice": voice})

	// Before there is any NetworkBundle: what the first would do, with the number it will get.
	code, out, errs := s.danmctl(append([]string{"diff", s.working(first)}, live...)...)
	if code != 1 || !strings.Contains(out, "vxlan 100 on fabric f") || !strings.Contains(out, "has no plan yet") {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	s.push(first)
	s.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n")
	s.until("rolled out", time.Minute, s.rolledOut(""))

	route := "{to: 198.51.100.0/24, via: 172.30.0.9}"
	compared := 0
	for _, c := range []struct {
		name  string
		files map[string]string
		says  string // in the text
	}{
		{"a new network", documents(1400, "", map[string]string{"voice": voice, "data": data}), "vxlan 101 on fabric f"},
		{"another MTU", documents(1300, "", map[string]string{"voice": voice, "data": data}), "1400 -> 1300"},
		{"a route more", documents(1300, route, map[string]string{"voice": voice, "data": data}), "198.51.100.0/24"},
		{"a network of two gone, another instead", documents(1300, route, map[string]string{"data": data, "bulk": voice}), "- acme/voice"},
		{"everything undone", documents(1400, "", map[string]string{"data": data}), "- acme/bulk"},
	} {
		before := s.bundle().Status.RolledOut.Name
		dir, versions := s.working(c.files), s.atRest(s.versions)
		code, text, errs := s.danmctl(append([]string{"diff", dir}, live...)...)
		if code != 1 || errs != "" || !strings.Contains(text, c.says) {
			t.Fatalf("%s: exit code %d, no %q in:\n%s%s", c.name, code, c.says, text, errs)
		}
		code, out, errs := s.danmctl(append([]string{"diff", dir, "-o", "json"}, live...)...)
		if code != 1 || errs != "" {
			t.Fatalf("%s: exit code %d: %s", c.name, code, errs)
		}
		if now := s.versions(); now != versions {
			t.Errorf("%s: a diff has written something:\n%s\nwas\n%s", c.name, now, versions)
		}
		var d cli.Difference
		s.must(json.Unmarshal([]byte(out), &d))
		if len(d.Nodes) != 2 || d.Total != 2 {
			t.Fatalf("%s: %d of %d nodes: %s", c.name, len(d.Nodes), d.Total, out)
		}
		s.push(c.files)
		s.until("rolled out: "+c.name, time.Minute, s.rolledOut(before))
		for _, n := range d.Nodes {
			tx := s.journal(n.Node)
			if tx.Revision != s.bundle().Status.RolledOut.Name {
				t.Errorf("%s: the journal of %s speaks of %s", c.name, n.Node, tx.Revision)
			}
			if said, did := asJSON(t, n.Plan.Steps), asJSON(t, tx.Steps); said != did {
				t.Errorf("%s: node %s was said to do\n%s\nand did\n%s", c.name, n.Node, said, did)
			}
			compared += len(tx.Steps)
		}
		if code, out, _ := s.danmctl(append([]string{"diff", dir}, live...)...); code != 0 || !strings.Contains(out, "no differences") {
			t.Errorf("%s: after it, exit code %d: %s", c.name, code, out)
		}
	}
	if compared < 20 {
		t.Errorf("only %d steps compared", compared)
	}
	t.Logf("%d steps said before five commits are those that two guards did", compared)
	s.readsWell(live)
}

// readsWell: kubectl's columns and danmctl status --live say the same, as the sample in docs/operations.md.
func (s *site) readsWell(live []string) {
	s.t.Helper()
	table := s.kubectl("get", "networkbundles,nodeplans")
	for _, want := range []string{
		`(?m)^NAME +READY +STATUS +FETCHED +ROLLED OUT +NODES +AGE$`, `(?m)^networkbundle\.danm\.io/edge +True +RolledOut +configmaps@[0-9a-f]{7} +configmaps@[0-9a-f]{7} +2/2 +\d+[ms]`,
		`(?m)^NAME +DESIRED +APPLIED +STATUS +REASON +DRIFT +AGE$`, `(?m)^nodeplan\.danm\.io/n1 +[0-9a-f]{7} +[0-9a-f]{7} +Applied +0 +\d+[ms]`,
	} {
		if !regexp.MustCompile(want).MatchString(table) {
			s.t.Errorf("no %s in\n%s", want, table)
		}
	}
	code, out, errs := s.danmctl(append([]string{"status"}, live...)...)
	for _, want := range []string{`(?m)^edge +True +RolledOut +configmaps@[0-9a-f]{7} +configmaps@[0-9a-f]{7} +2/2`, `(?m)^n2 +[0-9a-f]{7} +[0-9a-f]{7} +Applied +0`} {
		if code != 0 || !regexp.MustCompile(want).MatchString(out) {
			s.t.Errorf("status: exit code %d, no %s in\n%s%s", code, want, out, errs)
		}
	}
	s.t.Logf("\n%s\n%s", table, out)
}

// TestClusterRetry: a quarantined plan is listed with what lifts it; a viewer may not, who may is heard, and the plan is tried again.
func TestClusterRetry(t *testing.T) {
	s := newSite(t)
	viewer := s.viewer()
	admin, err := s.api.Kubeconfig("admin", "admintoken")
	s.must(err)
	s.push(documents(1400, "", nil))
	s.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n")
	s.until("rolled out", time.Minute, s.rolledOut(""))
	bad := documents(1400, "{to: "+apiAddress+"/32, dev: eth9}", nil) // the way to the API server leads into the fabric
	s.push(bad)
	s.until("quarantined", 90*time.Second, s.ready("RevisionQuarantined"))
	s.until("back on both nodes", 30*time.Second, func() bool { return s.bundle().Status.Nodes == "2/2" })
	q := s.bundle().Status.Quarantined[0]
	code, out, _ := s.danmctl("status", "--kubeconfig", viewer)
	if code != 1 || !strings.Contains(out, "danmctl retry --live --bundle edge "+q.Digest) {
		t.Errorf("%d %s", code, out)
	}
	if code, out, errs := s.danmctl("diff", s.working(bad), "--kubeconfig", viewer); code != 1 || !strings.Contains(out, "quarantined: node n1 undid this plan") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if code, _, errs := s.danmctl("retry", "--kubeconfig", viewer, q.Digest); code != 2 || !strings.Contains(errs, "patch of networkbundles") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := s.danmctl("retry", "--kubeconfig", admin, "sha256:"+strings.Repeat("0", 64)); code != 2 || !strings.Contains(errs, "status --live") {
		t.Errorf("%d %s", code, errs)
	}
	rollouts := s.bundle().Status.Rollout.Number
	tried := func() int {
		var st cli.NodeStatus
		_, out, _ := s.danmctl("status", "--state-dir", s.state("n1"), "-o", "json")
		s.must(json.Unmarshal([]byte(out), &st))
		if st.Guard.Undone == nil {
			return 0
		}
		return int(st.Guard.Undone.At.Unix())
	}
	was := tried()
	code, out, errs := s.danmctl("retry", "--kubeconfig", admin, "--bundle", "edge")
	if code != 0 || !strings.Contains(out, "edge may be tried again: "+q.Digest) {
		t.Fatalf("%d %s %s", code, out, errs)
	}
	s.until("tried again", 90*time.Second, func() bool { return tried() > was })
	t.Logf("rollout %d was tried again and undone again", rollouts)
}
