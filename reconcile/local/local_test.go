package local

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/node/state"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

func TestSyncsADirectory(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, good(1400))
	if err := once(t, root, dir, "edge-2"); err != nil {
		t.Fatal(err)
	}
	st := read(t, dir)
	if st.Home != model.LocalHome || st.Node != "edge-2" || st.Slot != 1 || st.Slots != 4 || st.Bundle != "site" || st.Source != "" ||
		!strings.HasPrefix(st.Revision, "dir@sha256:") || mtu(st) != 1400 || len(st.Networks) != 1 || st.Digest != st.Plan.Digest() {
		t.Errorf("state %+v", st)
	}
	s, err := ReadStatus(dir)
	if err != nil || s.Applied != st.Revision || s.Fetched != st.Revision || s.Digest != st.Digest || len(s.Errors) != 0 || s.Node != "edge-2" {
		t.Errorf("status %+v, %v", s, err)
	}
	before := dump(t, dir)
	info, _ := os.Stat(filepath.Join(dir, StatusFile))
	if err := once(t, root, dir, "edge-2"); err != nil {
		t.Fatal(err)
	}
	if after := dump(t, dir); !reflect.DeepEqual(before, after) {
		t.Error("a second sync of the same revision wrote the state")
	}
	if again, _ := os.Stat(filepath.Join(dir, StatusFile)); !os.SameFile(info, again) {
		t.Error("a second sync of the same revision wrote the status")
	}
	put(t, root, good(1300))
	if err := once(t, root, dir, "edge-2"); err != nil {
		t.Fatal(err)
	}
	if mtu(read(t, dir)) != 1300 {
		t.Error("the change did not arrive")
	}
}

// TestBadKeepsLastState: whatever is wrong, the state stays byte for byte and inode for inode, and everybody is told why.
func TestBadKeepsLastState(t *testing.T) {
	rows := []struct {
		name    string
		spoil   func(t *testing.T, root string)
		code    diag.Code
		refused bool
		inText  string
	}{
		{"broken YAML", func(t *testing.T, root string) { put(t, root, with(good(1), "net/lan.yaml", "a: [")) }, diag.BrokenYAML, true, "net/lan.yaml:1"},
		{"unknown field", func(t *testing.T, root string) {
			put(t, root, with(good(1), "net/lan.yaml", good(1)["net/lan.yaml"]+"sepc: {}\n"))
		}, diag.UnknownField, true, "net/lan.yaml:5"},
		{"rule book", func(t *testing.T, root string) {
			put(t, root, with(good(1400), "net/lan.yaml", strings.Replace(good(1)["net/lan.yaml"], "br-lan,", "br-lan, mtu: 9000,", 1)))
		}, diag.MTUAboveParent, true, "net/lan.yaml:4"},
		{"render alone can see it", func(t *testing.T, root string) {
			put(t, root, with(good(1400), "topology.yaml", oneVNI, "net/lan.yaml", inVNI("a", 1)+"---\n"+inVNI("b", 2)))
		}, diag.IDUnassigned, true, "net/lan.yaml:6"},
		{"node vanished", func(t *testing.T, root string) {
			put(t, root, with(good(1400), "topology.yaml", strings.Replace(topology, "edge-1", "edge-9", 1)))
		}, diag.NodeVanished, true, "edge-9"},
		{"slot changed", func(t *testing.T, root string) {
			put(t, root, with(good(1400), "topology.yaml", strings.Replace(topology, "slot: 0", "slot: 2", 1)))
		}, diag.IdentityChanged, false, "slot 0 -> 2"},
		{"no documents", func(t *testing.T, root string) { put(t, root, nil) }, diag.RepositoryEmpty, false, ""},
		{"link to outside", func(t *testing.T, root string) { _ = os.Symlink("/etc/hostname", filepath.Join(root, "x.yaml")) }, diag.SymlinkEscape, false, "x.yaml"},
		{"a file too large", func(t *testing.T, root string) { put(t, root, with(good(1), "x.yaml", strings.Repeat("#", 1<<20+1))) }, diag.FileTooLarge, false, "x.yaml"},
		{"directory gone", func(t *testing.T, root string) { _ = os.RemoveAll(root) }, diag.PathNotFound, false, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			root, dir := filepath.Join(t.TempDir(), "bundle"), t.TempDir()
			put(t, root, good(1400))
			if err := once(t, root, dir, "edge-1"); err != nil {
				t.Fatal(err)
			}
			was := read(t, dir)
			before := dump(t, dir)
			r.spoil(t, root)
			err := once(t, root, dir, "edge-1")
			if !slices.Contains(codes(err), r.code) || errors.Is(err, ErrRefused) != r.refused {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), r.inText) {
				t.Errorf("%q does not say %q", err, r.inText)
			}
			if after := dump(t, dir); !reflect.DeepEqual(before, after) {
				t.Errorf("the state directory changed: %v -> %v", before, after)
			}
			s, err := ReadStatus(dir)
			if err != nil || !slices.Contains(s.Errors, r.code) || s.Applied != was.Revision || s.Digest != was.Digest || s.Total == 0 {
				t.Errorf("status %+v, %v", s, err)
			}
			_ = os.Remove(filepath.Join(root, "x.yaml"))
			put(t, root, good(1200))
			if err := once(t, root, dir, "edge-1"); err != nil {
				t.Fatal(err)
			}
			if s, err := ReadStatus(dir); mtu(read(t, dir)) != 1200 || err != nil || len(s.Errors) != 0 || s.Total != 0 {
				t.Errorf("the repaired bundle was not taken: %+v", s)
			}
		})
	}
}

