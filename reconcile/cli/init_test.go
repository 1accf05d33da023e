package cli

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/model"
)

// randomHost has interfaces of every sort under strange names.
func randomHost(r *rand.Rand) plan.Observed {
	var o plan.Observed
	names := []string{"eth0", "enp3s0f1np1", "on", "12", "a'b", `q"x`, "x#1", "yes", "-dash", "{a}"}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for i, name := range names[:1+r.IntN(6)] {
		l := plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: []int{1500, 9000, 1280}[r.IntN(3)], Up: i == 0 || r.IntN(2) == 0}, MAC: fmt.Sprintf("52:54:00:00:00:%02x", i)}
		if r.IntN(2) == 0 {
			l.Addresses = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.1/24", i)), netip.MustParsePrefix("fd00::1/64")}
		}
		o.Links = append(o.Links, l)
	}
	o.Links = append(o.Links,
		plan.ObservedLink{Link: model.Link{Name: "lo", Kind: model.Physical, MTU: 65536, Up: true}, MAC: "00:00:00:00:00:00"},
		plan.ObservedLink{Link: model.Link{Name: "docker0", Kind: model.Bridge, MTU: 1500, Up: true}, KernelKind: "bridge"},
		plan.ObservedLink{Link: model.Link{Name: "veth1", Kind: model.Physical, MTU: 1500, Up: true}, KernelKind: "veth", MAC: "02:00:00:00:00:01"})
	plan.Sort(&o)
	return o
}

// Whatever the host, the bundle is valid, declares its hardware and nothing else, and changes nothing; also with the
// addresses uncommented.
func TestInitialBundleChangesNothing(t *testing.T) {
	for seed := range uint64(300) {
		host := randomHost(rand.New(rand.NewPCG(seed, 1)))
		links, err := chosenLinks(host, nil)
		if err != nil {
			t.Fatal(err)
		}
		files := initialBundle("site", "n1", links)
		for _, uncommented := range []bool{false, true} {
			if uncommented {
				for i := range files {
					if files[i].Path == "topology.yaml" {
						files[i].Data = bytes.ReplaceAll(bytes.ReplaceAll(files[i].Data, []byte("    # interfaces:"), []byte("    interfaces:")), []byte("    # - {"), []byte("    - {"))
					}
				}
			}
			_, result, diags := compile(source.Snapshot{Files: files}, model.Inventory{})
			if len(diags) > 0 {
				t.Fatalf("seed %d: %v\n%s", seed, diags, files[2].Data)
			}
			p := plan.Diff(plan.Desired{Plan: result.Nodes[0].Plan}, host)
			if len(p.Steps)+len(p.Blocked) > 0 || len(result.Nodes[0].Plan.Links) != len(links) {
				t.Fatalf("seed %d: %d links\n%s%s", seed, len(result.Nodes[0].Plan.Links), p.Text(), files[2].Data)
			}
			for _, l := range result.Nodes[0].Plan.Links {
				told := bytes.Contains(files[2].Data, []byte("- {name: "+quoted(l.Name)+", addresses"))
				if l.Name == "lo" || l.Name == "docker0" || l.Name == "veth1" || (len(l.Addresses) > 0) != (told && uncommented) {
					t.Fatalf("seed %d: declares %+v\n%s", seed, l, files[2].Data)
				}
			}
		}
	}
}

func TestInitChangesNoFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeNew("init", dir, []source.File{{Path: "a.yaml"}}); err == nil || !strings.Contains(err.Error(), "not empty; init writes") {
		t.Errorf("writes beside others: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d entries", len(entries))
	}
}

func TestChosenLinks(t *testing.T) {
	host := randomHost(rand.New(rand.NewPCG(1, 1)))
	if l, err := chosenLinks(host, []string{"veth1"}); err != nil || len(l) != 1 {
		t.Errorf("a named interface: %v %v", l, err)
	}
	for name, want := range map[string]string{"docker0": "is a bridge", "nope": "no interface nope"} {
		if _, err := chosenLinks(host, []string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := chosenLinks(plan.Observed{}, nil); err == nil {
		t.Error("a host without interfaces")
	}
	for in, want := range map[string]string{"My_Host.example": "my-host.example", "--": "site", "a": "a"} {
		if got := documentName(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
