//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"danm.io/danm/node/guard"
)

// cutWindow is the confirmTimeout of the commit that cuts a host off; revertTime is what the guard may take on top.
const (
	cutWindow  = 4 * time.Second
	revertTime = 2 * time.Second
)

// cuttingGroup sends edge-2's way to the Git server into the fabric, where nobody forwards it.
const cuttingGroup = `  - name: lab
    selector: {role: lab}
    interfaces:
    - {name: fab0}
    routes:
    - {to: 10.9.0.254/32, dev: fab0}
  fabrics:
`

// cutOff publishes a commit that takes edge-2's way to the Git server away and kills its agent in the window. The guard
// alone brings the host back; a new agent tries once more, sees the probe fail and blames the plan.
func (s *story) cutOff() error {
	h := s.hosts[1]
	before, others, err := s.dumpsAround(h)
	if err != nil {
		return err
	}
	if err := s.reachesGit(h); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if err := s.cuttingCommit(); err != nil {
		return err
	}
	cut, err := s.waitWindow(h)
	if err != nil {
		return err
	}
	kill9(h.agent)
	if s.sabotage == "guard" {
		kill9(h.guard)
	}
	if err := s.reachesGit(h); err == nil {
		return fmt.Errorf("the commit did not cut %s off", h.name)
	}
	fmt.Printf("edge-2 does not reach the Git server; its agent is killed inside the window of %s\n", cutWindow)
	if err := s.backInTime(h, before, cut.T0); err != nil {
		return err
	}
	if err := s.blamed(h, cut.Digest); err != nil {
		return err
	}
	after, othersAfter, err := s.dumpsAround(h)
	if err != nil {
		return err
	}
	if after != before || othersAfter != others {
		return fmt.Errorf("a host is not as before the commit:\nbefore\n%s%s\nafter\n%s%s", before, others, after, othersAfter)
	}
	fmt.Println("edge-1 and edge-3 never changed; edge-2 is as before")
	if err := s.repo.undoCut(); err != nil {
		return err
	}
	return s.repo.commit("Revert \"edge-2: a shorter way\"")
}

// dumpsAround is the dump of one host, and that of the others.
func (s *story) dumpsAround(h *host) (one, others string, err error) {
	for _, x := range s.hosts {
		d, err := x.dump()
		if err != nil {
			return "", "", err
		}
		if x == h {
			one = d
		} else {
			others += d + "\n"
		}
	}
	return one, others, nil
}

func (s *story) cuttingCommit() error {
	for _, edit := range []struct{ file, old, new string }{
		{"bundle.yaml", "confirmTimeout: 15s", "confirmTimeout: " + cutWindow.String()},
		{"topology.yaml", "    slot: 1\n    labels: {site: edge}", "    slot: 1\n    labels: {site: edge, role: lab}"},
		{"topology.yaml", "  fabrics:\n", cuttingGroup},
	} {
		if err := s.repo.replace(edit.file, edit.old, edit.new); err != nil {
			return err
		}
	}
	if err := s.showDiff(s.head(), 1); err != nil {
		return err
	}
	return s.repo.commit("edge-2: a shorter way")
}

// undoCut takes back what cuttingCommit edited.
func (r *repository) undoCut() error {
	if err := r.replace("topology.yaml", cuttingGroup, "  fabrics:\n"); err != nil {
		return err
	}
	return r.replace("topology.yaml", ", role: lab", "")
}

func (s *story) reachesGit(h *host) error {
	return h.ns.Do(func() error {
		c, err := net.DialTimeout("tcp", "10.9.0.254:8443", 500*time.Millisecond)
		if err != nil {
			return fmt.Errorf("reach the Git server from %s: %w", h.name, err)
		}
		return c.Close()
	})
}

// waitWindow waits until the host's plan is applied and not confirmed.
func (s *story) waitWindow(h *host) (guard.Transaction, error) {
	var cut guard.Transaction
	err := eventually("the plan in its window on "+h.name, 10*time.Second, func() bool {
		st, err := guard.Client{Dir: h.stateDir()}.Status(context.Background())
		if err != nil || st.Phase != guard.Waiting {
			return false
		}
		cut = *st.Pending
		return true
	})
	return cut, err
}

// backInTime waits for the guard's revert and takes the time from its first kernel write.
func (s *story) backInTime(h *host, before string, t0 time.Time) error {
	limit := time.Until(t0.Add(cutWindow + revertTime))
	if err := eventually(h.name+" as before the commit", limit, func() bool {
		now, err := h.dump()
		return err == nil && now == before && s.reachesGit(h) == nil
	}); err != nil {
		return err
	}
	fmt.Printf("edge-2 is back %.1f s after the first change, without an agent\n", time.Since(t0).Seconds())
	return nil
}

// blamed starts the agent again and waits until the plan is quarantined, after a second try.
func (s *story) blamed(h *host, digest string) error {
	if err := h.startAgent(); err != nil {
		return err
	}
	client := guard.Client{Dir: h.stateDir()}
	if err := eventually("verdict Inconclusive on "+h.name, 5*time.Second, func() bool {
		st, err := client.Status(context.Background())
		return err == nil && st.Undone != nil && st.Undone.Digest == digest && st.Undone.Verdict == guard.Inconclusive
	}); err != nil {
		return err
	}
	fmt.Println("the agent, started again: inconclusive, nobody saw a probe fail; it will be tried again")
	if err := eventually("quarantine on "+h.name, 25*time.Second, func() bool {
		st, err := client.Status(context.Background())
		return err == nil && st.Refusals[digest].Guilty
	}); err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(s.bin, "danm-node"), "status", "--state-dir", h.stateDir()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("danm-node status: %w: %s", err, out)
	}
	fmt.Printf("$ danm-node status\n%s", indent(string(out)))
	if !strings.Contains(string(out), "probe git failed") {
		return fmt.Errorf("danm-node status does not name the failing probe")
	}
	return nil
}