func TestUnknownNodeOnAFreshDirectory(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, good(1400))
	err := once(t, root, dir, "edge-7")
	if got := codes(err); !slices.Contains(got, diag.NodeUnknown) || !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "edge-1, edge-2") {
		t.Errorf("got %v", err)
	}
	if _, err := state.Open(dir).Read(); !errors.Is(err, state.ErrNone) {
		t.Errorf("a state was written: %v", err)
	}
}

func TestIdentityMayChangeWithoutRecords(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, good(1400))
	if err := once(t, root, dir, "edge-1"); err != nil {
		t.Fatal(err)
	}
	put(t, root, with(good(1400), "topology.yaml", strings.Replace(topology, "slot: 0", "slot: 2", 1)))
	o := Options{Location: root, StateDir: dir, Node: "edge-1", Once: true, NoRecords: func() error { return errors.New("10.1.0.7 is in use") }}
	if err := Run(t.Context(), o); !errors.Is(err, state.ErrIdentity) || !strings.Contains(err.Error(), "10.1.0.7") {
		t.Errorf("got %v", err)
	}
	o.NoRecords = func() error { return nil }
	if err := Run(t.Context(), o); err != nil || read(t, dir).Slot != 2 {
		t.Errorf("got %v", err)
	}
}

// TestDecideIsPureAndTotal: shuffled files decide alike; damaged bytes either give diagnostics or a whole state, never both or none.
func TestDecideIsPureAndTotal(t *testing.T) {
	const noise = "x:\n -{}09\x00"
	rnd := rand.New(rand.NewPCG(7, 7))
	snap := source.Snapshot{Revision: "r"}
	for name, data := range good(1400) {
		snap.Files = append(snap.Files, source.File{Path: name, Data: []byte(data)})
	}
	want, diags := decide(snap, target{node: "edge-1", endpoint: "h:1"}, nil, model.Inventory{})
	if diags.HasErrors() || want.Source != "h:1" || want.Revision != "r" {
		t.Fatalf("%v %+v", diags, want)
	}
	refused := 0
	for i := range 3000 {
		damaged := source.Snapshot{Revision: "r"}
		for _, f := range snap.Files {
			damaged.Files = append(damaged.Files, source.File{Path: f.Path, Data: bytes.Clone(f.Data)})
		}
		rnd.Shuffle(len(damaged.Files), func(a, b int) { damaged.Files[a], damaged.Files[b] = damaged.Files[b], damaged.Files[a] })
		if i%10 != 0 {
			f := damaged.Files[rnd.IntN(len(damaged.Files))]
			f.Data[rnd.IntN(len(f.Data))] = noise[rnd.IntN(len(noise))]
		}
		st, diags := decide(damaged, target{node: "edge-1", endpoint: "h:1"}, nil, model.Inventory{})
		switch {
		case i%10 == 0 && !reflect.DeepEqual(st, want):
			t.Fatal("the order of files decides")
		case diags.HasErrors() && !reflect.DeepEqual(st, model.NodeState{}):
			t.Fatalf("errors with a state: %v", diags)
		case !diags.HasErrors() && (st.Node != "edge-1" || st.Digest != st.Plan.Digest()):
			t.Fatalf("neither errors nor a whole state: %+v", st)
		}
		if diags.HasErrors() {
			refused++
		}
	}
	if refused < 1000 {
		t.Errorf("only %d of 3000 were refused: the damage is no damage", refused)
	}
}

func TestTwoWriters(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, good(1400))
	release, err := state.Open(dir).Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := once(t, root, dir, "edge-1"); !errors.Is(err, state.ErrLocked) {
		t.Errorf("got %v", err)
	}
}

func TestMalformedCallsFailAtOnce(t *testing.T) {
	for _, o := range []Options{{}, {Location: "git+http://h/r", StateDir: "x", Node: "n"}, {Location: "d", StateDir: "x"}, {Location: "d", Node: "n"}} {
		if err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestWriteFailureIsTold(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, good(1400))
	if err := os.MkdirAll(filepath.Join(dir, "state.json", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := once(t, root, dir, "edge-1")
	if got := codes(err); !slices.Contains(got, diag.StateWriteFailed) || errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	if s, err := ReadStatus(dir); err != nil || !slices.Contains(s.Errors, diag.StateWriteFailed) {
		t.Errorf("status %+v, %v", s, err)
	}
}

// TestWarnsOfTheNodesOwnCards: what the agent found of this machine counts in the next round, as a warning.
func TestWarnsOfTheNodesOwnCards(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	files := good(1400)
	files["card.yaml"] = "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: cards}\nspec:\n  groups:\n  - name: cards\n    interfaces:\n    - {name: ens1, mtu: 9000}\n"
	put(t, root, files)
	if err := state.Open(dir).WriteInventory(model.Inventory{Hardware: map[string][]model.NIC{"edge-2": {{Name: "ens1", MaxMTU: 1500}}}}); err != nil {
		t.Fatal(err)
	}
	if err := once(t, root, dir, "edge-2"); err != nil {
		t.Fatal(err)
	}
	s, err := ReadStatus(dir)
	if err != nil || len(s.Errors) > 0 || s.Total != 1 || s.Diagnostics[0].Code != diag.MTUAboveCard {
		t.Errorf("%+v, %v", s, err)
	}
	if st := read(t, dir); len(st.Plan.Links) == 0 {
		t.Error("a warning kept the state back")
	}
}
