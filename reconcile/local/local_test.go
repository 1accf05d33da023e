package local

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/state"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/gitserver"
)

const topology = `apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: site}
spec:
  slots: 4
  nodes:
  - {name: edge-1, slot: 0}
  - {name: edge-2, slot: 1}
  groups:
  - name: all
    bridges:
    - name: br-lan
      addresses: [10.1.0.1/24]
`

// oneVNI is a node with a fabric that has one VNI to give; inVNI is a network that takes one.
const oneVNI = `apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: site}
spec:
  slots: 4
  nodes:
  - {name: edge-1, slot: 0, interfaces: [{name: eth9, addresses: [192.0.2.1/24]}]}
  groups:
  - {name: all, interfaces: [{name: eth9, mtu: 1500}]}
  fabrics:
  - {name: f, groups: [all], device: eth9, vniRanges: ["5000-5000"], vxlan: {port: 4789}}
`

func inVNI(name string, subnet int) string {
	return fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: %s}\nspec: {type: macvlan, fabric: f, vxlan: auto, ipv4: {cidr: 10.%d.0.0/24}}\n", name, subnet)
}

func good(mtu int) map[string]string {
	return map[string]string{
		"bundle.yaml":   "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {version: 1.0.0}\n",
		"topology.yaml": strings.Replace(topology, "- name: br-lan", fmt.Sprintf("- name: br-lan\n      mtu: %d", mtu), 1),
		"net/lan.yaml":  "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: lan}\nspec: {type: bridge, hostDevice: br-lan, ipv4: {cidr: 10.1.0.0/24, gateway: 10.1.0.1}}\n",
	}
}

// with is a copy of m with changes; an empty content removes the file.
func with(m map[string]string, pairs ...string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i]] = pairs[i+1]; pairs[i+1] == "" {
			delete(out, pairs[i])
		}
	}
	return out
}

// put makes root hold exactly files.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		if _, keep := files[rel]; err == nil && !d.IsDir() && !keep {
			_ = os.Remove(p)
		}
		return nil
	})
	for name, data := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func once(t *testing.T, location, stateDir, node string) error {
	t.Helper()
	return Run(t.Context(), Options{Location: location, StateDir: stateDir, Node: node, Once: true})
}

func read(t *testing.T, stateDir string) model.NodeState {
	t.Helper()
	st, err := state.Open(stateDir).Read()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mtu(st model.NodeState) int {
	for _, l := range st.Plan.Links {
		if l.Name == "br-lan" {
			return l.MTU
		}
	}
	return -1
}

// dump is every file of a state directory with its content and inode, without the status and the source's cache.
func dump(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == StatusFile {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = fmt.Sprintf("%s %v", b, reflect.ValueOf(info.Sys()).Elem().FieldByName("Ino"))
	}
	return out
}

func codes(err error) []diag.Code {
	var list *diag.ListError
	var out []diag.Code
	if errors.As(err, &list) {
		for _, d := range list.List {
			out = append(out, d.Code)
		}
	}
	return out
}

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

// TestRemoteGit syncs over https: Source is the server, secrets appear nowhere, and an absent server changes nothing.
func TestRemoteGit(t *testing.T) {
	const token = "s3cr3t-t0ken"
	reposDir, dir := t.TempDir(), t.TempDir()
	repo, err := gitserver.InitBare(filepath.Join(reposDir, "site.git"))
	if err != nil {
		t.Fatal(err)
	}
	commit := func(files map[string]string) string {
		nested := map[string]string{}
		for k, v := range files {
			nested["bundle/"+k] = v
		}
		h, err := repo.Commit("main", "c", nested)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	head := commit(good(1400))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := gitserver.Start(gitserver.Options{
		Listener: listener, Root: reposDir,
		Allow: func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+token },
	})
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := Options{
		Location: "git+" + server.URL + "/site.git//bundle?ref=main", StateDir: dir, Node: "edge-1", Once: true,
		Source: source.Options{Auth: &source.Auth{Token: token, CAFile: ca}}, Out: &out,
		Log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	st := read(t, dir)
	if st.Revision != "main@sha1:"+head || st.Source != listener.Addr().String() {
		t.Errorf("revision %s, source %q", st.Revision, st.Source)
	}
	commit(with(good(1), "net/lan.yaml", "a: ["))
	before := dump(t, dir)
	if err := Run(t.Context(), o); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	o.Source.Auth.Token = token + "-expired"
	if err := Run(t.Context(), o); !slices.Contains(codes(err), diag.AuthFailed) {
		t.Errorf("got %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := Run(t.Context(), o); !slices.Contains(codes(err), diag.RepositoryUnreachable) {
		t.Errorf("got %v", err)
	}
	if !reflect.DeepEqual(before, dump(t, dir)) {
		t.Error("the state changed")
	}
	all := out.String()
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(p)
			all += string(b)
		}
		return nil
	})
	if strings.Contains(all, token) || strings.Contains(fmt.Sprintf("%+v %#v %s", o, o.Source, o.Source.Auth), token) {
		t.Error("the token leaks")
	}
}

