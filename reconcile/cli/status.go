package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/state"
	"danm.io/danm/reconcile/local"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// StatusOptions are danmctl status's.
type StatusOptions struct {
	StateDir string
	Output   string // text or json
}

// NodeStatus is what the state directory of a node and its guard say. A part that is not there is nil, and Problems says why.
type NodeStatus struct {
	Node     string              `json:"node,omitempty"`
	Revision string              `json:"revision,omitempty"` // of the state in force
	Digest   string              `json:"digest,omitempty"`   // of its plan
	Sync     *local.Status       `json:"sync,omitempty"`
	Guard    *guard.Status       `json:"guard,omitempty"`
	Agent    string              `json:"agent,omitempty"`    // why its last round did not come to its end
	Attended *bool               `json:"attended,omitempty"` // whether an agent is at work, nil = none of a version that says so ever was
	Pods     map[string][]string `json:"pods,omitempty"`     // by host link
	Hardware []model.NIC         `json:"hardware,omitempty"`
	Problems []string            `json:"problems,omitempty"`

	reported bool // an agent has been at work here
}

// Status shows how a node stands, from its state directory: OK, or Failed if there is no such node. It asks the guard and
// changes nothing.
func Status(ctx context.Context, o StatusOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json"); err != nil {
		return io.fail(err)
	}
	s, err := nodeStatus(ctx, o.StateDir)
	if err != nil {
		return io.fail(err)
	}
	if o.Output == "json" {
		err = io.print("json", s)
	} else {
		err = io.text(s.text(time.Now()))
	}
	if err != nil {
		return io.fail(err)
	}
	return OK
}

func nodeStatus(ctx context.Context, stateDir string) (NodeStatus, error) {
	var s NodeStatus
	dir := state.Open(stateDir)
	snap, stateErr := dir.Load()
	sync, syncErr := local.ReadStatus(stateDir)
	gs, guardErr := guard.Client{Dir: stateDir}.Status(ctx)
	if errors.Is(stateErr, state.ErrNone) && errors.Is(syncErr, fs.ErrNotExist) && guardErr != nil {
		return s, fmt.Errorf("%s is no state directory of a node: nothing was synced into it and no guard answers (--state-dir names another; --live asks a cluster)", stateDir)
	}
	if stateErr == nil {
		s.Node, s.Revision, s.Digest = snap.State.Node, snap.State.Revision, snap.State.Digest
		for _, d := range snap.Refused {
			s.Problems = append(s.Problems, d.String())
		}
	} else {
		s.Problems = append(s.Problems, stateErr.Error())
	}
	if syncErr == nil {
		s.Sync = &sync
		s.Node = sync.Node
	} else if !errors.Is(syncErr, fs.ErrNotExist) {
		s.Problems = append(s.Problems, syncErr.Error())
	}
	if guardErr == nil {
		s.Guard = &gs
	} else {
		s.Problems = append(s.Problems, string(diag.GuardAway)+": "+guardErr.Error())
	}
	report, err := dir.ReadReport()
	if err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	s.Agent, s.Pods, s.reported = report.Problem, report.Pods, report.BootID != ""
	attended, err := dir.Attended()
	switch {
	case err == nil:
		s.Attended = &attended
	case !errors.Is(err, fs.ErrNotExist):
		s.Problems = append(s.Problems, err.Error())
	}
	inventory, err := dir.ReadInventory()
	if err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	s.Hardware = inventory.Hardware[s.Node]
	return s, nil
}

func (s NodeStatus) text(now time.Time) string {
	var b strings.Builder
	line := func(name, format string, a ...any) { fmt.Fprintf(&b, "%-11s%s\n", name+":", fmt.Sprintf(format, a...)) }
	line("node", "%s", s.Node)
	if y := s.Sync; y != nil {
		line("source", "%s at %s, since %s", y.Location, orDash(y.Fetched), y.Since.UTC().Format(time.RFC3339))
		for _, d := range y.Diagnostics {
			line("", "%s", strings.ReplaceAll(d.String(), "\n", "\n           "))
		}
		if more := y.Total - len(y.Diagnostics); more > 0 {
			line("", "and %s", plural(more, "more problem"))
		}
	}
	if s.Revision != "" {
		line("state", "%s, plan %s", s.Revision, s.Digest)
	}
	if s.Guard != nil {
		b.WriteString(s.Guard.Text(now))
	}
	pods := []string{}
	for _, names := range s.Pods {
		pods = append(pods, names...)
	}
	slices.Sort(pods)
	line("pods", "%d attached, on %s", len(slices.Compact(pods)), plural(len(s.Pods), "link"))
	for _, n := range s.Hardware {
		line("card", "%s", cardText(n))
	}
	if text := s.agentText(); text != "" {
		line("agent", "%s", strings.ReplaceAll(text, "\n", "\n           "))
	}
	for _, p := range s.Problems {
		line("problem", "%s", strings.ReplaceAll(p, "\n", "\n           "))
	}
	return strings.ReplaceAll(b.String(), "\n:          ", "\n           ")
}

// agentText says whether the agent is at work and what it waits for. "" is one that has nothing to say.
func (s NodeStatus) agentText() string {
	const look = " (systemctl status danm-agent, or the node's Pod of the DaemonSet danm-agent)"
	switch {
	case s.Attended == nil && !s.reported:
		return "has not run here yet" + look
	case s.Attended == nil || *s.Attended:
		return s.Agent
	}
	text := "does not run: links and Pods stay as they are, new Pods wait" + look
	if s.Agent != "" {
		text += "\nits last word: " + s.Agent
	}
	return text
}

func cardText(n model.NIC) string {
	text := n.Name
	for _, f := range []struct {
		format string
		value  any
		show   bool
	}{
		{" pci %s", n.PCI, n.PCI != ""}, {" driver %s", n.Driver, n.Driver != ""}, {" %d Mbit/s", n.Speed, n.Speed > 0},
		{" mtu up to %d", n.MaxMTU, n.MaxMTU > 0}, {" %d of", n.VFs, n.TotalVFs > 0}, {" %d VFs", n.TotalVFs, n.TotalVFs > 0}, {" VF of %s", n.PF, n.PF != ""},
	} {
		if f.show {
			text += fmt.Sprintf(f.format, f.value)
		}
	}
	return text
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Retry lifts the quarantine of a plan on this node, or of all with the digest "": OK, or Failed.
func Retry(ctx context.Context, stateDir, digest string, io IO) int {
	if err := (guard.Client{Dir: stateDir}).Retry(ctx, digest); err != nil {
		return io.fail(err)
	}
	what := digest
	if digest == "" {
		what = "every plan"
	}
	if err := io.text(what + " may be tried again\n"); err != nil {
		return io.fail(err)
	}
	return OK
}
