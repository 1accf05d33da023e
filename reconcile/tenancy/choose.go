package tenancy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/tenancy"
)

// profile is one device, or pool, of a TenantConfig.
type profile struct {
	config string
	danmv1.IfaceProfile
	ranges []model.Range32
	broken error
	next   int64 // no id below it is free: claims only grow while a decision is made
}

func (p *profile) pool() bool { return strings.Contains(p.Name, "/") }

// ids is "vlan 100-199 on ens4".
func (p *profile) ids() string {
	if p.VniType == "" {
		return p.Name
	}
	return p.VniType + " " + p.VniRange + " on " + p.Name
}

// profilesOf a TenantConfig, in the order written.
func (s *state) profilesOf(c *danmv1.TenantConfig) []*profile {
	if known, ok := s.profiles[c.Name]; ok {
		return known
	}
	out := []*profile{}
	for _, p := range c.HostDevices {
		ranges, err := tenancy.Ranges(p)
		_, bitmap := tenancy.Bitmap(p.Alloc)
		if bitmap != nil {
			bitmap = fmt.Errorf("alloc of device %s: %w", p.Name, bitmap)
		}
		out = append(out, &profile{config: c.Name, IfaceProfile: p, ranges: ranges, broken: errors.Join(err, bitmap), next: 1})
	}
	s.profiles[c.Name] = out
	return out
}

// offers are the profiles that a namespace's networks may use.
func (s *state) offers(namespace string) []*profile {
	var out []*profile
	for _, c := range s.configs(namespace) {
		for _, p := range s.profilesOf(c) {
			if p.broken == nil {
				out = append(out, p)
			}
		}
	}
	return out
}

// mayHave says whether the tenant's configs offer a network a number.
func (s *state) mayHave(e *entry, kind string, id int64) bool {
	return slices.ContainsFunc(s.offers(e.Namespace), func(p *profile) bool {
		return e.fits(p) && p.VniType == kind && tenancy.Contains(p.ranges, id)
	})
}

// fits says whether a profile is the device that the network names, or one that it leaves open.
func (e *entry) fits(p *profile) bool {
	o := e.Spec.Options
	switch {
	case o.DevicePool != "":
		return p.Name == o.DevicePool && p.pool()
	case o.Device != "":
		return p.Name == o.Device && !p.pool()
	}
	return !p.pool()
}

// refusal is why a network gets nothing.
type refusal struct {
	code diag.Code
	text string
}

// assign reserves a device and a number for a network that has none, or says why not.
func (s *state) assign(e *entry) {
	if !e.DeletionTimestamp.IsZero() {
		return
	}
	if e.over != "" {
		s.verdict(e, metav1.ConditionFalse, diag.QuotaExceeded, fmt.Sprintf("the tenant has as many networks as TenantConfig %s allows; remove one, or raise extension.quotas.networks", e.over))
		return
	}
	o := e.Spec.Options
	if !tenancy.Dynamic(e.Spec) && o.Device == "" && o.DevicePool == "" && o.Vlan == 0 && o.Vxlan == 0 {
		s.verdict(e, metav1.ConditionTrue, diag.Assigned, fmt.Sprintf("the CNI plugin %s takes no device", e.Spec.NetworkType))
		return
	}
	if s.waiting[e.key] {
		s.verdict(e, metav1.ConditionUnknown, diag.NumberTaken, "the number of the deleted network of this name is not free yet: node plans still have its link")
		return
	}
	p, id, no := s.choose(e)
	switch {
	case no != nil:
		s.verdict(e, metav1.ConditionFalse, no.code, no.text)
	case e.yielding() || e.settled(): // goes first: the old verdict would be taken for one on the new reservation
		s.out.Marks = append(s.out.Marks, Verdict{e.TenantNetwork, metav1.ConditionUnknown, diag.NumberTaken, "another number is being chosen"})
	default:
		r := danmv1.ReservedNumber{Network: e.key, UID: string(e.UID), Device: p.Name, VniType: p.VniType, ID: id}
		s.reserved[p.config] = append(s.reserved[p.config], r)
		s.changed[p.config] = true
		s.counts[r.Device+" "+r.VniType]++
		if id != 0 {
			s.claims.take(tenancy.NumberOf(r.VniType, r.Device, id), e)
		}
	}
}

// choose finds the profile and the number, 0 if the profile has none.
func (s *state) choose(e *entry) (*profile, int64, *refusal) {
	fit, no := s.candidates(e)
	if no != nil {
		return nil, 0, no
	}
	if brought := tenancy.Numbers(e.Spec.Options); len(brought) > 0 {
		return s.adopt(e, fit, brought)
	}
	full := 0
	for _, p := range fit {
		if len(s.reserved[p.config]) >= MaxReserved {
			full++
			continue
		}
		if p.VniType == "" {
			return p, 0, nil
		}
		if id := s.lowest(e, p); id != 0 {
			return p, id, nil
		}
	}
	if full == len(fit) {
		return nil, 0, &refusal{diag.RangeExhausted, fmt.Sprintf("TenantConfig %s has %d reservations, which is all it holds; share its devices out to several TenantConfigs", fit[0].config, MaxReserved)}
	}
	return nil, 0, &refusal{diag.RangeExhausted, "no number is free: " + list(fit, (*profile).ids) + "; widen the vniRange, or delete networks"}
}

