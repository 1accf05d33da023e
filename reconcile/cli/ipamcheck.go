package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/audit"
	"danm.io/danm/reconcile/live"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// IPAMCheck compares what kernel, journal, IPBlocks and DanmEps say of addresses: OK if they agree, Differences, or Failed. What
// differs is looked at twice. It writes nothing, unless Accept is asked for and nothing is in the way.
func IPAMCheck(ctx context.Context, o IPAMOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json"); err != nil {
		return io.fail(err)
	}
	if o.Accept && !o.cluster() {
		return io.fail(&UsageError{"--accept is said of a cluster, --state-dir of a node: give one of them"})
	}
	look, notes := o.lookAtNode, []string{}
	if o.cluster() {
		look = func(ctx context.Context) (checked, error) { return o.lookAtCluster(ctx) }
	}
	seen, err := look(ctx)
	switch {
	case err != nil:
	case o.Accept: // what is in the way at either look is: no Both
		if len(audit.InTheWay(seen.findings)) > 0 {
			break
		}
		fmt.Fprintf(io.Err, "nothing is in the way yet; looking again in %s: nodes take so long to tell what their Pods have out of their blocks\n", acceptAgain*o.Again)
		first := seen
		if err = wait(ctx, acceptAgain*o.Again); err == nil {
			seen, err = look(ctx)
		}
		if err == nil {
			err = seen.restoredSince(first)
		}
	case len(seen.findings) > 0:
		first := seen.findings
		if err = wait(ctx, o.Again); err == nil {
			if seen, err = look(ctx); err == nil {
				seen.findings = audit.Both(first, seen.findings)
			}
		}
	}
	if err != nil {
		return io.fail(err)
	}
	waiting := seen.waiting()
	if o.Accept && seen.api.Unknown != nil {
		return io.fail(fmt.Errorf("not everything could be looked at, so nothing is accepted: %w", seen.api.Unknown))
	}
	inTheWay := audit.InTheWay(seen.findings)
	switch {
	case o.Accept && len(inTheWay) > 0:
		notes = append(notes, fmt.Sprintf("nothing is accepted: %s in the way", plural(len(inTheWay), "difference")))
	case o.Accept:
		told, err := seen.accept(ctx, waiting)
		notes = append(notes, told...)
		if err != nil {
			return io.fail(err)
		}
	case len(waiting) > 0:
		notes = append(notes, fmt.Sprintf("since the API server went back in time, %s and claims nothing: %s; danmctl ipam check --accept lets them go on, when no difference is in the way",
			map[bool]string{true: "1 node waits", false: fmt.Sprintf("%d nodes wait", len(waiting))}[len(waiting) == 1], strings.Join(waiting, ", ")))
	}
	if seen.api.Unknown != nil {
		fmt.Fprintln(io.Err, "danmctl: not everything was looked at:", seen.api.Unknown)
	}
	return io.checked(o.Output, seen, notes)
}

// acceptAgain times Again is how long accepting waits between its two looks: the mirror lists anew within two minutes.
const acceptAgain = 50

// checked is what one look found.
type checked struct {
	findings []audit.Finding
	what     string // that was compared
	client   *live.Client
	api      live.Addresses
}

// accept tells the nodes that wait that they may go on, and says which were told. A failing one keeps no other from it.
func (c checked) accept(ctx context.Context, waiting []string) (told []string, err error) {
	var failed []error
	for _, node := range waiting {
		l := c.api.Leases[node]
		l.ResourceVersion = "" // what is accepted is a nonce, and nodes renew their leases all the time
		if err := c.client.AnnotateLease(ctx, &l, map[string]string{ipam.AnnotationChecked: l.Annotations[ipam.AnnotationSuspect]}); err != nil {
			failed = append(failed, err)
			continue
		}
		told = append(told, "node "+node+" may go on: it claims again within ten minutes")
	}
	return told, errors.Join(failed...)
}

