package render

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// poolJudge compares pools with the nodes that there are and the cards that nodes have reported.
type poolJudge struct {
	r        *renderer
	hardware map[string][]model.NIC
	found    []finding
}

// finding is a problem of a pool on some nodes, whose names stand between head and tail.
type finding struct {
	diag.Diagnostic
	head, tail string
	nodes      []string
}

// judgePools says what pools cannot have. What a card cannot do is an error where the user asked about that hardware; in a cluster it
// is a warning, and the node's plan blocks that pool there, for all others must not wait until one node has another card.
func judgePools(r *renderer, states []model.NodeState, hardware map[string][]model.NIC) diag.List {
	j := &poolJudge{r: r, hardware: hardware}
	for i := range r.bundle.SRIOVPools {
		j.reach(&r.bundle.SRIOVPools[i])
	}
	for _, st := range states {
		for i := range st.Plan.Pools {
			for _, n := range hardware[st.Node] {
				j.card(&st, i, n)
			}
		}
	}
	out := j.strangers()
	for _, f := range j.found {
		f.Summary = f.head + nodesText(f.nodes) + f.tail
		out = append(out, f.Diagnostic)
	}
	return out
}

// strangers are nodes of the inventory that there are not: what is said of their cards is lost. In a cluster a node that has gone may leave its
// report for a while.
func (j *poolJudge) strangers() (out diag.List) {
	if j.r.reported != nil {
		return nil
	}
	names := make([]string, len(j.r.nodes))
	for i, n := range j.r.nodes {
		names[i] = n.Name
	}
	for _, name := range slices.Sorted(maps.Keys(j.hardware)) {
		if slices.Contains(names, name) {
			continue
		}
		hint := diag.Suggest(name, names)
		if hint == "" {
			hint = "correct the name, or add the node to nodes of the Topology or of the inventory"
		}
		out = append(out, diag.Diagnostic{Severity: diag.Warning, Code: diag.HardwareOfNoNode, Path: "hardware." + name, Hint: hint,
			Summary: fmt.Sprintf("the inventory has cards of node %s, which is not in the bundle", name)})
	}
	return out
}

// severity of what a card cannot do.
func (j *poolJudge) severity() diag.Severity {
	if j.r.reported != nil {
		return diag.Warning
	}
	return diag.Error
}

// add reports a problem once, however many nodes have it.
func (j *poolJudge) add(code diag.Code, severity diag.Severity, p *model.SRIOVPool, node, head, tail, hint string) {
	for i := range j.found {
		if f := &j.found[i]; f.Code == code && f.head == head && f.tail == tail {
			f.nodes = append(f.nodes, node)
			return
		}
	}
	f := finding{Diagnostic: diag.Diagnostic{Severity: severity, Code: code, Hint: hint}, head: head, tail: tail, nodes: []string{node}}
	if o, ok := j.r.bundle.Origins["SRIOVPool/"+p.Name]; ok {
		f.File, f.Line = o.File, o.Line
	}
	j.found = append(j.found, f)
}

// reach looks for nodes that can serve a pool. Nothing is said as long as a node of the pool has not reported its cards.
func (j *poolJudge) reach(p *model.SRIOVPool) {
	matching := slices.DeleteFunc(slices.Clone(j.r.nodes), func(n model.Node) bool { return !matches(p.NodeSelector, n.Labels) })
	switch {
	case len(j.r.nodes) == 0:
		return
	case len(matching) == 0:
		j.add(diag.PoolOnNoNode, diag.Warning, p, labelsText(p.NodeSelector), fmt.Sprintf("pool %s is on no node: none has the labels ", p.Name), "", "correct nodeSelector, or label the nodes")
		return
	}
	for _, n := range matching {
		cards, reported := j.hardware[n.Name]
		if !reported || slices.ContainsFunc(cards, func(c model.NIC) bool { return p.PFs.Finds(c) && (c.IsPF() || named(p)) }) {
			return
		}
	}
	for _, n := range matching {
		j.add(diag.PoolFindsNothing, diag.Warning, p, n.Name, fmt.Sprintf("pool %s looks for a card with SR-IOV and %s; there is none on ", p.Name, selectorText(p.PFs)), "", "compare with the cards of the nodes: danmctl status shows them")
	}
}

// named says whether a pool means cards one by one, and not all of a sort.
func named(p *model.SRIOVPool) bool { return len(p.PFs.Names)+len(p.PFs.PCI) > 0 }

