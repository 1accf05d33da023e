package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// DiffOptions are danmctl diff's.
type DiffOptions struct {
	Old, New  string
	Inventory string
	Output    string // text, json or markdown
}

// Difference is what changes from one bundle to another: documents, and the steps of each node.
type Difference struct {
	Bundle  string     `json:"bundle"`
	Old     string     `json:"old"` // revisions
	New     string     `json:"new"`
	Changes []Change   `json:"changes,omitempty"`
	Nodes   []NodeDiff `json:"nodes,omitempty"` // those with a difference, sorted by name
	Total   int        `json:"totalNodes"`      // all nodes of both sides
}

// NodeDiff is what changes on one node.
type NodeDiff struct {
	Node  string    `json:"node"`
	Note  string    `json:"note,omitempty"` // what is no step: the node is new or gone, its slot changed
	Plan  plan.Plan `json:"plan"`
	Worst string    `json:"worst"`
}

// Diff prints what NEW changes against OLD, as a dry run: each node is taken as if OLD had been applied to it. It returns
// OK without differences, Differences, or Failed.
func Diff(ctx context.Context, o DiffOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json", "markdown"); err != nil {
		return io.fail(err)
	}
	was, err := load(ctx, o.Old, o.Inventory)
	if err != nil {
		return io.failSide("old", err)
	}
	now, err := load(ctx, o.New, o.Inventory)
	if err != nil {
		return io.failSide("new", err)
	}
	return io.difference(o.Output, difference(was, now))
}

// difference prints a difference and gives the exit code.
func (o IO) difference(output string, d Difference) int {
	var err error
	switch output {
	case "json":
		err = o.print("json", d)
	case "markdown":
		_, err = o.Out.Write([]byte(diffMarkdown(d)))
	default:
		err = o.text(diffText(d))
	}
	if err != nil {
		return o.fail(err)
	}
	if len(d.Changes)+len(d.Nodes) > 0 {
		return Differences
	}
	return OK
}

func difference(was, now Document) Difference {
	d := Difference{
		Bundle: now.Bundle, Old: was.Revision, New: now.Revision,
		Changes: changesOf(was, now),
	}
	old, new := nodesByName(was), nodesByName(now)
	names := slices.Collect(maps.Keys(new))
	for n := range old {
		if _, ok := new[n]; !ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	d.Total = len(names)
	for _, name := range names {
		a, before := old[name]
		b, after := new[name]
		if n := nodeDiff(name, a, b, before, after, now.cards[name]); n.Note != "" || len(n.Plan.Steps)+len(n.Plan.Blocked) > 0 {
			d.Nodes = append(d.Nodes, n)
		}
	}
	return d
}

func nodesByName(d Document) map[string]model.NodeState {
	out := make(map[string]model.NodeState, len(d.Nodes))
	for _, n := range d.Nodes {
		out[n.Node] = n
	}
	return out
}

func nodeDiff(name string, was, now model.NodeState, before, after bool, cards []model.NIC) NodeDiff {
	n := NodeDiff{Node: name, Worst: string(plan.None)}
	if !after { // a node without a plan keeps its last: teardown is only ever asked for
		n.Note = "no longer in the bundle: keeps its last plan"
		return n
	}
	if !before {
		n.Note = "new in the bundle"
	} else if was.Slot != now.Slot || was.Slots != now.Slots {
		n.Note = fmt.Sprintf("slot %d of %d -> %d of %d: refused while the node holds an address", was.Slot, was.Slots, now.Slot, now.Slots)
	}
	if before && was.Digest == now.Digest && slices.Equal(was.Peers, now.Peers) {
		return n
	}
	host := assumed(was.Plan, now.Plan, cards)
	if before {
		host = asIfApplied(plan.Desired{Plan: was.Plan, Peers: was.Peers}, host)
	}
	n.Plan = plan.Diff(plan.Desired{Plan: now.Plan, Peers: now.Peers}, host)
	n.Worst = string(n.Plan.Worst())
	return n
}
