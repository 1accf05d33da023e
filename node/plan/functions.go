package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/model"
)

// numVFs is the property of a physical function that says how many virtual ones it has.
const numVFs = "numvfs"

// PoolID names a pool among blocked objects.
func PoolID(name string) ObjectID { return ObjectID("pool/" + name) }

// SRIOVKey and VFKey are how Pods are named, beside host links, that have virtual functions: those of any function of a physical one,
// and that of one function. What ends a function asks for them.
func SRIOVKey(pf string) string { return "sriov/" + pf }
func VFKey(pci string) string   { return "vf/" + pci }

// IsFunctionKey says whether a key is one of these.
func IsFunctionKey(key string) bool {
	return strings.HasPrefix(key, SRIOVKey("")) || strings.HasPrefix(key, VFKey(""))
}

// IsFunctions says whether a record is about virtual functions: their number, or a property of one.
func IsFunctions(id ObjectID) bool {
	kind, rest, _ := strings.Cut(string(id), "/")
	return kind == "vf" || kind == "property" && strings.HasSuffix(rest, "/"+numVFs)
}

// wantCards puts what pools say of physical functions into the target, before the links that may stand on them are judged.
func (d *differ) wantCards() {
	pools := d.desired.Plan.Pools
	for _, p := range pools {
		for _, name := range p.PFs.Names {
			if l := d.obs.links[name]; l != nil && l.SRIOV == nil {
				d.asides[PoolID(p.Name)] = Blocked{ID: PoolID(p.Name), Reason: name + " has no SR-IOV", Remedy: "name another card, or switch SR-IOV on in the firmware and the kernel (intel_iommu=on, pci=realloc)"}
			}
		}
	}
	for _, name := range d.obs.withSRIOV() {
		have := d.obs.links[name]
		s := shares(pools, have)
		if have.SRIOV.Unseen != "" {
			d.heldVFs[name], d.keep[PropertyID(name, numVFs)] = true, true
			if s != nil {
				d.aside(PropertyID(name, numVFs), "the card does not tell of its virtual functions: "+have.SRIOV.Unseen, "look at the card and its driver; it is tried again")
			}
			continue
		}
		if s == nil {
			continue
		}
		for _, r := range s.refused {
			d.asides[PoolID(r.pool)] = Blocked{ID: PoolID(r.pool), Reason: r.reason, Remedy: r.remedy}
		}
		if d.wantNumVFs(have, s) {
			d.cards[name] = s
		} else {
			d.heldVFs[name] = true
		}
	}
}