// card judges a card of a node for one of the node's pools, and for the pools before it.
func (j *poolJudge) card(st *model.NodeState, i int, n model.NIC) {
	p := &st.Plan.Pools[i]
	switch {
	case !p.PFs.Finds(n):
		return
	case !n.IsPF():
		if named(p) {
			j.add(diag.NoSRIOV, diag.Warning, p, st.Node, fmt.Sprintf("pool %s finds %s on ", p.Name, n.Name), ", which has no SR-IOV, or has it switched off in its firmware", "switch SR-IOV on in the card's firmware and the machine's setup, or name another card")
		}
		return
	case n.TotalVFs > 0 && p.NumVFs > n.TotalVFs:
		j.add(diag.VFsAboveCard, j.severity(), p, st.Node, fmt.Sprintf("pool %s wants %d virtual functions of %s on ", p.Name, p.NumVFs, n.Name), fmt.Sprintf(", which can have %d", n.TotalVFs), fmt.Sprintf("at most %d, or raise the maximum in the card's firmware", n.TotalVFs))
	}
	if use := j.use(st, p, n); use != "" {
		j.add(diag.PFInUse, diag.Warning, p, st.Node, fmt.Sprintf("pool %s makes virtual functions of %s on ", p.Name, n.Name), ", which "+use, "take a card of its own, or make them while the node is drained")
	}
	for k := range st.Plan.Pools[:i] {
		if o := &st.Plan.Pools[k]; o.PFs.Finds(n) && j.quarrel(st.Node, o, p, n) {
			return
		}
	}
}

// quarrel checks two pools of one card.
func (j *poolJudge) quarrel(node string, o, p *model.SRIOVPool, n model.NIC) bool {
	if o.NumVFs != p.NumVFs {
		j.add(diag.NumVFsDiffer, j.severity(), p, node, fmt.Sprintf("pools %s and %s find one card, %s on ", o.Name, p.Name, n.Name), fmt.Sprintf(", and want %d and %d virtual functions made", o.NumVFs, p.NumVFs), "give both the same numVFs, or other cards")
		return true
	}
	for _, a := range p.Numbers() {
		for _, b := range o.Numbers() {
			if a.First <= b.Last && b.First <= a.Last {
				j.add(diag.VFOverlap, j.severity(), p, node, fmt.Sprintf("pools %s and %s find one card, %s on ", o.Name, p.Name, n.Name), fmt.Sprintf(", and both have its virtual function %d", max(a.First, b.First)), `write vfs in both, such as "0-3" and "4-7"`)
				return true
			}
		}
	}
	return false
}

// use is what else a card carries that the pool does not find by its declared name: the rule book sees those by itself.
func (j *poolJudge) use(st *model.NodeState, p *model.SRIOVPool, n model.NIC) string {
	for _, l := range st.Plan.Links {
		if l.Kind != model.Physical || !fits(l, n) || slices.Contains(p.PFs.Names, l.Name) {
			continue
		}
		if len(l.Addresses) > 0 {
			return fmt.Sprintf("has addresses of the host as %s", l.Name)
		}
		for _, o := range st.Plan.Links {
			switch {
			case o.Name == l.Master && o.Kind != model.VRF:
				return fmt.Sprintf("is a port of %s", o.Name)
			case o.Parent == l.Name:
				return fmt.Sprintf("carries %s", o.Name)
			}
		}
		for _, f := range j.r.bundle.Fabrics {
			if f.Device == l.Name && j.onFabric(st.Node, f) {
				return fmt.Sprintf("carries fabric %s", f.Name)
			}
		}
	}
	return ""
}

// onFabric says whether a node is in a group of the fabric.
func (j *poolJudge) onFabric(node string, f model.Fabric) bool {
	i, ok := slices.BinarySearchFunc(j.r.nodes, node, func(n model.Node, name string) int { return cmp.Compare(n.Name, name) })
	return ok && slices.ContainsFunc(j.r.bundle.Groups, func(g model.NodeGroup) bool {
		return slices.Contains(f.Groups, g.Name) && matches(g.Selector, j.r.nodes[i].Labels)
	})
}

func labelsText(selector map[string]string) string {
	words := make([]string, 0, len(selector))
	for k, v := range selector {
		words = append(words, k+"="+v)
	}
	slices.Sort(words)
	return strings.Join(words, ",")
}

// selectorText is a selector for people.
func selectorText(s model.PFSelector) string {
	var words []string
	for _, l := range []struct {
		what string
		list []string
	}{{"name", s.Names}, {"PCI address", s.PCI}, {"vendor", s.Vendors}, {"device", s.Devices}, {"driver", s.Drivers}} {
		if len(l.list) > 0 {
			words = append(words, l.what+" "+strings.Join(l.list, " or "))
		}
	}
	return strings.Join(words, " and ")
}

// shownNodes is how many nodes a problem names.
const shownNodes = 3

func nodesText(nodes []string) string {
	if more := len(nodes) - shownNodes; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(nodes[:shownNodes], ", "), more)
	}
	return strings.Join(nodes, ", ")
}
