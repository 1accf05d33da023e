package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// hardwareMTU is what is assumed of a network card of which nothing is known (IEEE 802.3).
const hardwareMTU = 1500

// assumed is a host as a dry run sees it: the physical links that the plans name, found by whatever the plans match them
// with, with MTU 1500 and no addresses. Those of the running plan are up, the others as hardware comes: down. Cards are what
// is known of the node's hardware: one that a plan means is it, with its name and limits, and is up if it has a carrier.
func assumed(running, coming model.NodePlan, cards []model.NIC) plan.Observed {
	var o plan.Observed
	for _, c := range cards {
		have := plan.ObservedLink{
			Link: model.Link{Name: c.Name, Kind: model.Physical, MTU: hardwareMTU, Up: c.Speed > 0},
			MAC:  c.MAC, PCI: c.PCI, Driver: c.Driver, MinMTU: c.MinMTU, MaxMTU: c.MaxMTU, AltNames: c.AltNames,
		}
		if c.TotalVFs > 0 || c.VFs > 0 {
			have.SRIOV = &plan.ObservedPF{TotalVFs: c.TotalVFs, Vendor: c.Vendor, Device: c.Device, VFs: plan.NewVFs(c.VFs)}
		}
		o.Links = append(o.Links, have)
	}
	add := func(l model.Link, up bool) {
		if l.Kind != model.Physical {
			return
		}
		if hits := plan.Find(l, o.Links); len(hits) > 0 {
			for _, i := range hits {
				o.Links[i].Up = o.Links[i].Up || up
			}
			return
		}
		have := plan.ObservedLink{Link: model.Link{Name: assumedName(l), Kind: model.Physical, MTU: hardwareMTU, Up: up}}
		if m := l.Match; m != nil {
			have.MAC, have.PCI, have.Driver = m.MAC, m.PCI, m.Driver
		}
		if !slices.ContainsFunc(o.Links, func(x plan.ObservedLink) bool { return x.Name == have.Name }) {
			o.Links = append(o.Links, have)
		}
	}
	for _, l := range running.Links {
		add(l, true)
	}
	for _, l := range coming.Links {
		add(l, false)
	}
	if len(cards) == 0 {
		for _, p := range append(slices.Clone(running.Pools), coming.Pools...) {
			o.Links = withCards(o.Links, p.PFs)
		}
	}
	name := func(l model.Link) string {
		if hits := plan.Find(l, o.Links); len(hits) > 0 {
			return o.Links[hits[0]].Name
		}
		return assumedName(l)
	}
	o.Sysctls = assumedSysctls(name, running, coming)
	plan.Sort(&o)
	return o
}

// withCards adds what a pool's selector names of cards, by interface or else by PCI address, and gives them SR-IOV without functions. What is
// selected by vendor, device or driver alone is not known.
func withCards(links []plan.ObservedLink, s model.PFSelector) []plan.ObservedLink {
	names := s.Names
	if len(names) == 0 {
		names = s.PCI
	}
	for i, name := range names {
		at := slices.IndexFunc(links, func(l plan.ObservedLink) bool {
			return l.Name == name || slices.Contains(l.AltNames, name) || l.PCI == name
		})
		if at < 0 {
			at = len(links)
			links = append(links, plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: hardwareMTU}})
		}
		l := &links[at]
		if l.SRIOV == nil {
			l.SRIOV = &plan.ObservedPF{}
		}
		l.PCI = cmp.Or(l.PCI, nth(s.PCI, i))
		l.Driver, l.SRIOV.Vendor, l.SRIOV.Device = cmp.Or(l.Driver, nth(s.Drivers, 0)), cmp.Or(l.SRIOV.Vendor, nth(s.Vendors, 0)), cmp.Or(l.SRIOV.Device, nth(s.Devices, 0))
	}
	return links
}

// nth is the n-th word, the first if there are fewer, "" if there is none.
func nth(words []string, n int) string {
	if len(words) == 0 {
		return ""
	}
	return words[min(n, len(words)-1)]
}

// assumedSysctls are the kernel parameters that the plans set, with unknown values; those of links to be made come with them.
func assumedSysctls(name func(model.Link) string, plans ...model.NodePlan) []model.Sysctl {
	var out []model.Sysctl
	for _, p := range plans {
		for _, s := range p.Sysctls {
			parts := strings.Split(s.Key, ".")
			perLink := len(parts) == 5 && (parts[2] == "conf" || parts[2] == "neigh")
			if perLink && parts[3] != "all" && parts[3] != "default" {
				i := slices.IndexFunc(p.Links, func(l model.Link) bool { return l.Name == strings.ReplaceAll(parts[3], "/", ".") })
				if i < 0 || p.Links[i].Kind != model.Physical {
					continue
				}
				parts[3] = strings.ReplaceAll(name(p.Links[i]), ".", "/")
			}
			keys := []string{strings.Join(parts, ".")}
			if perLink && parts[3] == "all" {
				parts[3] = "default" // what new links get follows
				keys = append(keys, strings.Join(parts, "."))
			}
			for _, key := range keys {
				if !slices.ContainsFunc(out, func(x model.Sysctl) bool { return x.Key == key }) {
					out = append(out, model.Sysctl{Key: key})
				}
			}
		}
	}
	return out
}

// assumedName is the kernel's name of a physical link as far as the plan says it.
func assumedName(l model.Link) string {
	if l.Match != nil && l.Match.Name != "" {
		return l.Match.Name
	}
	return l.Name
}

