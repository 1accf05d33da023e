package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"danm.io/danm/ipam/audit"
	"danm.io/danm/spec/api/v1alpha1"
)

// NotReady is status's exit code for a cluster in which a bundle is not Ready.
const NotReady = 1

// ClusterStatus is what the API says of bundles and nodes, each sorted by name.
type ClusterStatus struct {
	Bundles []BundleStatus `json:"bundles"`
	Nodes   []PlanStatus   `json:"nodes"`
}

// BundleStatus is one NetworkBundle's.
type BundleStatus struct {
	Name             string                     `json:"name"`
	Ready            string                     `json:"ready"`  // True, False or Unknown
	Reason           string                     `json:"reason"` // a code of danmctl explain
	Message          string                     `json:"message,omitempty"`
	Fetched          string                     `json:"fetched,omitempty"`   // revision
	RolledOut        string                     `json:"rolledOut,omitempty"` // revision
	Nodes            string                     `json:"nodes,omitempty"`     // done/all
	Created          metav1.Time                `json:"created"`
	Late             []string                   `json:"late,omitempty"`
	Diagnostics      []string                   `json:"diagnostics,omitempty"` // the first ten
	DiagnosticsTotal int                        `json:"diagnosticsTotal,omitempty"`
	Quarantined      []v1alpha1.QuarantinedPlan `json:"quarantined,omitempty"`

	fetched, rolledOut string // for people
}

// PlanStatus is one NodePlan's.
type PlanStatus struct {
	Node    string      `json:"node"`
	Bundle  string      `json:"bundle,omitempty"`
	Desired string      `json:"desired,omitempty"` // revision
	Applied string      `json:"applied,omitempty"` // revision
	Phase   string      `json:"phase,omitempty"`
	Reason  string      `json:"reason,omitempty"`
	Drift   int64       `json:"drift"`
	Created metav1.Time `json:"created"`
	Silent  string      `json:"silent,omitempty"` // for how long its agent has given no sign of life, if for too long
}

// StatusLive shows how a cluster's bundles and nodes stand: OK if each bundle shown is Ready, NotReady, or Failed. It writes nothing.
func StatusLive(ctx context.Context, o LiveOptions, output string, io IO) int {
	if err := oneOf(output, "text", "json"); err != nil {
		return io.fail(err)
	}
	client, err := o.connect()
	if err != nil {
		return io.fail(err)
	}
	bundles, plans, err := client.Status(ctx)
	if err != nil {
		return io.fail(err)
	}
	leases, err := client.Leases(ctx)
	if err != nil { // an addition
		fmt.Fprintln(io.Err, "danmctl: which agents are silent is not known:", err)
	}
	if o.Bundle != "" {
		nb, err := choose(o.Bundle, bundles)
		if err != nil {
			return io.fail(err)
		}
		bundles = []v1alpha1.NetworkBundle{*nb}
		plans = slices.DeleteFunc(plans, func(p v1alpha1.NodePlan) bool { return p.Spec.Bundle != nb.Name })
	}
	now := time.Now()
	s := clusterStatus(bundles, plans, leases, now)
	if output == "json" {
		err = io.print("json", s)
	} else {
		err = io.text(s.text(now))
	}
	if err != nil {
		return io.fail(err)
	}
	if slices.ContainsFunc(s.Bundles, func(b BundleStatus) bool { return b.Ready != string(metav1.ConditionTrue) }) {
		return NotReady
	}
	return OK
}

