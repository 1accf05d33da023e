package plan

import (
	"maps"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// SysctlID is the record and step ID of a kernel parameter, its key in the kernel's names of links.
func SysctlID(key string) ObjectID { return ObjectID("sysctl/" + key) }

// SysctlKeys lists what Kernel.Observe has to be asked for so that Diff and Revert can judge the parameters that are
// declared or on record: keys as model.Sysctl has them, those of links with * in the link's place, since the kernel copies
// some values from one link to others. Sorted.
func SysctlKeys(desired Desired, owned []Record) []string {
	keys := map[string]bool{}
	ask := func(key string) {
		base, _, param, perLink := splitSysctl(key)
		if perLink {
			key = joinSysctl(base, "*", param)
		}
		keys[key] = true
		if key == "net.ipv4.conf.*.forwarding" {
			keys[redirectsOfAll] = true
		}
	}
	for _, s := range desired.Plan.Sysctls {
		ask(s.Key)
	}
	for _, r := range owned {
		if key, ok := strings.CutPrefix(string(r.ID), "sysctl/"); ok {
			ask(key)
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

const (
	forwardingOfAll = "net.ipv4.conf.all.forwarding"
	redirectsOfAll  = "net.ipv4.conf.all.accept_redirects" // flips with the one above (inet_forward_change)
)

// splitSysctl takes "net.ipv4.conf.eth0/10.forwarding" apart into "net.ipv4.conf", "eth0.10" and "forwarding"; perLink is
// false for parameters without a link.
func splitSysctl(key string) (base, link, param string, perLink bool) {
	parts := strings.Split(key, ".")
	if len(parts) != 5 || parts[0] != "net" || parts[2] != "conf" && parts[2] != "neigh" {
		return "", "", "", false
	}
	return strings.Join(parts[:3], "."), strings.ReplaceAll(parts[3], "/", "."), parts[4], true
}

func joinSysctl(base, link, param string) string {
	return base + "." + strings.ReplaceAll(link, ".", "/") + "." + param
}

// linkOf is the link of a parameter, "" if it has none, or is for all of them or for those to come.
func linkOf(key string) string {
	if _, link, _, perLink := splitSysctl(key); perLink && link != "all" && link != "default" {
		return link
	}
	return ""
}

// rewritten says whether a change of "all" is written to "default" and every link (inet_forward_change,
// addrconf_fixup_forwarding, addrconf_fixup_linkdown).
func rewritten(base, param string) bool {
	return strings.HasSuffix(base, ".conf") && param == "forwarding" || base == "net.ipv6.conf" && param == "ignore_routes_with_linkdown"
}

// copied says whether a change of "default" is written to every link whose value nobody has set (devinet_copy_dflt_conf,
// neigh_copy_dflt_parms).
func copied(base, param string) bool {
	return base == "net.ipv4.conf" && !rewritten(base, param) || strings.HasSuffix(base, ".neigh")
}

// rankOf orders writes: what changes others goes before them.
func rankOf(key string) int {
	base, link, param, perLink := splitSysctl(key)
	switch {
	case !perLink:
		return lastRank
	case link == "all" && rewritten(base, param):
		return 0
	case link == "all":
		return 1
	case link == "default":
		return 2
	}
	return lastRank
}

const lastRank = 3

// writeSysctl sets a parameter with all that the kernel changes along with it. A link with the old default's value is taken
// for one that nobody has set: the kernel knows better, but does not tell.
func (s *state) writeSysctl(key, value string) {
	old := s.sysctls[key]
	if old == value {
		return
	}
	s.sysctls[key] = value
	base, link, param, _ := splitSysctl(key)
	all, fromDefault := link == "all" && rewritten(base, param), link == "default" && copied(base, param)
	if !all && !fromDefault {
		return
	}
	for k, v := range s.sysctls {
		if b, l, p, _ := splitSysctl(k); b == base && p == param && l != "all" && (all || v == old) {
			s.sysctls[k] = value
		}
	}
	if _, known := s.sysctls[redirectsOfAll]; known && key == forwardingOfAll {
		s.sysctls[redirectsOfAll] = flipped(value)
	}
}

func flipped(flag string) string {
	if flag == "0" {
		return "1"
	}
	return "0"
}

// newSysctls gives a new link the values of "default".
func (s *state) newSysctls(link string) {
	fresh := map[string]string{}
	for k, v := range s.sysctls {
		if base, l, param, _ := splitSysctl(k); l == "default" {
			fresh[joinSysctl(base, link, param)] = v
		}
	}
	maps.Copy(s.sysctls, fresh)
}

func (s *state) dropSysctls(gone map[string]bool) {
	if len(s.sysctls) > 0 {
		maps.DeleteFunc(s.sysctls, func(key, _ string) bool { return gone[linkOf(key)] })
	}
}

// sysctlsByRank lists keys in the order in which they are written.
func sysctlsByRank(of map[string]string) [][]string {
	out := make([][]string, lastRank+1)
	for _, key := range slices.Sorted(maps.Keys(of)) {
		out[rankOf(key)] = append(out[rankOf(key)], key)
	}
	return out
}

// wantSysctls puts the declared values, and those from before us of what no longer is declared, into the target.
func (d *differ) wantSysctls() {
	wish := map[string]string{}
	for _, s := range d.desired.Plan.Sysctls {
		key := d.kernelKey(s.Key)
		if reason, remedy := d.missingSysctl(key); reason != "" {
			d.aside(SysctlID(key), reason, remedy)
			continue
		}
		wish[key] = s.Value
		d.keep[SysctlID(key)] = true
		if _, recorded := d.records[SysctlID(key)]; !recorded {
			d.claims[SysctlID(key)] = Record{ID: SysctlID(key), Prior: d.priorSysctl(key)}
		}
	}
	declared := maps.Clone(wish)
	d.releaseSysctls(wish, declared)
	d.followOthers(wish, declared)
	d.forgetSysctlsOfNewLinks(wish)
	for _, keys := range sysctlsByRank(wish) {
		for _, key := range keys {
			d.to.writeSysctl(key, wish[key])
		}
	}
}

func (d *differ) releaseSysctls(wish, declared map[string]string) {
	for _, id := range slices.Sorted(maps.Keys(d.records)) {
		key, isSysctl := strings.CutPrefix(string(id), "sysctl/")
		link := linkOf(key)
		if _, isBlocked := d.blocked[LinkID(link)]; !isSysctl || d.keep[id] || d.frozen[link] || isBlocked && d.to.links[link] != nil {
			continue
		}
		d.released = append(d.released, id)
		if _, there := d.to.sysctls[key]; there && d.records[id].Prior != "" {
			wish[key] = d.undeclaredSysctl(key, d.records[id].Prior, declared)
		}
	}
}

// followOthers: a link of ours has what "all" or "default" says unless the plan speaks of it, no matter which was first.
func (d *differ) followOthers(wish, declared map[string]string) {
	follow := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(wish)) {
		base, from, param, perLink := splitSysctl(key)
		ofAll, ofDefault := joinSysctl(base, "all", param), joinSysctl(base, "default", param)
		if !perLink || from != "default" && (from != "all" || !rewritten(base, param)) {
			continue
		}
		value := wish[key]
		if v, ok := wish[ofDefault]; ok {
			value = v
		}
		if v, ok := declared[ofDefault]; ok {
			value = v
		}
		if v, ok := declared[ofAll]; ok && rewritten(base, param) {
			value = v
		}
		for link := range d.to.links {
			k := joinSysctl(base, link, param)
			if _, there := d.obs.sysctls[k]; d.makes(link) && (there || d.obs.links[link] == nil) {
				follow[k] = value
			}
		}
	}
	for k, v := range follow {
		if _, wished := wish[k]; !wished {
			wish[k] = v
		}
	}
}

// forgetSysctlsOfNewLinks: what a link of that name had before is not wanted of the one that takes its place.
func (d *differ) forgetSysctlsOfNewLinks(wish map[string]string) {
	maps.DeleteFunc(d.to.sysctls, func(key, _ string) bool {
		_, wished := wish[key]
		return !wished && d.isMadeAnew(linkOf(key))
	})
}

func (d *differ) kernelKey(key string) string {
	base, link, param, perLink := splitSysctl(key)
	if !perLink {
		return key
	}
	return joinSysctl(base, d.kernelName(link), param)
}

// missingSysctl says why a parameter cannot be set.
func (d *differ) missingSysctl(key string) (reason, remedy string) {
	_, there := d.obs.sysctls[key]
	link := linkOf(key)
	b, isBlocked := d.blocked[LinkID(link)]
	switch {
	case link != "" && isBlocked:
		return link + " is blocked: " + b.Reason, b.Remedy
	case link != "" && d.to.links[link] == nil:
		return link + " is missing, waiting for it to appear", "declare it or make it"
	case !there && (link == "" || d.obs.links[link] != nil && !d.isMadeAnew(link)):
		return "the kernel has no such parameter", "load the module that brings it, or drop it from the bundle"
	}
	return "", ""
}

// priorSysctl is what a parameter would be without us: as observed, but what it owes to a declared "all" or "default" is
// taken back. "" is unknown.
func (d *differ) priorSysctl(key string) string {
	value, there := d.obs.sysctls[key]
	base, link, param, perLink := splitSysctl(key)
	if key == redirectsOfAll {
		if r, ours := d.records[SysctlID(forwardingOfAll)]; ours {
			return flipped(r.Prior)
		}
	}
	if !perLink || link == "all" {
		return value
	}
	if r, ours := d.records[SysctlID(joinSysctl(base, "all", param))]; ours && rewritten(base, param) {
		return r.Prior
	}
	if link == "default" {
		return value
	}
	ofDefault := joinSysctl(base, "default", param)
	if !there {
		value = d.obs.sysctls[ofDefault]
	}
	if r, ours := d.records[SysctlID(ofDefault)]; ours && (!there || d.makes(link) || value == d.obs.sysctls[ofDefault] && copied(base, param)) {
		return r.Prior
	}
	return value
}

// undeclaredSysctl is what a parameter of which only the rest of the plan speaks is to be.
func (d *differ) undeclaredSysctl(key, prior string, declared map[string]string) string {
	base, link, param, perLink := splitSysctl(key)
	if key == redirectsOfAll {
		if v, ok := declared[forwardingOfAll]; ok {
			return flipped(v)
		}
	}
	if !perLink || link == "all" {
		return prior
	}
	if v, ok := declared[joinSysctl(base, "all", param)]; ok && rewritten(base, param) {
		return v
	}
	if link == "default" {
		return prior
	}
	ofDefault := joinSysctl(base, "default", param)
	v, ok := declared[ofDefault]
	r := d.records[SysctlID(ofDefault)]
	if c, fresh := d.claims[SysctlID(ofDefault)]; fresh {
		r = c
	}
	if ok && (d.makes(link) || prior == r.Prior && copied(base, param)) {
		return v
	}
	return prior
}

// setSysctls writes the parameters of some ranks, those that change others first.
func (t *transition) setSysctls(first, last int) {
	for _, keys := range sysctlsByRank(t.to.sysctls)[first : last+1] {
		var out []Step
		for _, key := range keys {
			have, known := t.now.sysctls[key]
			want := t.to.sysctls[key]
			if known && have == want || !known && t.now.links[linkOf(key)] == nil {
				continue
			}
			s := t.step(SetSysctl, SysctlID(key), None)
			s.Sysctl, s.LinkName, s.From, s.To = key, linkOf(key), have, want
			out = append(out, s)
		}
		t.emit(out)
	}
}

// touchSysctl puts a parameter back, with all that its change can have changed.
func (r *reverter) touchSysctl(key string) {
	base, _, param, perLink := splitSysctl(key)
	for k, was := range r.before.sysctls {
		b, _, p, _ := splitSysctl(k)
		if k == key || perLink && b == base && p == param || k == redirectsOfAll && key == forwardingOfAll {
			r.to.sysctls[k] = was
		}
	}
}

// putBackSysctls gives a link its own parameters back.
func (r *reverter) putBackSysctls(link string) {
	for k, was := range r.before.sysctls {
		if linkOf(k) == link {
			r.to.sysctls[k] = was
		}
	}
}

func sysctlsOf(list []model.Sysctl) map[string]string {
	out := make(map[string]string, len(list))
	for _, s := range list {
		out[s.Key] = s.Value
	}
	return out
}
