package guard

import (
	"testing"
	"time"

	"danm.io/danm/node/plan"
)

func TestStatusText(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	step := plan.Step{Op: plan.SetLink, LinkName: "vx_a", Property: "mtu", From: "1450", To: "1400", Pods: []string{"acme/a"}}
	rows := map[string]struct {
		st   Status
		want string
	}{
		"fresh": {Status{Phase: Idle}, "phase:     idle\n"},
		"window": {Status{
			Phase: Waiting, Until: now.Add(9 * time.Second),
			Confirmed: &Transaction{Digest: "d1", Revision: "r1", Steps: []plan.Step{step}, Blocked: []plan.Blocked{{ID: "link/old"}}},
			Pending:   &Transaction{Digest: "d2", Revision: "r2", Blocked: []plan.Blocked{{ID: "link/x", Reason: "exists", Remedy: "remove it"}}},
			Held:      []plan.Step{step},
		}, `phase:     waiting, until 2026-11-24T12:00:09Z unless confirmed (9s left)
confirmed: r1, plan d1, 1 steps
under way: r2, plan d2, 0 steps
held:      ~ link vx_a mtu 1450 -> 1400: until no Pod is attached (acme/a)
blocked:   link/x: exists; remedy: remove it
`},
		"reverted": {Status{
			Phase: Confirmed, Paused: true, Confirmed: &Transaction{Digest: "d1", Revision: "r1"},
			Undone:   &Undone{Digest: "d2", Revision: "r2", Reason: "not confirmed in time", At: now, Verdict: Guilty, Probe: "gateway"},
			Refusals: map[string]Refusal{"d2": {Revision: "r2", Attempts: 1, Guilty: true, Reason: "probe gateway failed"}, "d3": {Revision: "r3", Attempts: 2, Reason: "reboot"}},
			Trouble:  "disk full",
		}, `phase:     confirmed
paused:    no kernel writes until danm-node resume
confirmed: r1, plan d1, 0 steps
undone:    r2 at 2026-11-24T12:00:00Z: not confirmed in time (guilty by probe gateway)
refused:   plan d2 of r2 after 1 attempts: probe gateway failed; lift it with danm-node retry
doubtful:  plan d3 of r3: undone 2 of 4 times: reboot
trouble:   disk full
`},
	}
	for name, r := range rows {
		if got := r.st.Text(now); got != r.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, r.want)
		}
	}
}
