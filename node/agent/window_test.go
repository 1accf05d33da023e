package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

func TestWithoutProbesTheKernelConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		if n.revision() != "r1" || !n.has("br0") || n.status().Phase != guard.Confirmed || n.a.notReady() != "" {
			t.Fatalf("revision %s, phase %s, ready %q", n.revision(), n.status().Phase, n.a.notReady())
		}
		conf, err := os.ReadFile(filepath.Join(n.dir, "net.d", "10-danm.conflist"))
		want := `{"cniVersion":"1.0.0","cniVersions":["0.3.1","0.4.0","1.0.0","1.1.0"],"name":"danm","plugins":[{"type":"danm","socket":"/run/danm/cni.sock"}]}` + "\n"
		if err != nil || string(conf) != want {
			t.Errorf("CNI conf %q, %v", conf, err)
		}
		writes, submits := n.k.Writes(), n.front.submits
		n.run(time.Minute)
		if n.k.Writes() != writes || n.front.submits != submits {
			t.Error("no-op rounds wrote")
		}
	})
}

func TestProbesPassForThreeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw", "dead"))
		n.up = func(name string) bool { return name == "gw" } // the dead one was dead before, so it does not count
		start := time.Now()
		offered := time.Duration(-1)
		n.front.onOK = func() { offered = time.Since(start) }
		go func() {
			time.Sleep(2900 * time.Millisecond)
			if _, ok := n.a.Confirmed(); ok || n.status().Phase != guard.Waiting {
				t.Error("offered to ADD before it was confirmed")
			}
		}()
		n.run(5 * time.Second)
		if offered < 3*time.Second || offered > 4*time.Second || n.revision() != "r1" {
			t.Errorf("confirmed after %s", offered)
		}
	})
}

func TestAFlappingProbeStartsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		start := time.Now()
		n.up = func(string) bool { d := time.Since(start); return d < 2*time.Second || d > 4*time.Second }
		at := time.Duration(0)
		n.front.onOK = func() { at = time.Since(start) }
		n.run(10 * time.Second)
		if at < 7*time.Second || at > 8*time.Second {
			t.Errorf("confirmed after %s, want 3 s after the last failure at 4 s", at)
		}
	})
}

func TestGuiltyPlanIsQuarantined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		n.run(5 * time.Second)
		good := n.k.Dump()
		n.up = func(string) bool { return !strings.Contains(n.k.Dump(), "1300") }
		n.write("r2", bridgePlan(1300), probes("gw"))
		start := time.Now()
		n.run(18 * time.Second)
		st := n.status()
		if n.k.Dump() != good || n.revision() != "r1" || st.Undone == nil || st.Undone.Verdict != guard.Guilty || st.Undone.Probe != "gw" {
			t.Fatalf("revision %s, undone %+v\n%s", n.revision(), st.Undone, n.k.Dump())
		}
		if took := st.Undone.At.Sub(start); took > 17*time.Second {
			t.Errorf("reverted after %s", took)
		}
		submits := n.front.submits
		n.run(10 * time.Minute)
		if n.front.submits != submits {
			t.Error("a guilty plan was submitted again")
		}
		must(t, n.k.DeleteLink("br0")) // the confirmed plan is still looked after
		n.run(15 * time.Second)
		if n.k.Dump() != good {
			t.Error("drift of the confirmed plan is not repaired beside a quarantined one")
		}
		n.write("r3", bridgePlan(1200), probes("gw"))
		n.run(15 * time.Second)
		if n.revision() != "r3" {
			t.Error("another digest is not tried")
		}
	})
}

func TestInconclusiveIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		broken := false
		n.up = func(string) bool { // dies with the first apply and stays dead while it is judged, then recovers
			if n.has("br0") {
				broken = true
			}
			return !broken
		}
		var at []time.Duration
		start, last := time.Now(), 0
		for time.Since(start) < 5*time.Minute {
			n.run(time.Second)
			if n.front.submits != last {
				last = n.front.submits
				at = append(at, time.Since(start))
			}
			if u := n.status().Undone; u != nil && u.Verdict != guard.Undecided {
				if u.Verdict != guard.Inconclusive {
					t.Fatalf("verdict %s", u.Verdict)
				}
				broken = false
			}
		}
		if n.front.submits != guard.MaxAttempts {
			t.Fatalf("%d submissions at %v, want %d", n.front.submits, at, guard.MaxAttempts)
		}
		for i := 2; i < len(at); i++ {
			if at[i]-at[i-1] < at[i-1]-at[i-2] {
				t.Errorf("no backoff: %v", at)
			}
		}
	})
}

func TestAgentLostInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		base := n.k.Dump()
		st := n.write("r1", bridgePlan(1400), probes("gw"))
		_, err := n.g.Submit(context.Background(), guard.Submission{Desired: plan.Desired{Plan: st.Plan}, Digest: st.Digest, ConfirmTimeout: st.ConfirmTimeout})
		must(t, err)
		n.start() // its predecessor died
		start := time.Now()
		n.run(14 * time.Second)
		if n.status().Phase != guard.Waiting {
			t.Error("an agent that saw no probe before the apply confirmed it")
		}
		n.run(2 * time.Second)
		if n.k.Dump() != base || n.status().Undone.Verdict != guard.Inconclusive {
			t.Errorf("after %s: %+v\n%s", time.Since(start), n.status().Undone, n.k.Dump())
		}
		n.run(30 * time.Second)
		if n.revision() != "r1" {
			t.Error("not tried again")
		}
	})
}

func TestAgentLostBetweenConfirmAndMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		n.write("r2", bridgePlan(1300))
		old := n.a.memory
		n.run(time.Second)
		// The memory as it was when the guard had confirmed r2 and the agent not yet noted it; r3 is already there.
		st, _ := n.a.Confirmed()
		must(t, memory{Confirmed: old.Confirmed, Candidate: &st}.save(n.dir))
		n.write("r3", bridgePlan(1200))
		n.front.away = true
		n.start()
		n.run(time.Second)
		if n.revision() != "r1" {
			t.Errorf("without the guard: %s", n.revision())
		}
		n.front.away = false
		n.a.round(context.Background()) // recalls r2 first, then applies r3
		n.run(5 * time.Second)
		if n.revision() != "r3" {
			t.Errorf("with the guard: %s", n.revision())
		}
	})
	t.Run("candidate counts by the guard's digest", func(t *testing.T) {
		n := newNode(t)
		a, b := n.write("r1", bridgePlan(1400)), n.write("r2", bridgePlan(1300))
		n.a.memory = memory{Confirmed: &a, Candidate: &b}
		n.a.recall(guard.Status{Confirmed: &guard.Transaction{Digest: b.Digest}}, nil)
		if n.revision() != "r2" {
			t.Errorf("recalled %s", n.revision())
		}
	})
}

// TestProbesOfASleeperBlameNobody: an agent that was stopped in the middle of its probes finds them out of time when it
// wakes; a plan is not guilty by that.
func TestProbesOfASleeperBlameNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		n.run(5 * time.Second)
		slept := false
		n.up = func(string) bool {
			if slept || !strings.Contains(n.k.Dump(), "1300") {
				return true
			}
			slept = true
			time.Sleep(20 * time.Second) // past the window; the probe's own time is over, too
			return false
		}
		n.write("r2", bridgePlan(1300), probes("gw"))
		n.run(21 * time.Second)
		if st := n.status(); !slept || st.Undone == nil || st.Undone.Verdict != guard.Inconclusive || st.Refusals[st.Undone.Digest].Guilty {
			t.Fatalf("%+v, %+v", st.Undone, st.Refusals)
		}
		n.run(30 * time.Second)
		if n.revision() != "r2" {
			t.Error("not tried again")
		}
	})
}

// TestTheWindowsEndIsNoAnswer: probes that pass all the time are cut off by the end of a window that is too short to
// confirm in; nobody is blamed.
func TestTheWindowsEndIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		n.run(5 * time.Second)
		n.up = func(string) bool { time.Sleep(500 * time.Millisecond); return true }
		n.write("r2", bridgePlan(1300), probes("gw"), func(st *model.NodeState) { st.ConfirmTimeout = 2200 * time.Millisecond })
		n.run(6 * time.Second)
		if st := n.status(); st.Undone == nil || st.Undone.Verdict != guard.Inconclusive || st.Undone.Probe != "" {
			t.Fatalf("%+v", st.Undone)
		}
	})
}
