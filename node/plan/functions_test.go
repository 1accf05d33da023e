package plan

import (
	"net/netip"
	"strings"
	"testing"

	"danm.io/danm/spec/model"
)

// card is a physical function that is up, with two functions as the kernel makes them, and pool wants something of every kind of them.
func card() ObservedLink {
	l := ObservedLink{Link: model.Link{Name: "ens1", Kind: model.Physical, MTU: 1500, Up: true}, PCI: "0000:01:00.0", SRIOV: &ObservedPF{TotalVFs: 8, VFs: NewVFs(2)}}
	l.SRIOV.VFs[0].PCI, l.SRIOV.VFs[1].PCI = "0000:01:10.0", "0000:01:10.2"
	return l
}

func poolOn(driver string) Desired {
	return Desired{Plan: model.NodePlan{Pools: []model.SRIOVPool{{Name: "p", PFs: model.PFSelector{Names: []string{"ens1"}}, NumVFs: 2, Trust: new(true), MaxTxRate: 10, Driver: driver, ResourceName: "x/y"}}}}
}

// TestWhatCardsAllowNow: what a card cannot do now is blocked with the remedy, or comes later by itself; it never fails a plan.
func TestWhatCardsAllowNow(t *testing.T) {
	for name, c := range map[string]struct {
		driver string
		change func(*ObservedLink)
		owned  []Record
		want   []string // in the text
		not    []string
		keeps  ObjectID // is not released
	}{
		"everything": {driver: DriverVFIO, want: []string{"trust off -> on", "rate 0-0 -> 0-10", "driver kernel -> vfio-pci"}},
		"no carrier": {change: func(l *ObservedLink) { l.NoCarrier = true }, want: []string{"trust off -> on"}, not: []string{"rate"}},
		"no module": {driver: DriverVFIO, change: func(l *ObservedLink) { l.SRIOV.Lacks = []string{DriverVFIO} },
			want: []string{"blocked: vf/ens1/0/driver", "modprobe vfio-pci", "trust off -> on"}, not: []string{"driver kernel ->"}},
		"no module, and no functions yet": {driver: DriverVFIO, change: func(l *ObservedLink) { l.SRIOV.Lacks, l.SRIOV.VFs = []string{DriverVFIO}, nil },
			want: []string{"numvfs 0 -> 2", "blocked: vf/ens1/1/driver"}, not: []string{"-> vfio-pci"}},
		"a program has it":                 {driver: DriverVFIO, change: func(l *ObservedLink) { l.SRIOV.VFs[1].Driver = DriverBusy }, want: []string{"ens1/0 driver kernel -> vfio-pci", "blocked: vf/ens1/1/driver"}, not: []string{"ens1/1 driver"}},
		"a program has one of three":       {change: func(l *ObservedLink) { l.SRIOV.VFs = NewVFs(3); l.SRIOV.VFs[2].Driver = DriverBusy }, want: []string{"blocked: property/ens1/numvfs", "function 2 open"}, not: []string{"numvfs 3"}},
		"left without a driver on the way": {driver: DriverVFIO, change: func(l *ObservedLink) { l.SRIOV.VFs[0].Driver = DriverNone }, want: []string{"ens1/0 driver none -> vfio-pci\n"}},
		"no driver wants it":               {change: func(l *ObservedLink) { l.SRIOV.VFs[0].Driver = DriverNone }, not: []string{"driver"}},
		"one that had a driver has none": {change: func(l *ObservedLink) { l.SRIOV.VFs[0].Driver = DriverNone },
			owned: []Record{{ID: VFID("ens1", 0, "driver"), Prior: DriverKernel}}, want: []string{"ens1/0 driver none -> kernel\n"}},
		"the card does not tell": {change: func(l *ObservedLink) { *l.SRIOV = ObservedPF{Unseen: "input/output error"} },
			owned: []Record{{ID: VFID("ens1", 0, "trust"), Prior: "off"}, {ID: PropertyID("ens1", "numvfs"), Prior: "0"}},
			want:  []string{"blocked: property/ens1/numvfs: the card does not tell", "input/output error"}, not: []string{"~"}, keeps: VFID("ens1", 0, "trust")},
	} {
		l := card()
		if c.change != nil {
			c.change(&l)
		}
		p := Diff(poolOn(c.driver), Observed{Links: []ObservedLink{l}, Owned: c.owned})
		text := p.Text()
		for _, w := range c.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", name, w, text)
			}
		}
		for _, w := range c.not {
			if strings.Contains(text, w) {
				t.Errorf("%s: %q in\n%s", name, w, text)
			}
		}
		for _, id := range p.Released {
			if id == c.keeps {
				t.Errorf("%s: %s is released", name, id)
			}
		}
	}
}