// restoredSince is an error if a node waits for another check than at an earlier look: what was seen then says nothing of now.
func (c checked) restoredSince(first checked) error {
	for _, node := range slices.Sorted(maps.Keys(c.api.Leases)) {
		before, now := first.api.Leases[node].Annotations[ipam.AnnotationSuspect], c.api.Leases[node].Annotations[ipam.AnnotationSuspect]
		if before != "" && now != "" && before != now {
			return fmt.Errorf("the API server went back in time again, as node %s noticed, so nothing is accepted: run the check once more", node)
		}
	}
	return nil
}

func (c checked) waiting() []string {
	all := map[string]map[string]string{}
	for node, l := range c.api.Leases {
		all[node] = l.Annotations
	}
	return audit.Waiting(all)
}

func (io IO) checked(output string, seen checked, notes []string) int {
	var err error
	if output == "json" {
		findings := seen.findings
		if findings == nil {
			findings = []audit.Finding{}
		}
		err = io.print("json", map[string]any{"compared": seen.what, "findings": findings, "notes": notes})
	} else {
		var b strings.Builder
		for _, f := range seen.findings {
			fmt.Fprintln(&b, f)
		}
		for _, n := range notes {
			fmt.Fprintln(&b, n)
		}
		if len(seen.findings) == 0 {
			fmt.Fprintf(&b, "nothing differs: %s\n", seen.what)
		} else {
			fmt.Fprintf(&b, "%s: %s\n", plural(len(seen.findings), "difference"), seen.what)
		}
		err = io.text(b.String())
	}
	if err != nil {
		return io.fail(err)
	}
	if len(seen.findings) > 0 {
		return Differences
	}
	return OK
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func (o IPAMOptions) lookAtCluster(ctx context.Context) (checked, error) {
	client, a, c, err := readCluster(ctx, o.Live, time.Now())
	if err != nil {
		return checked{}, err
	}
	what := fmt.Sprintf("%s, %s, %s", plural(len(a.Blocks), "IPBlock"), plural(len(a.Endpoints), "DanmEp"), plural(len(a.Nodes), "Node"))
	findings := c.Check()
	if o.Accept {
		findings = append(findings, c.Heard(a.Leases)...)
	}
	return checked{findings: findings, what: what, client: client, api: a}, nil
}

func (o IPAMOptions) lookAtNode(ctx context.Context) (checked, error) {
	n, err := readNode(o, time.Now())
	if err != nil {
		return checked{}, err
	}
	c := audit.NodeCheck{Node: n.Name, Journal: n.Journal}
	c.Attached, c.Kernel = lookInside(o.SysRoot, n.Journal.Records)
	parts := []string{plural(len(n.Journal.Records), "record"), plural(len(c.Kernel), "network namespace")}
	if o.Live.Wanted() {
		if n.Name == "" {
			return checked{}, fmt.Errorf("%s does not say which node it is of: no state was written into it yet", o.StateDir)
		}
		_, a, _, err := readCluster(ctx, o.Live, time.Now())
		if err != nil {
			return checked{}, err
		}
		c.AskedAPI = true
		for _, b := range a.Blocks {
			if b.Spec.Owner == n.Name {
				c.Blocks = append(c.Blocks, b)
			}
		}
		c.Published = slices.DeleteFunc(slices.Clone(a.Endpoints), func(e danmv1.DanmEp) bool { return e.Spec.Host != n.Name })
		parts = append(parts, plural(len(c.Blocks), "IPBlock"), plural(len(c.Published), "DanmEp"))
		maps.DeleteFunc(a.Leases, func(node string, _ coordinationv1.Lease) bool { return node != n.Name })
		return checked{findings: c.Check(), what: strings.Join(parts, ", "), api: a}, nil
	}
	return checked{findings: c.Check(), what: strings.Join(append(parts, "no API (--live compares with it)"), ", ")}, nil
}
