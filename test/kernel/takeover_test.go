package kernel

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/reconcile/cli"
	"danm.io/danm/render"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/validate"
)

// danmObjects are networks as DANM's users have them in their clusters.
const danmObjects = `
apiVersion: danm.io/v1
kind: ClusterNetwork
metadata: {name: internal}
spec:
  NetworkID: internal
  NetworkType: ipvlan
  Options: {host_device: eth0, vlan: 310, cidr: 10.1.0.0/24, container_prefix: int}
---
apiVersion: danm.io/v1
kind: DanmNet
metadata: {name: media, namespace: acme}
spec:
  NetworkID: media
  NetworkType: macvlan
  Options: {host_device: eth0, vxlan: 70500, cidr: 10.2.0.0/24, container_prefix: med}
`

// installersBond is what the administrator declares besides: the bond that the installer of the machine made.
const installersBond = `
apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: bond}
spec:
  groups:
  - name: bonded
    interfaces:
    - {name: eth1}
    - {name: eth2}
    bonds:
    - {name: bond0, mode: 802.3ad, ports: [eth1, eth2], miiMonitor: 100}
    vlans:
    - {name: bond0.20, device: bond0, id: 20, addresses: [198.51.100.7/24]}
`

// asDANM makes the links as DANM's netwatcher does, and the bond as an installer does.
var asDANM = []string{
	"addr add 192.0.2.10/24 dev eth0",
	"link add link eth0 name internal.310 type vlan id 310",
	"link set internal.310 up",
	"link add vx_media type vxlan id 70500 dev eth0 dstport 4789 group 239.1.19.100 local 192.0.2.10 learning l2miss l3miss",
	"link set vx_media up",
	"link add bond0 type bond mode 802.3ad miimon 100 xmit_hash_policy layer3+4",
	"link set eth1 down", "link set eth1 master bond0", "link set eth2 down", "link set eth2 master bond0",
	"link set bond0 up",
	"link add link bond0 name bond0.20 type vlan id 20",
	"addr add 198.51.100.7/24 dev bond0.20",
	"link set bond0.20 up",
	"route add 203.0.113.0/24 via 198.51.100.1",
}

// TestKernelTakesOver: DANM's objects are converted, the installer's bond is declared, and the plan of a node that has both
// live is empty; nothing changes when they are taken over, and nothing when they are released.
func TestKernelTakesOver(t *testing.T) {
	r := newReal(t)
	for _, kind := range []string{"vlan", "bond"} {
		if !r.knows(kind) {
			t.Skip("kernel lacks " + kind)
		}
	}
	for _, name := range []string{"eth0", "eth1", "eth2"} {
		must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: 1500, Up: true}, KernelKind: "veth"}))
	}
	for _, command := range asDANM {
		must(t, r.ns.Do(func() error {
			out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
			if err != nil {
				t.Errorf("ip %s: %s", command, out)
			}
			return err
		}))
	}
	x := &run{t: t, host: r, ledger: map[plan.ObjectID]plan.Record{}, desired: plan.Desired{Plan: convertedPlan(t)}}
	before := r.atRest(t)
	p := plan.Diff(x.desired, x.observe())
	if len(p.Steps)+len(p.Blocked) > 0 {
		t.Fatalf("live links are not taken over as they are:\n%s", p.Text())
	}
	for _, want := range []plan.ObjectID{"link/internal.310", "link/vx_media", "link/bond0", "link/bond0.20", "address/bond0.20/198.51.100.7/24"} {
		found := false
		for _, c := range p.Claims {
			found = found || c.ID == want && c.Prior == "adopted"
		}
		if !found {
			t.Errorf("%s is not claimed as adopted: %v", want, p.Claims)
		}
	}
	for _, c := range p.Claims {
		x.ledger[c.ID] = c
	}
	if again := plan.Diff(x.desired, x.observe()); !again.Empty() {
		t.Errorf("not at rest: %+v", again)
	}
	x.desired = plan.Desired{}
	if p = plan.Diff(x.desired, x.observe()); len(p.Steps)+len(p.Blocked) > 0 || len(p.Released) != len(x.ledger) {
		t.Errorf("released:\n%s%v of %v", p.Text(), p.Released, x.ledger)
	}
	must(t, diff(before, r.everything(t)))
}

// atRest is everything once the kernel has given the links their own addresses.
func (r real) atRest(t *testing.T) string {
	t.Helper()
	for range 15 {
		before := r.everything(t)
		time.Sleep(2500 * time.Millisecond) // duplicate address detection takes two seconds at most (RFC 4862, section 5.4)
		if before == r.everything(t) {
			return before
		}
	}
	t.Fatal("the kernel does not come to rest")
	return ""
}

// convertedPlan is the plan of a node of the converted bundle.
func convertedPlan(t *testing.T) model.NodePlan {
	t.Helper()
	manifests, dir := filepath.Join(t.TempDir(), "danm.yaml"), filepath.Join(t.TempDir(), "bundle")
	must(t, os.WriteFile(manifests, []byte(danmObjects), 0o600))
	var said bytes.Buffer
	if code := cli.Convert(context.Background(), cli.ConvertOptions{Paths: []string{manifests}, Dir: dir, Name: "site", Output: "text"}, cli.IO{Out: &said, Err: &said}); code != cli.OK {
		t.Fatal(said.String())
	}
	must(t, os.WriteFile(filepath.Join(dir, "bond.yaml"), []byte(installersBond), 0o600))
	var files []decode.File
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files = append(files, decode.File{Path: filepath.Base(path), Data: data})
		return err
	}))
	b, diags := validate.Files(files)
	result := render.Render(b, model.Inventory{Nodes: []model.Node{{Name: "n", Slot: -1}}})
	if diags.HasErrors() || result.Diagnostics.HasErrors() || len(result.Nodes) != 1 {
		t.Fatal(diags, result.Diagnostics)
	}
	return result.Nodes[0].Plan
}