// waitFor polls until ok, for the loop's tests.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func start(t *testing.T, o Options) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run ended with %v", err)
			}
		case <-time.After(5 * time.Second):
			t.Error("Run does not end")
		}
	})
}

func stateMTU(dir string) int {
	st, err := state.Open(dir).Read()
	if err != nil {
		return -2
	}
	return mtu(st)
}

func TestLoopFollowsADirectory(t *testing.T) {
	root, dir := filepath.Join(t.TempDir(), "bundle"), t.TempDir()
	put(t, root, good(1400))
	start(t, Options{Location: root, StateDir: dir, Node: "edge-1", Interval: time.Hour})
	waitFor(t, "first state", func() bool { return stateMTU(dir) == 1400 })
	put(t, root, with(good(1), "bundle.yaml", "{"))
	waitFor(t, "refusal", func() bool { s, err := ReadStatus(dir); return err == nil && len(s.Errors) > 0 })
	if stateMTU(dir) != 1400 {
		t.Error("a bad bundle changed the state")
	}
	put(t, root, good(1300))
	waitFor(t, "change", func() bool { return stateMTU(dir) == 1300 })
}

func TestLoopWakesAndPolls(t *testing.T) {
	repo, err := gitserver.InitBare(filepath.Join(t.TempDir(), "site.git"))
	if err != nil {
		t.Fatal(err)
	}
	commit := func(mtu int) {
		if _, err := repo.Commit("main", "c", good(mtu)); err != nil {
			t.Fatal(err)
		}
	}
	commit(1400)
	polled, woken := t.TempDir(), t.TempDir()
	wake := make(chan struct{}, 1)
	start(t, Options{Location: "git+file://" + repo.Dir, StateDir: polled, Node: "edge-1", Interval: 20 * time.Millisecond})
	start(t, Options{Location: "git+file://" + repo.Dir, StateDir: woken, Node: "edge-1", Interval: time.Hour, Wake: wake})
	waitFor(t, "first states", func() bool { return stateMTU(polled) == 1400 && stateMTU(woken) == 1400 })
	commit(1300)
	waitFor(t, "poll", func() bool { return stateMTU(polled) == 1300 })
	if stateMTU(woken) != 1400 {
		t.Error("the other one did not wait")
	}
	wake <- struct{}{}
	waitFor(t, "wake", func() bool { return stateMTU(woken) == 1300 })
}

