package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"danm.io/danm/spec/model"
)

// PoolVF is a virtual function of this node that a pool has.
type PoolVF struct {
	Pool   string // name
	PF     string // the kernel's name of the physical function's interface
	Number int
	VF     ObservedVF
}

// PoolVFs are the virtual functions that pools have among what is observed, by pool and PCI address. A function that two pools want is
// the first one's by name, and a pool whose number of functions is not the one that is there has none of that device: what it
// would offer is about to change.
func PoolVFs(pools []model.SRIOVPool, o Observed) []PoolVF {
	var out []PoolVF
	for i := range o.Links {
		l := &o.Links[i]
		s := shares(pools, l)
		if s == nil || s.numVFs != len(l.SRIOV.VFs) {
			continue
		}
		for n, p := range s.pool {
			if p != nil {
				out = append(out, PoolVF{Pool: p.Name, PF: l.Name, Number: n, VF: l.SRIOV.VFs[n]})
			}
		}
	}
	slices.SortFunc(out, func(a, b PoolVF) int { return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.VF.PCI, b.VF.PCI)) })
	return out
}

// share is how pools share a physical function.
type share struct {
	numVFs  int
	first   *model.SRIOVPool   // by name, of those that find the device
	pool    []*model.SRIOVPool // by number, nil = nobody's
	refused []refusal
}

// refusal is a pool that cannot have what it says of a device.
type refusal struct{ pool, reason, remedy string }

// shares says which pool has which virtual function of a device; nil if no pool wants any.
func shares(pools []model.SRIOVPool, l *ObservedLink) *share {
	if l.SRIOV == nil {
		return nil
	}
	var s *share
	for i := range pools {
		p := &pools[i]
		if !findsPF(p.PFs, l) {
			continue
		}
		if s == nil {
			s = &share{numVFs: p.NumVFs, first: p, pool: make([]*model.SRIOVPool, p.NumVFs)}
		}
		if p.NumVFs != s.numVFs {
			s.refused = append(s.refused, refusal{p.Name, fmt.Sprintf("it wants %d virtual functions of %s, and pool %s, which finds the same device, %d", p.NumVFs, l.Name, s.first.Name, s.numVFs), "give both the same numVFs, or other devices"})
			continue
		}
		s.take(p, l.Name)
	}
	return s
}

// take gives a pool the functions that it wants and nobody has.
func (s *share) take(p *model.SRIOVPool, pf string) {
	told := false
	for n := range s.pool {
		if len(p.VFs) > 0 && !slices.ContainsFunc(p.VFs, func(r model.Range32) bool { return r.Contains(uint32(n)) }) {
			continue
		}
		if o := s.pool[n]; o != nil {
			if !told {
				s.refused = append(s.refused, refusal{p.Name, fmt.Sprintf("pool %s has virtual function %d of %s already", o.Name, n, pf), "write vfs in both pools, such as 0-3 and 4-7"})
			}
			told = true
			continue
		}
		s.pool[n] = p
	}
}

// findsPF says whether a selector means a physical function.
func findsPF(s model.PFSelector, l *ObservedLink) bool {
	return s.Finds(model.NIC{Name: l.Name, AltNames: l.AltNames, PCI: l.PCI, Driver: l.Driver, Vendor: l.SRIOV.Vendor, Device: l.SRIOV.Device})
}

// vfProperty is one of VFSettings.
type vfProperty struct {
	name  string
	class Disruption
	fresh string // what a new function has, as far as drivers agree; "" = not known. It is put back where nobody knows what was before
	field func(*VFSettings) *string
	want  func(*model.SRIOVPool) string // "" = not declared
}

// vfProperties stand in the order in which they are set: the driver last, since one for programs may look at the others when it begins.
var vfProperties = []vfProperty{
	{"trust", None, "off", func(s *VFSettings) *string { return &s.Trust }, func(p *model.SRIOVPool) string { return switchText(p.Trust) }},
	{"spoofcheck", None, "on", func(s *VFSettings) *string { return &s.SpoofCheck }, func(p *model.SRIOVPool) string { return switchText(p.SpoofCheck) }},
	{"linkstate", None, "auto", func(s *VFSettings) *string { return &s.LinkState }, func(p *model.SRIOVPool) string { return p.LinkState }},
	{"rate", None, "0-0", func(s *VFSettings) *string { return &s.Rate }, func(p *model.SRIOVPool) string {
		if p.MinTxRate == 0 && p.MaxTxRate == 0 {
			return ""
		}
		return RateText(p.MinTxRate, p.MaxTxRate)
	}},
	{"mtu", None, "", func(s *VFSettings) *string { return &s.MTU }, func(p *model.SRIOVPool) string {
		if p.MTU == 0 {
			return ""
		}
		return strconv.Itoa(p.MTU)
	}},
	// Taking a device from its driver ends whoever uses it.
	{"driver", DestroysPods, DriverKernel, func(s *VFSettings) *string { return &s.Driver }, func(p *model.SRIOVPool) string {
		if p.Driver == "" {
			return DriverKernel
		}
		return p.Driver
	}},
}

func vfPropertyOf(name string) (vfProperty, bool) {
	i := slices.IndexFunc(vfProperties, func(p vfProperty) bool { return p.name == name })
	if i < 0 {
		return vfProperty{}, false
	}
	return vfProperties[i], true
}

func switchText(v *bool) string {
	switch {
	case v == nil:
		return ""
	case *v:
		return "on"
	}
	return "off"
}

// RateText is VFSettings.Rate of two rates in Mbit/s.
func RateText(least, most int) string { return fmt.Sprintf("%d-%d", least, most) }

// ParseRate reads what RateText wrote.
func ParseRate(text string) (least, most int, err error) {
	if _, err := fmt.Sscanf(text, "%d-%d", &least, &most); err != nil || RateText(least, most) != text {
		return 0, 0, fmt.Errorf("%q is no pair of rates", text)
	}
	return least, most, nil
}

// VFID is the record and step ID of a property of a virtual function.
func VFID(pf string, number int, property string) ObjectID {
	return ObjectID(fmt.Sprintf("vf/%s/%d/%s", pf, number, property))
}