// asIfApplied is what would be observed on host after desired was applied to it, with the ledger's records.
func asIfApplied(desired plan.Desired, host plan.Observed) plan.Observed {
	p := plan.Diff(desired, host)
	after := plan.Supposed(plan.Simulate(host, p.Steps))
	after.Owned = slices.DeleteFunc(slices.Concat(host.Owned, p.Claims), func(r plan.Record) bool {
		return slices.Contains(p.Released, r.ID)
	})
	slices.SortFunc(after.Owned, func(a, b plan.Record) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return after
}

// row is one line of a node's table.
type row struct {
	text       string
	disruption string
	pods       string
	more       string // indented below
	sign       byte   // + - ~ or !
}

// rows folds a plan for people: a link that is deleted and made again for the same network is one line, so are the peers of
// one link, and what happens to several virtual functions.
func rows(p plan.Plan) []row {
	var out []row
	replaced := replacements(p)
	peers := map[string]int{}       // operation and link → how many
	functions := map[string][]int{} // steps that differ in the number of the virtual function alone → those numbers
	for _, s := range p.Steps {
		if s.Peer != nil {
			peers[string(s.Op)+s.Peer.Link]++
		}
		if s.VF != nil {
			functions[alike(s)] = append(functions[alike(s)], s.VF.Number)
		}
	}
	for i, s := range p.Steps {
		if _, skip := replaced.skip[i]; skip {
			continue
		}
		if was, ok := replaced.by[i]; ok {
			out = append(out, replacementRow(p.Steps[was], s))
			continue
		}
		if s.Peer != nil {
			key := string(s.Op) + s.Peer.Link
			if peers[key] > 0 {
				out = append(out, peersRow(s, peers[key]))
				peers[key] = 0
			}
			continue
		}
		if s.VF != nil {
			if numbers := functions[alike(s)]; len(numbers) > 0 {
				out = append(out, functionsRow(s, numbers))
				functions[alike(s)] = nil
			}
			continue
		}
		out = append(out, stepRow(s))
	}
	for _, b := range p.Blocked {
		out = append(out, row{text: b.String(), disruption: "-", pods: "-", more: "remedy: " + b.Remedy, sign: '!'})
	}
	return out
}

func stepRow(s plan.Step) row {
	text := s.String()
	return row{text: text, disruption: string(s.Disruption), pods: podsText(s.Pods), sign: text[0]}
}

// peersRow stands for all peers of one link: nodes that differ only in whom they flood to read alike.
func peersRow(s plan.Step, count int) row {
	sign := s.String()[:1]
	return row{text: fmt.Sprintf("%s %s of %s", sign, plural(count, "peer"), s.Peer.Link), disruption: string(s.Disruption), pods: "-", sign: sign[0]}
}

// alike is a step on a virtual function without its number.
func alike(s plan.Step) string {
	return fmt.Sprint(s.LinkName, "/", s.Property, " ", s.From, " ", s.To, " ", s.Disruption, " ", s.Pods)
}

// functionsRow stands for one step on several virtual functions of a card.
func functionsRow(s plan.Step, numbers []int) row {
	var ranges []model.Range32
	for _, n := range numbers {
		if last := len(ranges) - 1; last >= 0 && ranges[last].Last+1 == uint32(n) {
			ranges[last].Last++
			continue
		}
		ranges = append(ranges, model.Range32{First: uint32(n), Last: uint32(n)})
	}
	r := stepRow(s)
	r.text = strings.Replace(r.text, fmt.Sprintf("%s/%d ", s.LinkName, s.VF.Number), fmt.Sprintf("%s/%s ", s.LinkName, rangesText(ranges)), 1)
	return r
}

func rangesText(ranges []model.Range32) string {
	words := make([]string, len(ranges))
	for i, r := range ranges {
		words[i] = r.String()
	}
	return strings.Join(words, ",")
}

func podsText(pods []string) string {
	if len(pods) == 0 {
		return "-"
	}
	return fmt.Sprintf("%d (%s)", len(pods), strings.Join(pods, ", "))
}

// pairs are steps that are two halves of one replacement.
type pairs struct {
	skip map[int]bool // index of the deletion
	by   map[int]int  // index of the creation → of its deletion
}

// replacements pairs deletions with creations that serve the same networks (the alias names them) by the same kind of link.
func replacements(p plan.Plan) pairs {
	out := pairs{skip: map[int]bool{}, by: map[int]int{}}
	for i, s := range p.Steps {
		if s.Op != plan.CreateLink {
			continue
		}
		for j, d := range p.Steps {
			if d.Op != plan.DeleteLink || out.skip[j] || d.Link.Kind != s.Link.Kind {
				continue
			}
			if d.Link.Name == s.Link.Name || (d.Link.Alias != "" && d.Link.Alias == s.Link.Alias) {
				out.skip[j], out.by[i] = true, j
				break
			}
		}
	}
	return out
}

func replacementRow(was, now plan.Step) row {
	name, text := was.Link.Name, was.Link.Name+" -> "+now.Link.Name
	if name == now.Link.Name {
		before, after := trimCommon(strings.Fields(was.String())[3:], strings.Fields(now.String())[3:])
		text = fmt.Sprintf("%s %s -> %s", name, strings.Join(before, " "), strings.Join(after, " "))
		if len(before)+len(after) == 0 {
			text = name + " made anew"
		}
	}
	worst := was
	if now.Disruption.Rank() > was.Disruption.Rank() {
		worst = now
	}
	return row{text: "~ link " + text, disruption: string(worst.Disruption), pods: podsText(worst.Pods), sign: '~'}
}

// trimCommon drops the words that both end with, and those both begin with but the last, which says what the rest is.
func trimCommon(a, b []string) ([]string, []string) {
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	for len(a) > 1 && len(b) > 1 && a[0] == b[0] && a[1] == b[1] {
		a, b = a[1:], b[1:]
	}
	if len(a) > 1 && len(b) > 1 && a[0] == b[0] {
		return a, b[1:]
	}
	return a, b
}
