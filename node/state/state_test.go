package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

func sample(rev string, mtu int) model.NodeState {
	st := model.NodeState{
		Home: model.LocalHome, Node: "edge-1", Slot: 0, Slots: 3, Bundle: "edge", Revision: rev,
		Plan:     model.NodePlan{Links: []model.Link{{Name: "br0", Kind: model.Bridge, MTU: mtu}}},
		Networks: []model.Network{{Kind: model.ClusterNetwork, Name: "n", NetworkID: "n", Type: model.BRIDGE, SpaceDomain: "f", BlockSize: 16}},
	}
	st.Digest = st.Plan.Digest()
	return st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNothingReadIsNotEmpty(t *testing.T) {
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if _, err := Open(dir).Read(); !errors.Is(err, ErrNone) {
			t.Errorf("err = %v, want ErrNone", err)
		}
	}
}

func TestWriteReadsBackAndIsQuietWhenEqual(t *testing.T) {
	d := Open(t.TempDir())
	a := sample("r1", 1400)
	if changed, err := d.Write(a); err != nil || !changed {
		t.Fatalf("first write: %v %v", changed, err)
	}
	before, err := os.Stat(filepath.Join(d.Path(), fileName))
	must(t, err)
	if changed, err := d.Write(a); err != nil || changed {
		t.Fatalf("equal write: %v %v", changed, err)
	}
	after, err := os.Stat(filepath.Join(d.Path(), fileName))
	must(t, err)
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("an equal state was written again")
	}
	got, err := d.Read()
	must(t, err)
	x, _ := json.Marshal(got)
	y, _ := json.Marshal(a)
	if !bytes.Equal(x, y) {
		t.Errorf("read %s, wrote %s", x, y)
	}
}

func TestDigestMustBeThePlans(t *testing.T) {
	a := sample("r1", 1400)
	a.Digest = "sha256:00"
	if _, err := Open(t.TempDir()).Write(a); err == nil {
		t.Error("a false digest was written")
	}
}

func TestRefusedFileFallsBackToLastGood(t *testing.T) {
	good, err := Encode(sample("r2", 1500))
	must(t, err)
	newer := bytes.Replace(good, []byte(`{"format":1`), []byte(`{"format":2`), 1)
	unknown, err := Encode(map[string]any{"node": "edge-1", "surprise": 1})
	must(t, err)
	lying := sample("r2", 1500)
	lying.Digest = sample("r2", 9).Digest
	lie, err := Encode(lying)
	must(t, err)
	for name, tc := range map[string]struct {
		bytes []byte
		code  diag.Code
	}{
		"empty":     {nil, diag.StateCorrupt},
		"cut":       {good[:len(good)/2], diag.StateCorrupt},
		"bit":       {bytes.Replace(good, []byte("1500"), []byte("1501"), 1), diag.StateCorrupt},
		"name":      {bytes.Replace(good, []byte("r2"), []byte("r7"), 1), diag.StateCorrupt},
		"newer":     {newer, diag.StateNewer},
		"format 0":  {bytes.Replace(good, []byte(`{"format":1`), []byte(`{"format":0`), 1), diag.StateCorrupt},
		"unknown":   {unknown, diag.StateNewer},
		"digest":    {lie, diag.StateCorrupt},
		"directory": {[]byte("[]"), diag.StateCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			d := Open(t.TempDir())
			for _, rev := range []string{"r0", "r1"} { // r0 becomes the last good one
				_, err := d.Write(sample(rev, 1400))
				must(t, err)
			}
			must(t, os.WriteFile(filepath.Join(d.Path(), fileName), tc.bytes, 0o600))
			snap, err := d.Load()
			must(t, err)
			if snap.State.Revision != "r0" || len(snap.Refused) != 1 || snap.Refused[0].Code != tc.code || snap.Refused[0].Hint == "" {
				t.Fatalf("got %s, refused %v; want r0 and %s", snap.State.Revision, snap.Refused, tc.code)
			}
			if _, err := d.Write(sample("r3", 1300)); err != nil { // a refused file never becomes the last good one
				t.Fatal(err)
			}
			if st, err := readState(filepath.Join(d.Path(), lastGood)); err != nil || st.Revision != "r0" {
				t.Errorf("last good is %s, %v", st.Revision, err)
			}
			must(t, os.Remove(filepath.Join(d.Path(), lastGood)))
			must(t, os.WriteFile(filepath.Join(d.Path(), fileName), tc.bytes, 0o600))
			r := (*Refused)(nil)
			if _, err := d.Read(); !errors.As(err, &r) || r.Diagnostic.Code != tc.code {
				t.Errorf("without a last good file: %v", err)
			}
		})
	}
}

func TestReformattedFileIsStillGood(t *testing.T) {
	d := Open(t.TempDir())
	_, err := d.Write(sample("r1", 1400))
	must(t, err)
	p := filepath.Join(d.Path(), fileName)
	b, _ := os.ReadFile(p)
	var nice bytes.Buffer
	must(t, json.Indent(&nice, b, "", "  "))
	must(t, os.WriteFile(p, nice.Bytes(), 0o600))
	if snap, err := d.Load(); err != nil || len(snap.Refused) > 0 {
		t.Errorf("%v %v", snap.Refused, err)
	}
}

