//go:build linux

package nodes

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/reconcile/cli"
	"danm.io/danm/test/gitserver"
)

// gitSite is a site whose bundle comes from a Git server beside the control plane.
type gitSite struct {
	*site
	repo *gitserver.Repo
	url  string
}

func newGitSite(t *testing.T) *gitSite {
	t.Helper()
	g := &gitSite{site: newSite(t)}
	root := filepath.Join(g.dir, "git")
	var err error
	g.repo, err = gitserver.InitBare(filepath.Join(root, "site.git"))
	g.must(err)
	var l net.Listener
	g.must(g.cp.Do(func() error { l, err = net.Listen("tcp", apiAddress+":0"); return err }))
	server, err := gitserver.Start(gitserver.Options{Listener: l, Root: root})
	g.must(err)
	t.Cleanup(func() { _ = server.Close() })
	g.url = server.URL + "/site.git"
	ca := filepath.Join(g.dir, "git-ca.pem")
	g.must(os.WriteFile(ca, server.CAPEM, 0o600))
	g.kubectl("create", "secret", "generic", "git", "-n", "danm-system", "--from-file=ca.crt="+ca)
	return g
}

// push is a commit to the branch that the cluster follows; the revision as statuses have it.
func (g *gitSite) push(message string, files map[string]string) string {
	g.t.Helper()
	id, err := g.repo.Commit("main", message, files)
	g.must(err)
	g.kubectl("annotate", "networkbundle", "edge", "--overwrite", "reconcile.danm.io/requestedAt="+time.Now().Format(time.RFC3339Nano))
	return "main@sha1:" + id
}

// dumps are links, addresses, routes and rules of both nodes.
func (g *gitSite) dumps() string {
	g.t.Helper()
	out := ""
	for _, name := range []string{"n1", "n2"} {
		d, err := g.nodes[name].Dump()
		g.must(err)
		out += name + "\n" + d
	}
	return out
}

// others are the resourceVersions of what a revision that does not last must not touch: everything but bundle and plans.
func (g *gitSite) others() string {
	return g.kubectl("get", "fabricpeers,tenantconfigs,tenantnetworks,clusternetworks,danmnets,nodes", "-A",
		"-o", "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,V:.metadata.resourceVersion", "--no-headers")
}

// TestClusterCommitsFromGit: commits to a Git server roll through the waves to two kernels, as danmctl said they would; an invalid
// commit and one that cuts nodes off leave everything as it was; a network made with kubectl is there beside the bundle's.
func TestClusterCommitsFromGit(t *testing.T) {
	g := newGitSite(t)
	live := []string{"--live", "--kubeconfig", g.viewer(), "-o", "json"}
	files := documents(1400, "", map[string]string{"voice": "{type: macvlan, fabric: f, vxlan: auto}"})
	g.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 10m, git: {url: " + g.url + ", ref: {branch: main}, secretRef: {name: git}}}\n")
	first := g.push("first", files)
	g.until("rolled out", time.Minute, g.rolledOut(""))
	if b := g.bundle(); b.Status.RolledOut.Name != first || b.Status.Rollout.Wave != 2 {
		t.Fatalf("%+v", b.Status)
	}

	g.apply("apiVersion: danm.io/v1\nkind: DanmNet\nmetadata: {name: own, namespace: acme}\nspec: {NetworkID: own, NetworkType: macvlan, Options: {host_device: eth9, vxlan: 150}}\n")
	for name, ns := range g.nodes {
		g.until("a DanmNet's link on "+name, 30*time.Second, func() bool { return ns.LinkMTU("vx_own") == 1350 })
	}

	second := documents(1400, "{to: 198.51.100.0/24, via: 172.30.0.9}", map[string]string{"voice": "{type: macvlan, fabric: f, vxlan: auto}", "data": "{type: macvlan, fabric: f, vxlan: auto}"})
	code, out, errs := g.danmctl(append([]string{"diff", g.working(second)}, live...)...)
	if code != 1 {
		t.Fatalf("diff: exit code %d: %s", code, errs)
	}
	var d cli.Difference
	g.must(json.Unmarshal([]byte(out), &d))
	rolled := g.push("second", second)
	g.until("rolled out", time.Minute, g.rolledOut(first))
	if len(d.Nodes) != 2 || g.bundle().Status.RolledOut.Name != rolled {
		t.Fatalf("%+v", d)
	}
	for _, n := range d.Nodes {
		if said, did := asJSON(t, n.Plan.Steps), asJSON(t, g.journal(n.Node).Steps); said != did || len(n.Plan.Steps) == 0 {
			t.Errorf("node %s was said to do\n%s\nand did\n%s", n.Node, said, did)
		}
	}
	for name, ns := range g.nodes {
		if ns.LinkMTU("vx_own") != 1350 || ns.LinkMTU("vx_data") != 1350 {
			t.Errorf("%s: vx_own %d, vx_data %d", name, ns.LinkMTU("vx_own"), ns.LinkMTU("vx_data"))
		}
	}

	plans := func() string {
		return g.kubectl("get", "nodeplans", "-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}")
	}
	g.atRest(func() string { return plans() + g.others() })
	before, told, objects := g.dumps(), plans(), g.others()
	bad := documents(1200, "", map[string]string{"voice": "{type: macvlan, fabrik: f, vxlan: auto}"})
	g.push("misspelt", bad)
	g.until("refused", 30*time.Second, g.ready("BundleInvalid"))
	if now := g.dumps(); now != before {
		t.Errorf("an invalid commit changed\n%s\nto\n%s", before, now)
	}
	if plans() != told || g.others() != objects {
		t.Errorf("an invalid commit wrote\n%s%s\nwas\n%s%s", plans(), g.others(), told, objects)
	}
	if text := fmt.Sprint(g.bundle().Status.Diagnostics); !strings.Contains(text, "voice.yaml:4") || !strings.Contains(text, "fabrik") {
		t.Errorf("the diagnostics are %s", text)
	}

	cutting := documents(1400, "{to: "+apiAddress+"/32, dev: eth9}", map[string]string{"voice": "{type: macvlan, fabric: f, vxlan: auto}", "data": "{type: macvlan, fabric: f, vxlan: auto}"})
	g.push("cutting", cutting)
	g.until("quarantined", 90*time.Second, g.ready("RevisionQuarantined"))
	g.until("back on both nodes", 30*time.Second, func() bool { return g.bundle().Status.Nodes == "2/2" })
	if now := g.dumps(); now != before {
		t.Errorf("a commit that cut nodes off left\n%s\nwas\n%s", now, before)
	}
	if g.others() != objects {
		t.Errorf("a commit that cut nodes off wrote\n%s\nwas\n%s", g.others(), objects)
	}
	b := g.bundle()
	if b.Status.RolledOut.Name != rolled || len(b.Status.Quarantined) != 1 {
		t.Errorf("%+v", b.Status)
	}
	third := g.push("back", second)
	g.until("the same plans under a new commit", 30*time.Second, func() bool { b := g.bundle(); return b.Status.RolledOut.Name == third && g.ready("RolledOut")() })
	g.until("no node that still speaks of it", 30*time.Second, func() bool { return g.plan("n1").Status.Phase == "Applied" && g.plan("n1").Status.Refused == nil })
	t.Logf("\n%s", g.kubectl("get", "networkbundles,nodeplans,danmnets,tenantnetworks", "-A"))
}