// withSRIOV are the physical functions, sorted by name.
func (s *state) withSRIOV() []string {
	var out []string
	for name, l := range s.links {
		if l.SRIOV != nil {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// wantFunctions puts what pools say of virtual functions into the target.
func (d *differ) wantFunctions() {
	for name, s := range d.cards {
		for n, p := range s.pool {
			if p != nil {
				d.wantVF(d.obs.links[name], n, p)
			}
		}
	}
}

// wantNumVFs puts the number of virtual functions into the target, and the physical one up, without which they carry nothing. It
// says false if the number cannot be had.
func (d *differ) wantNumVFs(have *ObservedLink, s *share) bool {
	o, now := d.to.links[have.Name], len(have.SRIOV.VFs)
	if o == nil || o.SRIOV == nil {
		return false // another link takes its name
	}
	id := PropertyID(have.Name, numVFs)
	switch {
	case have.SRIOV.TotalVFs != 0 && s.numVFs > have.SRIOV.TotalVFs:
		d.aside(id, fmt.Sprintf("%d virtual functions are above the device's maximum %d", s.numVFs, have.SRIOV.TotalVFs), "lower numVFs of pool "+s.first.Name)
		return false
	case now != s.numVFs:
		if use := d.usedByHost(have); use != "" {
			d.aside(id, "its virtual functions would all be made anew, and "+use, "free it, or leave numVFs as it is")
			return false
		}
	}
	d.own(have.Name, numVFs, strconv.Itoa(now))
	if now != s.numVFs {
		o.SRIOV.VFs = freshVFs(s.numVFs)
	}
	d.own(have.Name, "up", upText(have.Up))
	o.Up = true
	return true
}

// NewVFs are new functions with what drivers agree on: what a dry run supposes of those that it does not see.
func NewVFs(n int) []ObservedVF {
	out := freshVFs(n)
	for i := range out {
		for _, p := range vfProperties {
			*p.field(&out[i].VFSettings) = p.fresh
		}
	}
	return out
}

// Supposed fills in what is not known of functions that a dry run has made.
func Supposed(o Observed) Observed {
	for i := range o.Links {
		s := cloneSRIOV(o.Links[i].SRIOV)
		if s == nil {
			continue
		}
		for n := range s.VFs {
			for _, p := range vfProperties {
				if value := p.field(&s.VFs[n].VFSettings); *value == "" {
					*value = p.fresh
				}
			}
		}
		o.Links[i].SRIOV = s
	}
	return o
}

// freshVFs are new functions as far as they are known beforehand: the kernel gives each to its own driver.
func freshVFs(n int) []ObservedVF {
	out := make([]ObservedVF, n)
	for i := range out {
		out[i].Driver = DriverKernel
	}
	return out
}

// usedByHost says why none of a card's functions can end, "" if all can.
func (d *differ) usedByHost(pf *ObservedLink) string {
	for n, vf := range pf.SRIOV.VFs {
		if use := hostUse(vf, d.obs.links, d.declared); use != "" {
			return use
		}
		if vf.Driver == DriverBusy {
			return fmt.Sprintf("a program has function %d open", n)
		}
	}
	return ""
}

func (d *differ) declared(link string) bool { _, is := d.wants[link]; return is }

// HostUse says what use the host makes of a virtual function's interface, or the plan will, "" if none.
func HostUse(vf ObservedVF, o Observed, p model.NodePlan) string {
	links := make(map[string]*ObservedLink, 1)
	for i := range o.Links {
		if o.Links[i].Name == vf.Link {
			links[vf.Link] = &o.Links[i]
		}
	}
	return hostUse(vf, links, func(name string) bool {
		return slices.ContainsFunc(p.Links, func(l model.Link) bool {
			return l.Kind == model.Physical && links[name] != nil && len(Find(l, []ObservedLink{*links[name]})) > 0
		})
	})
}

func hostUse(vf ObservedVF, links map[string]*ObservedLink, declared func(string) bool) string {
	l := links[vf.Link]
	switch {
	case l == nil:
		return ""
	case declared(l.Name):
		return l.Name + " is declared as an interface of the host"
	case l.Master != "":
		return fmt.Sprintf("%s is a port of %s", l.Name, l.Master)
	case l.Children > 0:
		return "another link stands on " + l.Name
	case len(l.Addresses) > 0:
		return fmt.Sprintf("%s has the host's address %s", l.Name, l.Addresses[0])
	}
	return ""
}

// wantVF puts what a pool says of one function into the target, and records what it was.
func (d *differ) wantVF(have *ObservedLink, n int, p *model.SRIOVPool) {
	o := d.to.links[have.Name]
	fresh := len(o.SRIOV.VFs) != len(have.SRIOV.VFs)
	vf := &o.SRIOV.VFs[n]
	for _, property := range vfProperties {
		want, id := property.want(p), VFID(have.Name, n, property.name)
		if want == "" {
			continue
		}
		value := property.field(&vf.VFSettings)
		was := *value
		if fresh {
			was = "" // nobody knows yet
		}
		r, recorded := d.records[id]
		switch {
		case property.name == "mtu" && vf.Link == "": // not made yet, or in a Pod: whoever has it is told the MTU elsewhere
			d.keep[id] = true
			continue
		case property.name == "rate" && have.NoCarrier: // drivers compare it with the speed that the link has
			d.keep[id] = true
			continue
		case was == DriverBusy:
			d.aside(id, fmt.Sprintf("a program has function %d of %s open", n, have.Name), "end the program")
			continue
		case property.name == "driver" && want != was && slices.Contains(have.SRIOV.Lacks, want):
			d.aside(id, "the kernel has no driver "+want, "load its module (modprobe "+want+"), and switch the IOMMU on")
			continue
		case property.name == "mtu" && d.unfitMTU(id, o, vf.Link, p):
			continue
		case !fresh && was == "":
			d.aside(id, fmt.Sprintf("the driver of %s does not tell %s of its virtual functions, or has none", have.Name, property.name), fmt.Sprintf("remove it from pool %s", p.Name))
			continue
		case want == DriverKernel && was == DriverNone && !(recorded && r.Prior == DriverKernel):
			want = DriverNone // no driver of the kernel wants it; if it had one, a change of drivers was cut off
		case property.name == "driver" && was != want && !fresh:
			if use := hostUse(*vf, d.obs.links, d.declared); use != "" {
				d.aside(id, "another driver would take the interface away, and "+use, "free it, or leave the function out of pool "+p.Name)
				continue
			}
		}
		d.keep[id] = true
		if !recorded {
			d.claims[id] = Record{ID: id, Prior: was}
		}
		*value = want
	}
}

// unfitMTU says whether a function's interface cannot have the pool's MTU, and blocks it.
func (d *differ) unfitMTU(id ObjectID, pf *ObservedLink, link string, p *model.SRIOVPool) bool {
	switch _, declared := d.wants[link]; {
	case declared:
		d.aside(id, link+" is declared as an interface of the host", "declare its mtu there")
	case pf.MTU < p.MTU:
		d.aside(id, fmt.Sprintf("mtu %d does not fit: the physical function %s has %d", p.MTU, pf.Name, pf.MTU), "declare a larger mtu on "+pf.Name)
	default:
		return false
	}
	return true
}

// releaseVF puts back what a property of a function was before us. rest is "<number>/<property>".
func (d *differ) releaseVF(pf, rest, prior string) {
	number, name, _ := strings.Cut(rest, "/")
	property, known := vfPropertyOf(name)
	n, err := strconv.Atoi(number)
	o, have := d.to.links[pf], d.obs.links[pf]
	if !known || err != nil || o.SRIOV == nil || have == nil || have.SRIOV == nil || n < 0 || n >= len(o.SRIOV.VFs) || len(o.SRIOV.VFs) != len(have.SRIOV.VFs) {
		return // it is gone, or goes
	}
	if prior == "" || prior == DriverNone {
		prior = property.fresh
	}
	vf := &o.SRIOV.VFs[n]
	value := property.field(&vf.VFSettings)
	if prior == "" || *value == "" || name == "driver" && (*value == DriverNone || *value == DriverBusy) {
		return
	}
	if _, declared := d.wants[vf.Link]; name == "mtu" && (vf.Link == "" || declared) || name == "driver" && *value != prior && hostUse(*vf, d.obs.links, d.declared) != "" {
		return
	}
	*value = prior
}

// restoreNumVFs puts the number before us back into the target. It says false while that is not possible.
func (d *differ) restoreNumVFs(l *ObservedLink, prior string) bool {
	n, err := strconv.Atoi(prior)
	have := d.obs.links[l.Name]
	if err != nil || l.SRIOV == nil || have == nil || have.SRIOV == nil || n == len(l.SRIOV.VFs) {
		return true
	}
	if use := d.usedByHost(have); use != "" {
		d.aside(PropertyID(l.Name, numVFs), "its virtual functions would all go, and "+use, "free it, or declare a pool on "+l.Name)
		return false
	}
	l.SRIOV.VFs = freshVFs(n)
	return true
}