// Every act of a write fails once: afterwards the old state or the new is read, whole, and the next write succeeds.
func TestEveryActOfAWriteMayFail(t *testing.T) {
	acts := 0
	for n := 0; ; n++ {
		d := Open(t.TempDir())
		for _, rev := range []string{"r0", "r1"} {
			_, err := d.Write(sample(rev, 1400))
			must(t, err)
		}
		seen, failed := 0, ""
		d.fault = func(act, _ string) error {
			if seen++; seen-1 == n {
				failed = act
				return fmt.Errorf("injected: %w", syscall.ENOSPC)
			}
			return nil
		}
		_, err := d.Write(sample("r2", 1500))
		if failed == "" {
			must(t, err)
			acts = n
			break
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: err = %v, want ENOSPC", failed, err)
		}
		snap, err := d.Load()
		if err != nil || len(snap.Refused) > 0 {
			t.Fatalf("%s: %v %v", failed, snap.Refused, err)
		}
		want := "r1"
		if failed == "syncdir" {
			want = "r2"
		}
		if snap.State.Revision != want {
			t.Errorf("%s: read %s, want %s", failed, snap.State.Revision, want)
		}
		if _, err := os.Stat(filepath.Join(d.Path(), fileName+".tmp")); err == nil {
			t.Errorf("%s: temporary file left", failed)
		}
		d.fault = nil
		_, err = d.Write(sample("r3", 1600))
		must(t, err)
	}
	if acts != 7 { // create, write, sync, close, keep, rename, syncdir
		t.Errorf("swept %d acts, want 7: the sweep does not reach all", acts)
	}
}

func TestIdentityChangesNeedAnEmptyJournal(t *testing.T) {
	for name, change := range map[string]func(*model.NodeState){
		"home": func(s *model.NodeState) { s.Home = model.ClusterHome }, "node": func(s *model.NodeState) { s.Node = "x" },
		"slot": func(s *model.NodeState) { s.Slot = 1 }, "slots": func(s *model.NodeState) { s.Slots = 4 },
		"blockSize": func(s *model.NodeState) { s.Networks[0].BlockSize = 8 },
	} {
		t.Run(name, func(t *testing.T) {
			d := Open(t.TempDir())
			_, err := d.Write(sample("r1", 1400))
			must(t, err)
			next := sample("r2", 1400)
			change(&next)
			if _, err := d.Write(next); !errors.Is(err, ErrIdentity) {
				t.Errorf("without assertion: %v", err)
			}
			records := errors.New("3 records")
			d.AllowIdentity(func() error { return records })
			if _, err := d.Write(next); !errors.Is(err, ErrIdentity) || !errors.Is(err, records) {
				t.Errorf("with records: %v", err)
			}
			if st, _ := d.Read(); st.Revision != "r1" {
				t.Errorf("refused, yet written: %s", st.Revision)
			}
			d.AllowIdentity(func() error { return nil })
			if _, err := d.Write(next); err != nil {
				t.Errorf("without records: %v", err)
			}
		})
	}
}

func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	a, b := Open(dir), Open(dir)
	release, err := a.Lock()
	must(t, err)
	if _, err := b.Lock(); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if _, err := b.Write(sample("r1", 1400)); !errors.Is(err, ErrLocked) {
		t.Errorf("write beside the writer: %v", err)
	}
	_, err = a.Write(sample("r1", 1400))
	must(t, err)
	if _, err := b.Read(); err != nil { // readers take no lock
		t.Error(err)
	}
	release()
	release()
	_, err = b.Write(sample("r2", 1400))
	must(t, err)
}

func TestWatchWakes(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d := Open(filepath.Join(t.TempDir(), "later"))
	wake := d.Watch(ctx)
	next := func(want bool) {
		t.Helper()
		limit := 200 * time.Millisecond
		if want {
			limit = 10 * time.Second
		}
		select {
		case <-wake:
			if !want {
				t.Error("woke for nothing")
			}
		case <-time.After(limit):
			if want {
				t.Error("did not wake")
			}
		}
	}
	next(true) // once at the start
	next(false)
	for _, rev := range []string{"r1", "r2"} {
		_, err := d.Write(sample(rev, 1400))
		must(t, err)
		next(true)
		for drained := false; !drained; { // a rename may give two events
			select {
			case <-wake:
			case <-time.After(500 * time.Millisecond):
				drained = true
			}
		}
	}
	_, err := d.Write(sample("r2", 1400))
	must(t, err)
	next(false)
	cancel()
	for range wake {
	}
}

// The polling net alone, as when inotify instances are used up.
func TestStampSeesReplacement(t *testing.T) {
	d := Open(t.TempDir())
	seen := map[stamp]bool{d.stamp(): true}
	for i, rev := range []string{"r1", "r22", "r333"} {
		_, err := d.Write(sample(rev, 1400))
		must(t, err)
		if seen[d.stamp()] {
			t.Errorf("write %d left the stamp as it was", i)
		}
		seen[d.stamp()] = true
	}
}
