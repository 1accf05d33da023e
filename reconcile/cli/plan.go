package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"danm.io/danm/node/ledger"
	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// PlanOptions are danmctl plan's.
type PlanOptions struct {
	Path      string
	Inventory string
	Node      string
	Observed  string // file with plan.Observed as JSON or YAML; excludes Local
	Local     bool   // this host
	StateDir  string // Local: where the ledger is
	Output    string // text or json
}

// Plan prints the steps that bring one node to what the bundle says: from an observation, from this host as it is, or, given
// neither, from a host of which nothing is known but its hardware, as the inventory has it or else as the plan names it. It returns OK without steps, Differences, or Failed.
// A plan that is blocked is a difference.
func Plan(ctx context.Context, o PlanOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json"); err != nil {
		return io.fail(err)
	}
	if o.Local && o.Observed != "" {
		return io.fail(&UsageError{"--local and --observed exclude each other"})
	}
	d, err := load(ctx, o.Path, o.Inventory)
	if err != nil {
		return io.fail(err)
	}
	wanted, err := nodeOf(d, o.Node)
	if err != nil {
		return io.fail(err)
	}
	host, err := observe(ctx, o, wanted.Plan, d.cards[o.Node])
	if err != nil {
		return io.fail(err)
	}
	n := NodeDiff{Node: o.Node, Plan: plan.Diff(plan.Desired{Plan: wanted.Plan, Peers: wanted.Peers}, host)}
	if o.Local {
		pods, err := attachedPods(o.StateDir)
		if err != nil {
			return io.fail(err)
		}
		n.Plan = n.Plan.NamePods(func(link string) []string { return plan.AttachedTo(link, host, pods) })
	}
	n.Worst = string(n.Plan.Worst())
	if o.Output == "json" {
		err = io.print("json", n)
	} else {
		text := planText(n, d)
		if !o.Local && o.Observed == "" && len(d.cards[o.Node]) == 0 {
			text += unknownCards(wanted.Plan.Pools)
		}
		err = io.text(text)
	}
	if err != nil {
		return io.fail(err)
	}
	if len(n.Plan.Steps)+len(n.Plan.Blocked) > 0 {
		return Differences
	}
	return OK
}

func planText(n NodeDiff, d Document) string {
	if len(n.Plan.Steps)+len(n.Plan.Blocked) == 0 {
		return fmt.Sprintf("%s: %s on %s  nothing to do\n", d.Bundle, shortRevision(d.Revision), n.Node)
	}
	return fmt.Sprintf("%s: %s on %s\n%s", d.Bundle, shortRevision(d.Revision), n.Node, nodeTable([]NodeDiff{n}))
}

// unknownCards names pools of which a dry run without hardware shows nothing: no list of theirs names a card.
func unknownCards(pools []model.SRIOVPool) string {
	var b strings.Builder
	for _, p := range pools {
		if len(p.PFs.Names)+len(p.PFs.PCI) > 0 {
			continue
		}
		var by []string
		for _, l := range []struct {
			field string
			list  []string
		}{{"pfs.vendors", p.PFs.Vendors}, {"pfs.devices", p.PFs.Devices}, {"pfs.drivers", p.PFs.Drivers}} {
			if len(l.list) > 0 {
				by = append(by, l.field)
			}
		}
		fmt.Fprintf(&b, "pool %s: its cards are not known here (%s); give --inventory or --local\n", p.Name, strings.Join(by, ", "))
	}
	return b.String()
}

func nodeOf(d Document, name string) (model.NodeState, error) {
	i := slices.IndexFunc(d.Nodes, func(n model.NodeState) bool { return n.Node == name })
	if i >= 0 {
		return d.Nodes[i], nil
	}
	names := make([]string, len(d.Nodes))
	for j, n := range d.Nodes {
		names[j] = n.Node
	}
	hint := diag.Suggest(name, names)
	if hint == "" {
		hint = "the bundle has no nodes"
		if len(names) > 0 {
			hint = "the bundle has " + strings.Join(names[:min(len(names), 5)], ", ")
			if len(names) > 5 {
				hint += fmt.Sprintf(" and %d more", len(names)-5)
			}
		}
	}
	return model.NodeState{}, &UsageError{fmt.Sprintf("node %q is not in the bundle; %s", name, hint)}
}

func observe(ctx context.Context, o PlanOptions, p model.NodePlan, cards []model.NIC) (plan.Observed, error) {
	switch {
	case o.Local:
		return observeHost(ctx, o.StateDir, p)
	case o.Observed == "":
		return assumed(model.NodePlan{}, p, cards), nil
	}
	b, err := os.ReadFile(o.Observed)
	if err != nil {
		return plan.Observed{}, err
	}
	var host plan.Observed
	if err := unmarshalStrict(b, &host); err != nil {
		return plan.Observed{}, fmt.Errorf("observation %s: %w", o.Observed, err)
	}
	return host, nil
}

// attachedPods are the Pods that the agent of the state directory reports, by host link.
func attachedPods(stateDir string) (map[string][]string, error) {
	if stateDir == "" {
		return nil, nil
	}
	r, err := state.Open(stateDir).ReadReport()
	return r.Pods, err
}

// observeHost reads this host's kernel and, from the state directory if one is given, what of it is ours.
func observeHost(ctx context.Context, stateDir string, p model.NodePlan) (plan.Observed, error) {
	kernel, err := link.New("/")
	if err != nil {
		return plan.Observed{}, err
	}
	defer kernel.Close()
	var owned []plan.Record
	if stateDir != "" {
		if owned, err = ledger.Load(stateDir); err != nil {
			return plan.Observed{}, err
		}
	}
	host, err := sriov.Over(kernel, "/").Observe(ctx, plan.SysctlKeys(plan.Desired{Plan: p}, owned)...)
	if err != nil {
		return plan.Observed{}, fmt.Errorf("observe this host: %w", err)
	}
	host.Owned = owned
	return host, nil
}
