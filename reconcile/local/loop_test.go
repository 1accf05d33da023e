package local

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

// waitFor polls until ok, for the loop's tests.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
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
		case <-time.After(30 * time.Second):
			t.Error("Run does not end")
		}
	})
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
