package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"danm.io/danm/ipam/audit"
)

// IPAMShow prints who has which address since when, of a node or a cluster: OK, or Failed. It writes nothing.
func IPAMShow(ctx context.Context, o IPAMOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json"); err != nil {
		return io.fail(err)
	}
	var spaces []audit.Space
	if o.cluster() {
		_, a, c, err := readCluster(ctx, o.Live, time.Now())
		if err != nil {
			return io.fail(err)
		}
		if a.Unknown != nil {
			fmt.Fprintln(io.Err, "danmctl: not everything is shown:", a.Unknown)
		}
		spaces = c.View(o.Network)
	} else {
		n, err := readNode(o, time.Now())
		if err != nil {
			return io.fail(err)
		}
		spaces = n.View(o.Network)
	}
	if o.Network != "" && len(spaces) == 0 {
		return io.fail(&UsageError{fmt.Sprintf("there is no network %q with addresses here; danmctl ipam show without a name lists all", o.Network)})
	}
	for i := range spaces {
		spaces[i].Ranges = spaces[i].Shown(o.All)
	}
	var err error
	if o.Output == "json" {
		err = io.print("json", map[string]any{"spaces": spaces})
	} else {
		err = io.text(showText(spaces))
	}
	if err != nil {
		return io.fail(err)
	}
	return OK
}

// countOrder is how counts are told.
var countOrder = []string{audit.Held, audit.Free, audit.Cooling, audit.Reserved, audit.Kept, audit.Ceded, audit.Frozen, audit.Claiming, audit.Releasing, audit.Claimed, audit.Unclaimed, audit.Elsewhere, audit.Excluded, audit.Outside}

func showText(spaces []audit.Space) string {
	var b strings.Builder
	for _, s := range spaces {
		fmt.Fprintf(&b, "%s", s.Space)
		if len(s.Networks) > 0 {
			fmt.Fprintf(&b, " (%s)", strings.Join(s.Networks, ", "))
		}
		var counts []string
		for _, state := range countOrder {
			if n := s.Counts[state]; n > 0 {
				counts = append(counts, fmt.Sprintf("%s %s", amount(n), state))
			}
		}
		fmt.Fprintf(&b, ": %s\n", strings.Join(counts, ", "))
		for _, n := range s.Nodes {
			fmt.Fprintf(&b, "  node %s: %d held, %d free, %d cooling, %d frozen\n", n.Node, n.Held, n.Free, n.Cooling, n.Frozen)
		}
		cells := make([][]string, 0, len(s.Ranges))
		for _, r := range s.Ranges {
			cells = append(cells, rangeCells(r))
		}
		b.WriteString(columns("  ", []string{"  ", "  ", "  ", "  ", "  "}, cells))
	}
	if len(spaces) == 0 {
		return "no network has addresses here\n"
	}
	return b.String()
}

func amount(n uint64) string {
	if n >= 1<<53 {
		return "2^53 or more"
	}
	return fmt.Sprint(n)
}

func rangeCells(r audit.Range) []string {
	where := r.First.String()
	if r.Last != r.First {
		where += "-" + r.Last.String()
	}
	state := r.State
	if r.For != "" {
		join := " for "
		if r.State == audit.Ceded {
			join = " to "
		} else if r.State == audit.Claimed {
			join = " of "
		} else if r.State == audit.Held {
			join = " "
		}
		state += join + r.For
	}
	who := r.Pod
	if r.Interface != "" {
		who += " " + r.Interface
	}
	node, sandbox, since := "", "", ""
	if r.Node != "" {
		node = "node " + r.Node
	}
	if r.Sandbox != "" {
		sandbox = "sandbox " + short(r.Sandbox)
	}
	if !r.Since.IsZero() {
		since = "since " + r.Since.UTC().Format(time.RFC3339)
	}
	return []string{where, state, who, node, sandbox, since}
}

// short is a container ID as crictl shows it.
func short(id string) string {
	if len(id) > 13 {
		return id[:13]
	}
	return id
}