// candidates are the profiles that a network may be given, the best first.
func (s *state) candidates(e *entry) ([]*profile, *refusal) {
	o, all := e.Spec.Options, s.offers(e.Namespace)
	if x := e.Spec.Extension; x != nil && x.Fabric != "" {
		return nil, &refusal{diag.DeviceNotAllowed, fmt.Sprintf("extension.fabric %s: fabrics are for networks of a bundle; name a host_device, or none", x.Fabric)}
	}
	if len(s.configs(e.Namespace)) == 0 {
		return nil, &refusal{diag.NoProfile, fmt.Sprintf("no TenantConfig speaks for namespace %s", e.Namespace)}
	}
	var fit []*profile
	for _, p := range all {
		if e.fits(p) {
			fit = append(fit, p)
		}
	}
	given := cmp.Or(o.DevicePool, o.Device)
	switch {
	case given == "" && strings.EqualFold(e.Spec.NetworkType, "sriov"):
		return nil, &refusal{diag.DeviceNotAllowed, "type sriov needs a device_pool; allowed: " + allowed(all, true)}
	case given != "" && len(fit) == 0:
		return nil, &refusal{diag.DeviceNotAllowed, fmt.Sprintf("%s is not one that namespace %s may use; allowed: %s", given, e.Namespace, allowed(all, o.DevicePool != ""))}
	case len(fit) == 0:
		return nil, &refusal{diag.NoProfile, fmt.Sprintf("the TenantConfigs of namespace %s (%s) have no usable host device", e.Namespace, s.names(e.Namespace))}
	}
	if given == "" { // DANM chose at random; the order written decides between equals
		slices.SortStableFunc(fit, func(a, b *profile) int {
			return cmp.Compare(s.counts[a.Name+" "+a.VniType], s.counts[b.Name+" "+b.VniType])
		})
	}
	return fit, nil
}

// adopt takes the number that came with the network, if it may have it.
func (s *state) adopt(e *entry, fit []*profile, brought []tenancy.Number) (*profile, int64, *refusal) {
	number := brought[0]
	var inside []*profile
	for _, p := range fit {
		if len(brought) == 1 && p.VniType == number.Kind && tenancy.Contains(p.ranges, number.ID) {
			inside = append(inside, p)
		}
	}
	if len(inside) == 0 {
		return nil, 0, &refusal{diag.NumberNotAllowed, fmt.Sprintf("%s %d is not one that namespace %s may use; allowed: %s. Make the network anew without a number", number.Kind, number.ID, e.Namespace, list(fit, (*profile).ids))}
	}
	var owner string
	for _, p := range inside {
		if len(s.reserved[p.config]) >= MaxReserved {
			continue
		}
		blocked := s.claims.blocker(tenancy.NumberOf(p.VniType, p.Name, number.ID), e.key, string(e.UID), true)
		if blocked == "" {
			return p, number.ID, nil
		}
		owner = cmp.Or(owner, blocked)
	}
	return nil, 0, &refusal{diag.NumberTaken, fmt.Sprintf("%s %d belongs to %s; make the network anew without a number", number.Kind, number.ID, cmp.Or(owner, "nobody, but the TenantConfig is full"))}
}

// lowest free id of a profile, 0 if there is none.
func (s *state) lowest(e *entry, p *profile) int64 {
	for _, r := range p.ranges {
		for id := max(int64(r.First), p.next); id <= int64(r.Last); id++ {
			if s.claims.blocker(tenancy.NumberOf(p.VniType, p.Name, id), e.key, string(e.UID), false) == "" {
				p.next = id
				return id
			}
		}
	}
	return 0
}

func (s *state) names(namespace string) string {
	var out []string
	for _, c := range s.configs(namespace) {
		out = append(out, c.Name)
	}
	return strings.Join(out, ", ")
}

func allowed(all []*profile, pools bool) string {
	var fit []*profile
	for _, p := range all {
		if p.pool() == pools {
			fit = append(fit, p)
		}
	}
	return list(fit, func(p *profile) string { return p.Name })
}

// list is what people read: each once, at most ten.
func list(all []*profile, text func(*profile) string) string {
	const shown = 10
	var out []string
	for _, p := range all {
		if t := text(p); !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	switch {
	case len(out) == 0:
		return "none"
	case len(out) > shown:
		return strings.Join(out[:shown], ", ") + fmt.Sprintf(" and %d more", len(out)-shown)
	}
	return strings.Join(out, ", ")
}