func clusterStatus(bundles []v1alpha1.NetworkBundle, plans []v1alpha1.NodePlan, leases map[string]coordinationv1.Lease, now time.Time) ClusterStatus {
	s := ClusterStatus{Bundles: []BundleStatus{}, Nodes: []PlanStatus{}}
	for i := range bundles {
		s.Bundles = append(s.Bundles, bundleStatus(&bundles[i]))
	}
	for i := range plans {
		p := &plans[i]
		n := PlanStatus{Node: p.Name, Bundle: p.Spec.Bundle, Phase: p.Status.Phase, Reason: p.Status.Reason, Drift: p.Status.Drift, Created: p.CreationTimestamp}
		if l := p.Spec.Layers.Bundle; l != nil {
			n.Desired = l.Revision
		}
		if a := p.Status.Applied; a != nil {
			n.Applied = a.Revision
		}
		n.Silent = silent(p, leases, now)
		s.Nodes = append(s.Nodes, n)
	}
	slices.SortFunc(s.Bundles, func(a, b BundleStatus) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Nodes, func(a, b PlanStatus) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

// silent says for how long a node's agent has given no sign of life, "" for one that is well, and where no leases are known.
func silent(p *v1alpha1.NodePlan, leases map[string]coordinationv1.Lease, now time.Time) string {
	if leases == nil {
		return ""
	}
	since, too := audit.NeverHeard(p.CreationTimestamp.Time, now)
	if l, ever := leases[p.Name]; ever {
		since, too = audit.Silent(&l, now)
	}
	if !too {
		return ""
	}
	return duration.ShortHumanDuration(since)
}

func bundleStatus(nb *v1alpha1.NetworkBundle) BundleStatus {
	st := nb.Status
	b := BundleStatus{Name: nb.Name, Ready: string(metav1.ConditionUnknown), Nodes: st.Nodes, Created: nb.CreationTimestamp,
		Message:     "the controller has not looked at it: does danm-controller run?",
		Diagnostics: st.Diagnostics, DiagnosticsTotal: st.DiagnosticsTotal, Quarantined: st.Quarantined}
	if c := meta.FindStatusCondition(st.Conditions, "Ready"); c != nil {
		b.Ready, b.Reason, b.Message = string(c.Status), c.Reason, c.Message
	}
	if r := st.Fetched; r != nil {
		b.Fetched, b.fetched = r.Name, r.Short
	}
	if r := st.RolledOut; r != nil {
		b.RolledOut, b.rolledOut = r.Name, r.Short
	}
	if st.Rollout != nil {
		b.Late = st.Rollout.Late
	}
	return b
}

func (s ClusterStatus) text(now time.Time) string {
	if len(s.Bundles) == 0 {
		return "no NetworkBundles: kubectl apply one (docs/gitops.md)\n"
	}
	gaps := func(n int) []string { return slices.Repeat([]string{"  "}, n) }
	cells := [][]string{{"NAME", "READY", "STATUS", "FETCHED", "ROLLED OUT", "NODES", "AGE"}}
	for _, b := range s.Bundles {
		cells = append(cells, []string{b.Name, b.Ready, orDash(b.Reason), orDash(b.fetched), orDash(b.rolledOut), orDash(b.Nodes), age(now, b.Created)})
	}
	text := columns("", gaps(6), cells)
	for _, b := range s.Bundles {
		text += b.details()
	}
	cells = [][]string{{"NAME", "DESIRED", "APPLIED", "STATUS", "REASON", "DRIFT", "AGE"}}
	for _, n := range s.Nodes {
		cells = append(cells, []string{n.Node, orDash(v1alpha1.ShortID(n.Desired)), orDash(v1alpha1.ShortID(n.Applied)), orDash(n.Phase), n.Reason, fmt.Sprint(n.Drift), age(now, n.Created)})
	}
	text += "\n" + columns("", gaps(6), cells)
	for _, n := range s.Nodes {
		if n.Silent != "" {
			text += fmt.Sprintf("  %s: no sign of life of its agent for %s; kubectl -n danm-system get pods -o wide --field-selector spec.nodeName=%s\n", n.Node, n.Silent, n.Node)
		}
	}
	return text
}

// details are what a bundle's line has no room for: why it is not ready, its diagnostics, what is quarantined and how to lift it.
func (b BundleStatus) details() string {
	var out strings.Builder
	line := func(format string, a ...any) {
		fmt.Fprintf(&out, "  %s\n", strings.ReplaceAll(fmt.Sprintf(format, a...), "\n", "\n    "))
	}
	if b.Ready != string(metav1.ConditionTrue) && b.Message != "" {
		hint := ""
		if b.Reason != "" {
			hint = " (danmctl explain " + b.Reason + ")"
		}
		if strings.Contains(b.Message, "\n") {
			hint = strings.Replace(hint, " ", "\n", 1)
		}
		line("%s: %s%s", b.Name, b.Message, hint)
	}
	for _, d := range b.Diagnostics {
		if b.Ready != string(metav1.ConditionTrue) && strings.Contains(b.Message, d) {
			continue // it is why the bundle is not Ready
		}
		line("%s: %s", b.Name, d)
	}
	if more := b.DiagnosticsTotal - len(b.Diagnostics); more > 0 {
		line("%s: and %s; danmctl validate shows all", b.Name, plural(more, "more problem"))
	}
	if len(b.Late) > 0 {
		line("%s: late: %s", b.Name, strings.Join(b.Late, ", "))
	}
	for _, q := range b.Quarantined {
		line("%s: quarantined %s of %s: node %s undid it: %s\nlift it with a commit that changes the plan, or: danmctl retry --live --bundle %s %s",
			b.Name, q.Digest, v1alpha1.ShortRevision(q.Revision), q.Node, q.Reason, b.Name, q.Digest)
	}
	return out.String()
}

// age is as kubectl writes it, in its largest unit.
func age(now time.Time, since metav1.Time) string {
	d := now.Sub(since.Time)
	switch {
	case since.IsZero():
		return "-"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// RetryLive asks the controller to forget a quarantine, or all of a NetworkBundle with the digest "": OK, or Failed. The one
// request that danmctl writes.
func RetryLive(ctx context.Context, o LiveOptions, digest string, io IO) int {
	client, err := o.connect()
	if err != nil {
		return io.fail(err)
	}
	bundles, _, err := client.Status(ctx)
	if err != nil {
		return io.fail(err)
	}
	bundle, digests, err := quarantined(bundles, o.Bundle, digest)
	if err != nil {
		return io.fail(err)
	}
	const within = 30 * time.Second
	if err := client.Retry(ctx, bundle, digests, within); err != nil {
		return io.fail(err)
	}
	if err := io.text(fmt.Sprintf("%s may be tried again: %s\n", bundle, strings.Join(digests, ", "))); err != nil {
		return io.fail(err)
	}
	return OK
}

// quarantined finds the bundle and the whole digests that are meant. The beginning of a digest will do if it is one plan's alone.
func quarantined(bundles []v1alpha1.NetworkBundle, name, digest string) (bundle string, digests []string, err error) {
	const least = 7
	if digest == "" {
		if name == "" {
			return "", nil, &UsageError{"say which plan: its digest, or --bundle NAME for all of a bundle; danmctl status --live lists them"}
		}
	} else if len(strings.TrimPrefix(digest, "sha256:")) < least {
		return "", nil, &UsageError{fmt.Sprintf("%q is too short for a digest: give %d digits or more; danmctl status --live lists them", digest, least)}
	}
	if name != "" {
		nb, err := choose(name, bundles)
		if err != nil {
			return "", nil, err
		}
		bundles = []v1alpha1.NetworkBundle{*nb}
	}
	for i := range bundles {
		for _, q := range bundles[i].Status.Quarantined {
			if !strings.HasPrefix(q.Digest, "sha256:"+strings.TrimPrefix(digest, "sha256:")) {
				continue
			}
			if len(digests) > 0 && digest != "" {
				return "", nil, &UsageError{fmt.Sprintf("%s and %s begin so, or two bundles have it: give the whole digest and --bundle", digests[0], q.Digest)}
			}
			bundle, digests = bundles[i].Name, append(digests, q.Digest)
		}
	}
	if len(digests) == 0 {
		return "", nil, fmt.Errorf("nothing such is quarantined: danmctl status --live lists what is")
	}
	return bundle, digests, nil
}
