package plan_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// foreignVFs are functions from before us. In half of the worlds the host uses one of them, so that their number cannot be changed, and
// there they have settings of others.
func foreignVFs(t testing.TB, k *fake.Kernel, r *rand.Rand) {
	if chance(r, 50) {
		must(t, k.SetNumVFs("eth1", r.IntN(5)))
		return
	}
	must(t, k.SetNumVFs("eth1", 4))
	must(t, k.AddLink(plan.ObservedLink{Link: model.Link{Name: "eth1v0", Kind: model.Physical, MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/24")}}}))
	must(t, k.SetVF("eth1", 0, "link", "eth1v0"))
	for n := range 4 {
		must(t, k.SetVF("eth1", n, "trust", pick(r, "on", "off")))
		must(t, k.SetVF("eth1", n, "spoofcheck", pick(r, "on", "off")))
		must(t, k.SetVF("eth1", n, "linkstate", pick(r, "auto", "enable", "disable")))
		must(t, k.SetVF("eth1", n, "rate", pick(r, "0-0", "10-20")))
		if n > 0 {
			must(t, k.SetVF("eth1", n, "driver", pick(r, plan.DriverKernel, plan.DriverVFIO)))
		}
	}
}

// randomPools varies every field over two cards, so that pools meet.
func randomPools(r *rand.Rand) []model.SRIOVPool {
	var out []model.SRIOVPool
	for _, name := range []string{"fast", "slow", "user"} {
		if !chance(r, 35) {
			continue
		}
		p := model.SRIOVPool{Name: name, NumVFs: pick(r, 1, 2, 4, 4, 4, 8), ResourceName: "danm.io/" + name, Driver: pick(r, "", "", plan.DriverVFIO),
			Trust: pick(r, nil, new(true), new(false)), SpoofCheck: pick(r, nil, new(true), new(false)), LinkState: pick(r, "", "auto", "enable", "disable"),
			MaxTxRate: pick(r, 0, 100, 1000)}
		if p.MaxTxRate != 0 {
			p.MinTxRate = pick(r, 0, 50)
		}
		if p.Driver == "" {
			p.MTU = pick(r, 0, 1400, 9000)
		}
		switch r.IntN(4) {
		case 0:
			p.PFs.Names = pick(r, []string{"eth1"}, []string{"enp0s16"}, []string{"eth0", "eth1"}, []string{"lo"})
		case 1:
			p.PFs.PCI = []string{pick(r, "0000:00:10", "0000:00:11")}
		case 2:
			p.PFs.Vendors, p.PFs.Devices = []string{"8086"}, pick(r, nil, []string{"1572"}, []string{"10c9", "ffff"})
		case 3:
			p.PFs.Drivers, p.PFs.Names = []string{"virtio_net"}, []string{"eth1"}
		}
		if chance(r, 60) {
			p.VFs = pick(r, []model.Range32{{First: 0, Last: 0}}, []model.Range32{{First: 1, Last: 1}, {First: 3, Last: 3}}, []model.Range32{{First: 0, Last: 1}})
			p.VFs = slices.DeleteFunc(slices.Clone(p.VFs), func(v model.Range32) bool { return int(v.Last) >= p.NumVFs })
		}
		out = append(out, p)
	}
	return out
}

// found are the cards that a selector of randomPools means, said once more in other words.
func found(s model.PFSelector) []string {
	cards := map[string][]string{"eth0": {"eth0", "enp0s16", "0000:00:10", "8086", "1572", "virtio_net"}, "eth1": {"eth1", "0000:00:11", "8086", "10c9", "virtio_net"}}
	var out []string
	for _, card := range []string{"eth0", "eth1"} {
		all := true
		for _, list := range [][]string{s.Names, s.PCI, s.Vendors, s.Devices, s.Drivers} {
			all = all && (len(list) == 0 || slices.ContainsFunc(list, func(w string) bool { return slices.Contains(cards[card], w) }))
		}
		if all {
			out = append(out, card)
		}
	}
	return out
}

// checkPools: each card has as many functions as its first pool says, and each function is as the first pool that wants it says.
func checkPools(d plan.Desired, links map[string]plan.ObservedLink, blocked func(plan.ObjectID) bool) error {
	taken := map[string]bool{}
	count := map[string]int{}
	for _, p := range d.Plan.Pools {
		for _, card := range found(p.PFs) {
			if count[card] == 0 {
				count[card] = p.NumVFs
			}
			l := links[card]
			if blocked(plan.PropertyID(card, "numvfs")) {
				continue
			}
			if len(l.SRIOV.VFs) != count[card] || !l.Up {
				return fmt.Errorf("%s has %d functions instead of %d, up %v", card, len(l.SRIOV.VFs), count[card], l.Up)
			}
			if p.NumVFs != count[card] {
				if !blocked(plan.PoolID(p.Name)) {
					return fmt.Errorf("pool %s cannot have its numVFs on %s, and is not blocked", p.Name, card)
				}
				continue
			}
			for n, vf := range l.SRIOV.VFs {
				mine := len(p.VFs) == 0
				for _, x := range p.VFs {
					mine = mine || uint32(n) >= x.First && uint32(n) <= x.Last
				}
				key := fmt.Sprint(card, n)
				if !mine {
					continue
				}
				if taken[key] {
					if !blocked(plan.PoolID(p.Name)) {
						return fmt.Errorf("pool %s wants %s, which another has, and is not blocked", p.Name, key)
					}
					continue
				}
				taken[key] = true
				if err := checkVF(p, card, n, vf, blocked); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkVF(p model.SRIOVPool, card string, n int, vf plan.ObservedVF, blocked func(plan.ObjectID) bool) error {
	driver := plan.DriverKernel
	if p.Driver != "" {
		driver = p.Driver
	}
	for _, x := range []struct {
		name, have, want string
		declared         bool
	}{
		{"driver", vf.Driver, driver, true}, {"linkstate", vf.LinkState, p.LinkState, p.LinkState != ""},
		{"trust", vf.Trust, word(p.Trust), p.Trust != nil}, {"spoofcheck", vf.SpoofCheck, word(p.SpoofCheck), p.SpoofCheck != nil},
		{"rate", vf.Rate, fmt.Sprintf("%d-%d", p.MinTxRate, p.MaxTxRate), p.MinTxRate+p.MaxTxRate != 0},
		{"mtu", vf.MTU, strconv.Itoa(p.MTU), p.MTU != 0 && vf.Link != ""},
	} {
		if x.declared && x.have != x.want && !blocked(plan.ObjectID(fmt.Sprintf("vf/%s/%d/%s", card, n, x.name))) {
			return fmt.Errorf("%s %d: %s is %q instead of %q (pool %s)", card, n, x.name, x.have, x.want, p.Name)
		}
	}
	return nil
}

func word(b *bool) string {
	if b != nil && *b {
		return "on"
	}
	return "off"
}

// foreignFunctions is what of a card's functions never was declared. Functions that were made anew are nobody's from before.
func foreignFunctions(l plan.ObservedLink, records map[plan.ObjectID]plan.Record) (line string) {
	if l.SRIOV == nil {
		return ""
	}
	numvfs, ours := records[plan.PropertyID(l.Name, "numvfs")]
	if !ours {
		line = fmt.Sprintf(" numvfs=%d", len(l.SRIOV.VFs))
	} else if numvfs.Prior != strconv.Itoa(len(l.SRIOV.VFs)) || len(l.SRIOV.VFs) == 0 || l.SRIOV.VFs[0].Link == "" {
		return ""
	}
	for n, vf := range l.SRIOV.VFs {
		for name, value := range map[string]string{"trust": vf.Trust, "spoofcheck": vf.SpoofCheck, "linkstate": vf.LinkState, "rate": vf.Rate, "driver": vf.Driver, "mtu": vf.MTU} {
			if _, ours := records[plan.VFID(l.Name, n, name)]; !ours {
				line += fmt.Sprintf(" vf%d.%s=%s", n, name, value)
			}
		}
	}
	return line
}

// asFarAsKnown fills in what a dry run cannot know of functions that it makes.
func asFarAsKnown(dry, run plan.Observed) plan.Observed {
	for i := range dry.Links {
		for _, l := range run.Links {
			if l.Name != dry.Links[i].Name || l.SRIOV == nil || len(l.SRIOV.VFs) != len(dry.Links[i].SRIOV.VFs) {
				continue
			}
			for n := range l.SRIOV.VFs {
				is, d := l.SRIOV.VFs[n].VFSettings, &dry.Links[i].SRIOV.VFs[n].VFSettings
				for _, f := range [][2]*string{{&d.Trust, &is.Trust}, {&d.SpoofCheck, &is.SpoofCheck}, {&d.LinkState, &is.LinkState}, {&d.Rate, &is.Rate}} {
					if *f[0] == "" {
						*f[0] = *f[1]
					}
				}
			}
		}
	}
	return dry
}

// mtusOfPools are the interfaces whose MTU a pool ever said.
func mtusOfPools(o plan.Observed, records map[plan.ObjectID]plan.Record) map[string]bool {
	out := map[string]bool{}
	for _, l := range o.Links {
		if l.SRIOV == nil {
			continue
		}
		for n, vf := range l.SRIOV.VFs {
			if _, ours := records[plan.VFID(l.Name, n, "mtu")]; ours {
				out[vf.Link] = true
			}
		}
	}
	return out
}