// TestFunctionsComeLast: neither an address nor a repair waits for a card, and what hurts nobody does not wait for what does.
func TestFunctionsComeLast(t *testing.T) {
	d := poolOn(DriverVFIO)
	d.Plan.Links = []model.Link{{Name: "b", Kind: model.Bridge}}
	d.Plan.Routes = []model.Route{{To: netip.MustParsePrefix("10.0.0.0/8"), Dev: "ens1"}}
	l := card()
	p := Diff(d, Observed{Links: []ObservedLink{l}})
	var text []string
	for _, s := range p.Steps {
		text = append(text, s.String())
	}
	got := strings.Join(text, "\n")
	if want := "+ link b bridge\n+ route 10.0.0.0/8 dev ens1\n~ vf ens1/0 trust off -> on\n~ vf ens1/0 rate 0-0 -> 0-10\n~ vf ens1/1 trust off -> on\n~ vf ens1/1 rate 0-0 -> 0-10\n~ vf ens1/0 driver kernel -> vfio-pci\n~ vf ens1/1 driver kernel -> vfio-pci"; got != want {
		t.Errorf("%s", got)
	}
	if now, rest := Repairs(p); len(now.Steps) != 6 || len(rest.Steps) != 2 {
		t.Errorf("%d repairs, %d are left", len(now.Steps), len(rest.Steps))
	}
}

// TestHostUse: a pool has no function that the host uses, by its interface's looks or by the plan.
func TestHostUse(t *testing.T) {
	link := func(change func(*ObservedLink)) Observed {
		l := ObservedLink{Link: model.Link{Name: "v0", Kind: model.Physical}, PCI: "0000:01:10.0"}
		change(&l)
		return Observed{Links: []ObservedLink{l}}
	}
	for want, c := range map[string]struct {
		o Observed
		p model.NodePlan
	}{
		"":                          {o: link(func(*ObservedLink) {})},
		"port of br0":               {o: link(func(l *ObservedLink) { l.Master = "br0" })},
		"another link stands on v0": {o: link(func(l *ObservedLink) { l.Children = 1 })},
		"address 10.0.0.1/24":       {o: link(func(l *ObservedLink) { l.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")} })},
		"declared":                  {o: link(func(*ObservedLink) {}), p: model.NodePlan{Links: []model.Link{{Name: "up0", Kind: model.Physical, Match: &model.Match{PCI: "0000:01:10.0"}}}}},
	} {
		if got := HostUse(ObservedVF{Link: "v0"}, c.o, c.p); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q instead of %q", got, want)
		}
	}
}

// TestNewFunctions: nothing is claimed to be known of functions that a step is yet to make, taking them from their driver hurts nobody, and
// what records say of the functions that they replace is forgotten.
func TestNewFunctions(t *testing.T) {
	l := card()
	l.SRIOV.VFs = nil
	p := Diff(poolOn(DriverVFIO), Observed{Links: []ObservedLink{l}})
	if text := p.Text(); !strings.Contains(text, "numvfs 0 -> 2  blip") || strings.Contains(text, "destroys-pods") {
		t.Errorf("%s", text)
	}
	for _, c := range p.Claims {
		if strings.HasPrefix(string(c.ID), "vf/") && c.Prior != "" {
			t.Errorf("%+v", c)
		}
	}
	l.SRIOV.VFs = NewVFs(4)
	l.SRIOV.VFs[0].Trust, l.SRIOV.VFs[0].SpoofCheck = "on", "off"
	owned := []Record{{ID: PropertyID("ens1", "numvfs"), Prior: "0"}, {ID: VFID("ens1", 0, "spoofcheck"), Prior: "on"}, {ID: VFID("ens1", 3, "trust"), Prior: "on"}}
	p = Diff(poolOn(""), Observed{Links: []ObservedLink{l}, Owned: owned})
	if text := p.Text(); strings.Contains(text, "spoofcheck") || strings.Contains(text, "ens1/3") || !strings.Contains(text, "numvfs 4 -> 2") || len(p.Released) != 2 {
		t.Errorf("%s%v", text, p.Released)
	}
}
