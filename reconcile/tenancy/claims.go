package tenancy

import (
	"cmp"
	"slices"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/tenancy"
)

// claims are who has which number, as far as the API says.
type claims struct {
	owners  map[tenancy.Number][]claim
	bundles map[int64][]string      // ids that bundles recorded for networks not made yet: their device is not known, so they are taken on all
	unknown map[tenancy.Number]bool // taken in DANM's bitmaps, by somebody
	wished  map[tenancy.Number]string
}

// claim on a number. Key and UID are those of a reservation, empty for an object that has the number in its spec.
type claim struct{ who, key, uid string }

// collect reads every registry.
func (s *state) collect() claims {
	c := claims{owners: map[tenancy.Number][]claim{}, bundles: map[int64][]string{}, unknown: map[tenancy.Number]bool{}, wished: map[tenancy.Number]string{}}
	for i := range s.in.Configs {
		t := &s.in.Configs[i]
		for _, r := range t.Status.Reserved {
			if number, ok := (record{t.Name, r}).number(); ok {
				c.owners[number] = append(c.owners[number], claim{"TenantNetwork " + r.Network + " (TenantConfig " + t.Name + ")", r.Network, r.UID})
			}
		}
		for _, p := range t.HostDevices {
			ids, _ := tenancy.Bitmap(p.Alloc) // a broken one is told on the TenantConfig, and its profile gives nothing
			for _, id := range ids {
				c.unknown[tenancy.NumberOf(p.VniType, p.Name, id)] = true
			}
		}
	}
	written := map[string]map[int64]bool{} // of networks that bundles made
	object := func(kind, key string, o danmv1.NetworkOptions, bundle bool) {
		for _, number := range tenancy.Numbers(o) {
			c.owners[number] = append(c.owners[number], claim{who: kind + " " + key})
			if bundle {
				if written[key] == nil {
					written[key] = map[int64]bool{}
				}
				written[key][number.ID] = true
			}
		}
	}
	for i := range s.in.Networks {
		if n := &s.in.Networks[i]; s.made.Has(n) {
			object(danmv1.KindTenantNetwork, n.Namespace+"/"+n.Name, n.Spec.Options, true)
		}
	}
	for i := range s.in.Cluster {
		object(danmv1.KindClusterNetwork, s.in.Cluster[i].Name, s.in.Cluster[i].Spec.Options, true)
	}
	for i := range s.in.Danm {
		object(danmv1.KindDanmNet, s.in.Danm[i].Namespace+"/"+s.in.Danm[i].Name, s.in.Danm[i].Spec.Options, false)
	}
	for i := range s.in.Bundles {
		for _, a := range s.in.Bundles[i].Status.Assignments {
			if !written[a.Network][a.ID] {
				c.bundles[a.ID] = append(c.bundles[a.ID], "network "+a.Network+" of NetworkBundle "+s.in.Bundles[i].Name)
			}
		}
	}
	for _, e := range s.entries { // a number that a network brought along, and may have
		if len(e.records) > 0 {
			continue
		}
		for _, number := range tenancy.Numbers(e.Spec.Options) {
			if c.wished[number] == "" && s.mayHave(e, number.Kind, number.ID) {
				c.wished[number] = e.key
			}
		}
	}
	return c
}

// others are who else has a number, by name.
func (c claims) others(n tenancy.Number, key, uid string) []string {
	var out []string
	for _, o := range c.owners[n] {
		if o.key != key || o.uid != uid {
			out = append(out, o.who)
		}
	}
	out = append(out, c.bundles[n.ID]...)
	slices.Sort(out)
	return slices.Compact(out)
}

// blocker is why a new number cannot be had, "" if it can. A number that came with the network is its own in DANM's bitmap.
func (c claims) blocker(n tenancy.Number, key, uid string, brought bool) string {
	if all := c.others(n, key, uid); len(all) > 0 {
		return all[0]
	}
	if brought {
		return ""
	}
	if c.unknown[n] {
		return "somebody in DANM's alloc bitmap"
	}
	if w := c.wished[n]; w != key {
		return w
	}
	return ""
}

func (c claims) take(n tenancy.Number, e *entry) {
	c.owners[n] = append(c.owners[n], claim{"TenantNetwork " + e.key, e.key, string(e.UID)})
}

// quotas marks the networks that are beyond their tenant's quota: those that have nothing yet, the youngest first.
func (s *state) quotas() {
	for i := range s.in.Configs {
		c := &s.in.Configs[i]
		if c.Extension == nil || c.Extension.Quotas == nil || c.Extension.Quotas.Networks == nil {
			continue
		}
		left := *c.Extension.Quotas.Networks
		var open []*entry
		for k := range s.in.Networks {
			if n := &s.in.Networks[k]; s.speaks(c.Name, n.Namespace) && s.made.Has(n) {
				left--
			}
		}
		for _, e := range s.entries {
			switch condition := e.condition(); {
			case !s.speaks(c.Name, e.Namespace):
			case len(e.records) > 0, condition != nil && condition.Status == "True":
				left--
			default:
				open = append(open, e)
			}
		}
		for k, e := range open {
			if k >= left {
				e.over = cmp.Or(e.over, c.Name)
			}
		}
	}
}

// configs speak for a namespace, sorted by name.
func (s *state) configs(namespace string) []*danmv1.TenantConfig {
	all, known := s.speakers[namespace]
	if !known {
		all = tenancy.For(s.in.Configs, namespace)
		s.speakers[namespace] = all
	}
	return all
}

func (s *state) speaks(config, namespace string) bool {
	return slices.ContainsFunc(s.configs(namespace), func(c *danmv1.TenantConfig) bool { return c.Name == config })
}
