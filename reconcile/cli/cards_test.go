package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sriovSite is examples/sriov with another text in its pools.
func sriovSite(t *testing.T, old, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../examples/sriov")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pools.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		t.Fatalf("the pools have no %q", old)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(b), old, text)), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPlanKnowsTheInventorysCards: a dry run takes cards from the inventory, and says which pools it knows none of.
func TestPlanKnowsTheInventorysCards(t *testing.T) {
	inventory := filepath.Join(t.TempDir(), "inv.yaml")
	if err := os.WriteFile(inventory, []byte(`hardware: {worker-1: [{name: eth7, vendor: "8086", driver: ice, totalVFs: 8, maxMTU: 9700}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	names, sort := "pfs: {names: [ens1f0]}", `pfs: {vendors: ["8086"], drivers: [ice]}`
	site := sriovSite(t, names, sort)
	unknown := "pool kernel: its cards are not known here (pfs.vendors, pfs.drivers); give --inventory or --local\npool vfio: its cards are not known here"
	for _, r := range []struct {
		name, path, inventory, node string
		has, not                    string
	}{
		{"no hardware", site, "", "worker-1", unknown, "numvfs"},
		{"hardware", site, inventory, "worker-1", "~ link eth7 numvfs 0 -> 8", "not known here"},
		{"another node's hardware", site, inventory, "worker-2", unknown, "numvfs"},
		{"pools by name", "../../examples/sriov", "", "worker-1", "~ link ens1f0 numvfs 0 -> 8", "not known here"},
	} {
		var out, errs bytes.Buffer
		code := Plan(t.Context(), PlanOptions{Path: r.path, Inventory: r.inventory, Node: r.node, Output: "text"}, IO{Out: &out, Err: &errs})
		if code != Differences || !strings.Contains(out.String(), r.has) || strings.Contains(out.String(), r.not) {
			t.Errorf("%s: exit %d\n%s%s", r.name, code, &out, &errs)
		}
	}
	var out, errs bytes.Buffer
	more := sriovSite(t, names, sort+"\n  minTxRate: 1")
	if code := Diff(t.Context(), DiffOptions{Old: site, New: more, Inventory: inventory, Output: "text"}, IO{Out: &out, Err: &errs}); code != Differences || !strings.Contains(out.String(), "vf eth7/4-7 rate 0-10000 -> 1-10000") {
		t.Errorf("diff: exit %d\n%s%s", code, &out, &errs)
	}
}
