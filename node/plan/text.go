package plan

import (
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// Empty says that nothing is to be done: no steps, no claims, no releases. Blocked objects do not count.
func (p Plan) Empty() bool { return len(p.Steps)+len(p.Claims)+len(p.Released) == 0 }

// Rank orders the classes, mildest 0; an unknown class ranks above all.
func (d Disruption) Rank() int {
	switch d {
	case None, "":
		return 0
	case Blip:
		return 1
	case LinkDown:
		return 2
	case DestroysPods:
		return 3
	}
	return 4
}

// Worst is the strongest disruption class among the steps, None for an empty plan.
func (p Plan) Worst() Disruption {
	worst := None
	for _, s := range p.Steps {
		if s.Disruption.Rank() > worst.Rank() {
			worst = s.Disruption
		}
	}
	return worst
}

// NamePods returns a copy of the plan with Step.Pods filled, sorted and without duplicates, for each step above class none:
// attached gives the Pods whose interfaces stand on a link (kernel name).
func (p Plan) NamePods(attached func(link string) []string) Plan {
	p.Steps = slices.Clone(p.Steps)
	for i := range p.Steps {
		s := &p.Steps[i]
		s.Pods = nil
		if s.Disruption.Rank() == 0 || s.On() == "" {
			continue
		}
		pods := slices.Clone(attached(s.On()))
		slices.Sort(pods)
		s.Pods = slices.Compact(pods)
	}
	return p
}

// linkName is the kernel's name of the link that the step works on.
func (s Step) linkName() string {
	switch {
	case s.Link != nil:
		return s.Link.Name
	case s.Route != nil:
		return s.Route.Dev
	case s.Peer != nil:
		return s.Peer.Link
	}
	return s.LinkName
}

// On is what a step works on, as those name it who say which Pods are on it: the kernel's name of a link (a route is on its device), or
// SRIOVKey or VFKey of functions that a step makes anew or sets. "" is a step on nothing that Pods are on.
func (s Step) On() string {
	switch {
	case s.VF != nil && s.VF.PCI != "":
		return VFKey(s.VF.PCI)
	case s.VF != nil, s.Op == SetLink && s.Property == numVFs:
		return SRIOVKey(s.LinkName)
	}
	return s.linkName()
}

// String is the step in one line: "+ link vx_telem vxlan 5001 dev eth0", "~ link x mtu 1500 -> 1400", "- address 10.0.0.1/24 dev x".
func (s Step) String() string {
	switch s.Op {
	case CreateLink:
		return "+ link " + linkText(*s.Link)
	case DeleteLink:
		return "- link " + linkText(*s.Link)
	case SetLink:
		if s.Property == "mtu" {
			return fmt.Sprintf("~ link %s mtu%s -> %s", s.linkName(), leading(s.From), s.To)
		}
		return fmt.Sprintf("~ link %s %s %s -> %s", s.linkName(), s.Property, orNone(s.From), orNone(s.To))
	case AddAddress:
		return fmt.Sprintf("+ address %s dev %s", s.Address, s.LinkName)
	case DeleteAddress:
		return fmt.Sprintf("- address %s dev %s", s.Address, s.LinkName)
	case AddRoute:
		if s.From != "" {
			return fmt.Sprintf("~ route %s (was %s)", routeText(*s.Route), s.From)
		}
		return "+ route " + routeText(*s.Route)
	case DeleteRoute:
		return "- route " + routeText(*s.Route)
	case SetVF:
		if s.VF != nil {
			return fmt.Sprintf("~ vf %s/%d %s%s -> %s", s.LinkName, s.VF.Number, s.Property, leading(s.From), s.To)
		}
	case SetSysctl:
		return fmt.Sprintf("~ sysctl %s%s -> %s", s.Sysctl, leading(s.From), s.To)
	case AddRule:
		return "+ rule " + ruleText(*s.Rule)
	case DeleteRule:
		return "- rule " + ruleText(*s.Rule)
	case AddPeer:
		return fmt.Sprintf("+ peer %s dev %s", s.Peer.Addr, s.Peer.Link)
	case DeletePeer:
		return fmt.Sprintf("- peer %s dev %s", s.Peer.Addr, s.Peer.Link)
	}
	return fmt.Sprintf("? %s %s", s.Op, s.ID)
}

// leading is a word with a blank before it, nothing for none.
func leading(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func linkText(l model.Link) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", l.Name, l.Kind)
	switch {
	case l.VXLAN != nil:
		fmt.Fprintf(&b, " %d", l.VXLAN.VNI)
	case l.VLANID != 0:
		fmt.Fprintf(&b, " %d", l.VLANID)
	case l.Kind == model.Bond:
		b.WriteString(" " + modeOf(l))
	}
	field(&b, "table", l.Table, l.Table != 0)
	field(&b, "dev", l.Parent, l.Parent != "")
	field(&b, "master", l.Master, l.Master != "")
	return b.String()
}

func routeText(r model.Route) string {
	var b strings.Builder
	b.WriteString(r.To.String())
	field(&b, "via", r.Via, r.Via.IsValid())
	field(&b, "dev", r.Dev, r.Dev != "")
	field(&b, "table", r.Table, r.Table != 0 && r.Table != MainTable)
	field(&b, "metric", r.Metric, r.Metric != 0)
	return b.String()
}

// nexthopText is the part of a route that a replacement changes.
func nexthopText(r model.Route) string {
	var b strings.Builder
	field(&b, "via", r.Via, r.Via.IsValid())
	field(&b, "dev", r.Dev, r.Dev != "")
	return strings.TrimSpace(b.String())
}

// String is the blocked object in one line, without its remedy.
func (b Blocked) String() string { return fmt.Sprintf("! blocked: %s: %s", b.ID, b.Reason) }

// Text lists steps and blocked objects, one a line, in execution order, with class and Pods behind the disruptive ones.
func (p Plan) Text() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String())
		if s.Disruption.Rank() > 0 {
			fmt.Fprintf(&b, "  %s", s.Disruption)
		}
		if len(s.Pods) > 0 {
			fmt.Fprintf(&b, "  %d (%s)", len(s.Pods), strings.Join(s.Pods, ", "))
		}
		b.WriteByte('\n')
	}
	for _, x := range p.Blocked {
		fmt.Fprintf(&b, "%s\n  remedy: %s\n", x, x.Remedy)
	}
	return b.String()
}
