package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// maxVFs is how many virtual functions of one physical function are believed. PCI has 16 bits for them, devices far less.
const maxVFs = 1024

// pool is the model's pool with the place it came from.
type pool struct {
	model.SRIOVPool
	spot
	whole bool     // its numVFs and vfs could be read
	names []string // of physical functions, as written
}

// pools checks SR-IOV pools.
func (c *checker) pools() {
	for i := range c.docs.SRIOVPools {
		doc := &c.docs.SRIOVPools[i]
		s, v := at(&doc.Where, ""), &doc.Value
		c.subdomain(s.in("metadata").in("name"), v.Metadata.Name)
		if !c.unique("SRIOVPool", v.Metadata.Name, s.in("metadata").in("name")) {
			continue
		}
		c.origins["SRIOVPool/"+v.Metadata.Name] = s.origin()
		p := &pool{SRIOVPool: model.SRIOVPool{Name: v.Metadata.Name, NodeSelector: v.Spec.NodeSelector}, spot: s, whole: !s.broken(), names: v.Spec.PFs.Names}
		spec := s.in("spec")
		p.PFs = c.pfSelector(spec.in("pfs"), &v.Spec.PFs)
		c.virtualFunctions(p, spec, &v.Spec)
		c.functionSettings(p, spec, &v.Spec)
		p.ResourceName = v.Spec.ResourceName
		if p.ResourceName != "" || !s.broken() {
			c.resourceName(spec.in("resourceName"), p.ResourceName)
		}
		c.poolList = append(c.poolList, p)
		c.out.SRIOVPools = append(c.out.SRIOVPools, p.SRIOVPool)
	}
	c.poolPairs()
}

var (
	pciID      = regexp.MustCompile(`^[0-9a-f]{4}$`)
	driverWord = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)
	nameRange  = regexp.MustCompile(`^(.+)#([0-9]+(?:-[0-9]+)?)$`) // as the sriov-network-operator writes it
)

// pfSelector checks how physical functions are found.
func (c *checker) pfSelector(s spot, v *v1.PFSelector) model.PFSelector {
	if len(v.Names)+len(v.PCIAddresses)+len(v.Vendors)+len(v.Devices)+len(v.Drivers) == 0 && !s.broken() {
		c.error(diag.MissingField, s, "the pool selects no physical function", "give at least one of names, pciAddresses, vendors, devices, drivers")
	}
	for i, name := range v.Names {
		if m := nameRange.FindStringSubmatch(name); m != nil {
			c.error(diag.InvalidPFSelector, s.in("names").nth(i), fmt.Sprintf("%q has a range of virtual functions in a name", name), fmt.Sprintf("write names: [%s] and vfs: [%q]", m[1], m[2]))
			continue
		}
		c.linkName(s.in("names").nth(i), name)
	}
	return model.PFSelector{
		Names:   sortedSet(v.Names),
		PCI:     c.words(s.in("pciAddresses"), lower(v.PCIAddresses), pciText, "PCI address", "write it as 0000:3b:00.0"),
		Vendors: c.words(s.in("vendors"), lower(v.Vendors), pciID, "PCI vendor id", `write four hexadecimal digits, such as "8086"`),
		Devices: c.words(s.in("devices"), lower(v.Devices), pciID, "PCI device id", `write four hexadecimal digits, such as "158b"`),
		Drivers: c.words(s.in("drivers"), v.Drivers, driverWord, "driver", "write the kernel's name, such as i40e"),
	}
}

// words checks that all words have a form, and sorts them.
func (c *checker) words(s spot, words []string, form *regexp.Regexp, what, hint string) []string {
	for i, w := range words {
		if !form.MatchString(w) && (w != "" || !s.broken()) {
			c.error(diag.InvalidPFSelector, s.nth(i), fmt.Sprintf("%q is no %s", w, what), hint)
		}
	}
	return sortedSet(words)
}

func lower(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = strings.ToLower(s)
	}
	return out
}

// virtualFunctions checks how many there are, and which of them are in the pool.
func (c *checker) virtualFunctions(p *pool, s spot, v *v1.SRIOVPoolSpec) {
	p.NumVFs = v.NumVFs
	counted := v.NumVFs == 0 && s.broken() || c.number(diag.InvalidNumber, s.in("numVFs"), int64(v.NumVFs), 1, maxVFs)
	p.whole = p.whole && counted
	for i, text := range v.VFs {
		vs := s.in("vfs").nth(i)
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		r := model.Range32{First: uint32(a), Last: uint32(b)}
		switch {
		case text == "" && s.broken():
			p.whole = false
		case errA != nil || errB != nil:
			c.error(diag.InvalidRange, vs, fmt.Sprintf("%q is no range of virtual functions", text), `write "0-3" or "5"`)
			p.whole = false
		case b < a:
			c.error(diag.InvalidRange, vs, fmt.Sprintf("the range %s ends before it begins", text), fmt.Sprintf("write \"%d-%d\"", b, a))
			p.whole = false
		case !counted || v.NumVFs == 0: // how many there are is not known
		case int(b) >= p.NumVFs:
			c.error(diag.VFOutside, vs, fmt.Sprintf("there are virtual functions 0 to %d, so not all of %s", p.NumVFs-1, text), "raise numVFs, or narrow the range; functions are counted from 0")
			p.whole = false // without this range it may have none, which would be all
		case slices.ContainsFunc(p.VFs, func(o model.Range32) bool { return overlap(o, r) }):
			c.error(diag.VFOverlap, vs, fmt.Sprintf("virtual functions of %s stand in this pool already", text), "make one range of them, or separate them")
		default:
			p.VFs = append(p.VFs, r)
		}
	}
	sortRanges(p.VFs)
}

func overlap(a, b model.Range32) bool { return a.First <= b.Last && b.First <= a.Last }

// functionSettings checks how virtual functions are set.
func (c *checker) functionSettings(p *pool, s spot, v *v1.SRIOVPoolSpec) {
	if p.Driver = c.choice(s.in("driver"), v.Driver, "kernel", "vfio-pci"); p.Driver == "kernel" {
		p.Driver = ""
	}
	p.Trust, p.SpoofCheck = v.Trust, v.SpoofCheck
	p.LinkState = c.choice(s.in("linkState"), v.LinkState, "auto", "enable", "disable")
	least := c.number(diag.InvalidNumber, s.in("minTxRate"), v.MinTxRate, 0, 1<<32-1)
	most := c.number(diag.InvalidNumber, s.in("maxTxRate"), v.MaxTxRate, 0, 1<<32-1)
	if least && most && v.MaxTxRate != 0 && v.MinTxRate > v.MaxTxRate {
		c.error(diag.RateOrder, s.in("minTxRate"), fmt.Sprintf("%d Mbit/s are promised, but only %d may be sent", v.MinTxRate, v.MaxTxRate), "raise maxTxRate, or lower minTxRate")
	}
	p.MinTxRate, p.MaxTxRate = int(v.MinTxRate), int(v.MaxTxRate)
	c.mtu(s.in("mtu"), v.MTU, false)
	if p.MTU = v.MTU; p.MTU != 0 && p.Driver == "vfio-pci" {
		c.error(diag.FieldNotAllowed, s.in("mtu"), "a virtual function bound to vfio-pci has no interface in the kernel whose MTU could be set", "remove mtu: the program that drives the function sets it")
	}
}