// TestOfflineAtStart: the state on disk stays in force while the source is away, and the loop recovers by itself.
func TestOfflineAtStart(t *testing.T) {
	root, dir := filepath.Join(t.TempDir(), "bundle"), t.TempDir()
	put(t, root, good(1400))
	if err := once(t, root, dir, "edge-1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	start(t, Options{Location: root, StateDir: dir, Node: "edge-1", Interval: 20 * time.Millisecond})
	waitFor(t, "failure", func() bool {
		s, err := ReadStatus(dir)
		return err == nil && slices.Contains(s.Errors, diag.PathNotFound)
	})
	if s, _ := ReadStatus(dir); stateMTU(dir) != 1400 || s.Applied == "" || s.Fetched == "" {
		t.Errorf("status %+v", s)
	}
	put(t, root+".away", good(1300))
	if err := os.Rename(root+".away", root); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "recovery", func() bool { return stateMTU(dir) == 1300 })
}

// TestDamagedStateIsWrittenAgain: the loop does not believe its memory over the disk.
func TestDamagedStateIsWrittenAgain(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, good(1400))
	start(t, Options{Location: root, StateDir: dir, Node: "edge-1", Interval: 20 * time.Millisecond})
	file := filepath.Join(dir, "state.json")
	waitFor(t, "first state", func() bool { return stateMTU(dir) == 1400 })
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, lastGood := range []bool{false, true} { // with a last good state of the same revision, the revision alone tells nothing
		if lastGood {
			if err := os.WriteFile(filepath.Join(dir, "state.last-good.json"), whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "repair", func() bool { b, err := os.ReadFile(file); return err == nil && bytes.Equal(b, whole) })
	}
	if err := os.Remove(filepath.Join(dir, "state.last-good.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "second repair", func() bool { _, err := os.Stat(file); return err == nil })
}

func TestSaysEachResultOnce(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	put(t, root, with(good(1), "net/lan.yaml", "a: ["))
	var out bytes.Buffer
	s, err := newSyncer(Options{Location: root, StateDir: dir, Node: "edge-1", Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.round(t.Context()); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "net/lan.yaml:1"); n != 1 {
		t.Errorf("said %d times:\n%s", n, out.String())
	}
}

func TestPause(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 2000 {
		interval := time.Duration(1 + rnd.Int64N(int64(time.Hour)))
		failures := rnd.IntN(80)
		low, high := pause(interval, failures, 0), pause(interval, failures, 0.999999)
		limit := max(maxRetry, interval)
		switch {
		case low <= 0 || low > high:
			t.Fatalf("%s after %d failures: %s..%s", interval, failures, low, high)
		case failures == 0 && (low < interval*8/10 || high > interval*12/10):
			t.Fatalf("%s: %s..%s", interval, low, high)
		case failures == 1 && high > firstRetry:
			t.Fatalf("the first retry waits %s", high)
		case failures > 0 && (high > limit || pause(interval, failures+1, 0.5) < pause(interval, failures, 0.5)):
			t.Fatalf("%s after %d failures: %s", interval, failures, high)
		case failures > 40 && high < limit*9/10:
			t.Fatalf("%s after %d failures waits only %s", interval, failures, high)
		}
	}
	if a, b := pause(time.Minute, 3, 0.5), pause(time.Minute, 4, 0.5); b != 2*a {
		t.Errorf("%s then %s: not doubled", a, b)
	}
}

// TestReflectedSecret: a server that quotes our credentials back does not get them into the status file.
func TestReflectedSecret(t *testing.T) {
	const token = "s3cr3t-t0ken"
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		text := "ERR " + r.Header.Get("Authorization") + " is bad\n"
		_, _ = fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(text)+4, text)
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err := Run(t.Context(), Options{
		Location: "git+" + server.URL + "/x.git", StateDir: dir, Node: "edge-1", Once: true,
		Source: source.Options{Auth: &source.Auth{Token: token, CAFile: ca}},
	})
	b, readErr := os.ReadFile(filepath.Join(dir, StatusFile))
	if err == nil || readErr != nil || strings.Contains(err.Error()+string(b), token) || !strings.Contains(string(b), "is bad") {
		t.Errorf("%v, %v, %s", err, readErr, b)
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
