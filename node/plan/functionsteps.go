package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// setFunctions makes and sets virtual functions, a physical one after another.
func (t *transition) setFunctions(order []string) {
	for _, n := range order {
		want, have := t.to.links[n], t.now.links[n]
		if have == nil || want.SRIOV == nil || have.SRIOV == nil {
			continue
		}
		if from, to := len(have.SRIOV.VFs), len(want.SRIOV.VFs); from != to {
			class := DestroysPods
			if from == 0 {
				class = Blip // many cards begin anew
			}
			t.emit([]Step{t.set(want.Link, numVFs, strconv.Itoa(from), strconv.Itoa(to), class)})
		}
		var out []Step
		for i := range want.SRIOV.VFs {
			out = append(out, t.setVF(n, i, t.now.links[n].SRIOV.VFs[i], want.SRIOV.VFs[i])...)
		}
		// What hurts nobody does not wait for what does.
		slices.SortStableFunc(out, func(a, b Step) int { return a.Disruption.Rank() - b.Disruption.Rank() })
		t.emit(out)
	}
}

func (t *transition) setVF(pf string, n int, have, want ObservedVF) (out []Step) {
	for _, p := range vfProperties {
		from, to := *p.field(&have.VFSettings), *p.field(&want.VFSettings)
		if to == "" || to == from || to == DriverNone || to == DriverBusy || from == DriverBusy || p.name == "mtu" && have.Link == "" {
			continue
		}
		class := p.class
		if have.PCI == "" || from == DriverNone {
			class = None // nobody has it yet
		}
		s := t.step(SetVF, VFID(pf, n, p.name), class)
		s.LinkName, s.VF, s.Property, s.From, s.To = pf, &VFRef{Number: n, PCI: have.PCI}, p.name, from, to
		out = append(out, s)
	}
	return out
}

// setNumVFs models sriov_numvfs: all functions go, with their interfaces, and new ones come.
func (s *state) setNumVFs(l *ObservedLink, text string) {
	n, err := strconv.Atoi(text)
	if err != nil || l.SRIOV == nil || n == len(l.SRIOV.VFs) {
		return
	}
	gone := map[string]bool{}
	for _, vf := range l.SRIOV.VFs {
		if vf.Link != "" {
			gone[vf.Link] = true
		}
	}
	l.SRIOV.VFs = freshVFs(n)
	s.delete(gone)
}

func (s *state) setVF(step Step) {
	l := s.links[step.LinkName]
	if l == nil || l.SRIOV == nil || step.VF == nil || step.VF.Number >= len(l.SRIOV.VFs) {
		return
	}
	vf := &l.SRIOV.VFs[step.VF.Number]
	if p, known := vfPropertyOf(step.Property); known {
		*p.field(&vf.VFSettings) = step.To
	}
	link := s.links[vf.Link]
	switch {
	case step.Property == "mtu" && link != nil:
		link.MTU, _ = strconv.Atoi(step.To)
	case step.Property == "driver" && vf.Link != "": // the interface is its driver's
		s.delete(map[string]bool{vf.Link: true})
		vf.Link, vf.MTU = "", ""
	}
}

// touchNumVFs puts a physical function's virtual ones back with all that they were, also where their number is right again: they may be
// new ones.
func (r *reverter) touchNumVFs(was, is *ObservedLink) {
	if was.SRIOV == nil || is.SRIOV == nil {
		return
	}
	is.SRIOV.VFs = slices.Clone(was.SRIOV.VFs)
}

func (r *reverter) touchVF(s Step) {
	was, is := r.before.links[s.LinkName], r.to.links[s.LinkName]
	if was == nil || is == nil || was.SRIOV == nil || is.SRIOV == nil || s.VF == nil {
		return
	}
	p, known := vfPropertyOf(s.Property)
	if n := s.VF.Number; known && n < len(was.SRIOV.VFs) && n < len(is.SRIOV.VFs) {
		*p.field(&is.SRIOV.VFs[n].VFSettings) = *p.field(&was.SRIOV.VFs[n].VFSettings)
	}
}

func cloneSRIOV(s *ObservedPF) *ObservedPF {
	if s == nil {
		return nil
	}
	c := *s
	c.VFs = slices.Clone(s.VFs)
	return &c
}

// normal leaves out what changes by itself, or when a Pod comes and goes.
func (s *ObservedPF) normal() *ObservedPF {
	s = cloneSRIOV(s)
	if s != nil {
		for i := range s.VFs {
			vf := &s.VFs[i]
			vf.PCI, vf.Link, vf.Away, vf.MTU = "", "", false, ""
		}
	}
	return s
}

func (s *ObservedPF) dump(b *strings.Builder, name string) {
	if s == nil {
		return
	}
	fmt.Fprintf(b, "functions %s %d\n", name, len(s.VFs))
	for n := range s.VFs {
		fmt.Fprintf(b, "vf %s/%d", name, n)
		for _, p := range vfProperties {
			v := *p.field(&s.VFs[n].VFSettings)
			field(b, p.name, v, v != "")
		}
		b.WriteByte('\n')
	}
}

// Away says whether a step would end a virtual function whose interface is in another network namespace, whoever put it there.
func Away(s Step, o Observed) bool {
	i, found := slices.BinarySearchFunc(o.Links, s.LinkName, func(l ObservedLink, name string) int { return strings.Compare(l.Name, name) })
	if !found || o.Links[i].SRIOV == nil || s.Disruption != DestroysPods {
		return false
	}
	for n, vf := range o.Links[i].SRIOV.VFs {
		if vf.Away && (s.Op == SetLink && s.Property == numVFs || s.Op == SetVF && s.VF != nil && s.VF.Number == n) {
			return true
		}
	}
	return false
}
