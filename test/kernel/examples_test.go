package kernel

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/render"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
)

// examplePlans renders every example, and gives the plan of one node of each sort: nodes that differ in addresses only are
// alike.
func examplePlans(t *testing.T) map[string]plan.Desired {
	t.Helper()
	out := map[string]plan.Desired{}
	for _, of := range []struct{ root, dir string }{{"minimal", ""}, {"edge-site", ""}, {"telco-core", ""}, {"multus-migration", ""}, {"site-overlays", "sites/oslo"}, {"site-overlays", "sites/porto"}} {
		var files []decode.File
		root := filepath.Join("../../examples", of.root)
		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".yaml" {
				return err
			}
			data, err := os.ReadFile(path)
			rel, _ := filepath.Rel(root, path)
			files = append(files, decode.File{Path: filepath.ToSlash(rel), Data: data})
			return err
		}))
		b, diags := overlay.Validate(files, of.dir)
		r := render.Render(b, model.Inventory{})
		if len(diags)+len(r.Diagnostics) > 0 || len(r.Nodes) == 0 {
			t.Fatal(of, diags, r.Diagnostics)
		}
		sorts := map[string]bool{}
		for _, n := range r.Nodes {
			var names []string
			for _, l := range n.Plan.Links {
				names = append(names, l.Name)
			}
			if sort := strings.Join(names, " "); !sorts[sort] {
				sorts[sort] = true
				out[strings.TrimSuffix(of.root+"/"+filepath.Base(of.dir), "/.")+"/"+n.Node] = plan.Desired{Plan: n.Plan, Peers: n.Peers}
			}
		}
	}
	if len(out) < 6 {
		t.Fatalf("only %d plans", len(out))
	}
	return out
}

// playExample takes a node with cards alone through a plan: nothing is left to do behind it, undone or released it is as it
// was. Cards are cables here, so they are found by name.
func playExample(t *testing.T, h host, d plan.Desired) {
	r := &run{t: t, host: h, ledger: map[plan.ObjectID]plan.Record{}}
	d.Plan.Links = slices.Clone(d.Plan.Links)
	for i := range d.Plan.Links {
		l := &d.Plan.Links[i]
		if l.Kind == model.Physical {
			l.Match = nil
			must(t, h.AddLink(plan.ObservedLink{Link: model.Link{Name: l.Name, Kind: model.Physical, MTU: 1500, Up: true}, KernelKind: "veth"}))
		}
	}
	r.desired = d
	start := r.dump()
	apply := func(d plan.Desired) {
		t.Helper()
		r.desired = d
		r.before = r.observe()
		p := plan.Diff(d, r.before)
		for _, b := range p.Blocked {
			if !strings.HasPrefix(string(b.ID), "sysctl/net.core.") { // not in every namespace of every kernel
				t.Errorf("blocked: %s: %s", b.ID, b.Reason)
			}
		}
		for _, c := range p.Claims {
			r.ledger[c.ID] = c
		}
		r.done = p.Steps
		must(t, r.steps(r.done))
		for _, id := range p.Released {
			delete(r.ledger, id)
		}
		if again := plan.Diff(d, r.observe()); !again.Empty() {
			t.Fatalf("still to do:\n%s%v %v", again.Text(), again.Claims, again.Released)
		}
	}
	same := func(what string) {
		t.Helper()
		r.desired = d // so that the same parameters are shown
		if err := diff(start, r.dump()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	apply(d)
	if r.dump() == start && len(r.done) > 0 {
		t.Fatal("the steps do nothing")
	}
	must(t, r.steps(plan.Revert(r.before, r.observe(), r.done)))
	clear(r.ledger)
	same("undone")
	apply(d)
	apply(plan.Desired{})
	same("released")
}

func TestFakeExamples(t *testing.T) {
	for name, d := range examplePlans(t) {
		t.Run(name, func(t *testing.T) { playExample(t, fake.New(), d) })
	}
}

func TestKernelExamples(t *testing.T) {
	for name, d := range examplePlans(t) {
		t.Run(name, func(t *testing.T) {
			r := newReal(t)
			for _, l := range d.Plan.Links {
				if kind := string(l.Kind); l.Kind != model.Physical && !r.knows(kind) {
					t.Skip("kernel lacks " + kind)
				}
			}
			playExample(t, r, d)
		})
	}
}
