package validate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	v1 "danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// parameter is what a kernel parameter takes: whole numbers within bounds, count of them.
type parameter struct {
	least, most int64
	count       int
}

func number(least, most int64) parameter { return parameter{least, most, 1} }

var (
	flag    = number(0, 1)
	anyInt  = number(0, 1<<31-1)
	tcpSize = parameter{1, 1<<31 - 1, 3}
	// The kernel counts both in ticks, of which a second has a thousand at most, in an int.
	staleTime     = number(0, (1<<31-1)/1000)
	reachableTime = number(0, 1<<31-1)
)

// parameters is the allow-list (Documentation/networking/ip-sysctl.rst, Documentation/admin-guide/sysctl/net.rst,
// nf_conntrack-sysctl.rst): what concerns the routing and buffers of a host. * stands for a link of the group, all or
// default. Left out is what takes addresses away or makes them (disable_ipv6, addr_gen_mode, keep_addr_on_down), what is no
// plain number, and ip_forward, which is conf.all.forwarding by another name.
var parameters = map[string]parameter{
	"net.ipv4.conf.*.forwarding": flag, "net.ipv4.conf.*.rp_filter": number(0, 2), "net.ipv4.conf.*.arp_ignore": number(0, 8),
	"net.ipv4.conf.*.arp_announce": number(0, 2), "net.ipv4.conf.*.arp_notify": flag, "net.ipv4.conf.*.arp_filter": flag,
	"net.ipv4.conf.*.arp_accept": number(0, 2), "net.ipv4.conf.*.proxy_arp": flag, "net.ipv4.conf.*.accept_local": flag,
	"net.ipv4.conf.*.accept_redirects": flag, "net.ipv4.conf.*.send_redirects": flag, "net.ipv4.conf.*.secure_redirects": flag,
	"net.ipv4.conf.*.accept_source_route": flag, "net.ipv4.conf.*.log_martians": flag, "net.ipv4.conf.*.src_valid_mark": flag,
	"net.ipv4.conf.*.ignore_routes_with_linkdown": flag,

	"net.ipv6.conf.*.forwarding": flag, "net.ipv6.conf.*.accept_ra": number(0, 2), "net.ipv6.conf.*.accept_redirects": flag,
	"net.ipv6.conf.*.accept_source_route": number(-1, 0), "net.ipv6.conf.*.autoconf": flag, "net.ipv6.conf.*.accept_dad": number(0, 2),
	"net.ipv6.conf.*.dad_transmits": number(0, 10), "net.ipv6.conf.*.hop_limit": number(1, 255), "net.ipv6.conf.*.ndisc_notify": flag,
	"net.ipv6.conf.*.proxy_ndp": flag, "net.ipv6.conf.*.router_solicitations": number(-1, 100),
	"net.ipv6.conf.*.ignore_routes_with_linkdown": flag,

	"net.ipv4.neigh.*.gc_stale_time": staleTime, "net.ipv4.neigh.*.base_reachable_time_ms": reachableTime, "net.ipv4.neigh.*.ucast_solicit": number(0, 100),
	"net.ipv6.neigh.*.gc_stale_time": staleTime, "net.ipv6.neigh.*.base_reachable_time_ms": reachableTime, "net.ipv6.neigh.*.ucast_solicit": number(0, 100),
	"net.ipv4.neigh.default.gc_thresh1": anyInt, "net.ipv4.neigh.default.gc_thresh2": anyInt, "net.ipv4.neigh.default.gc_thresh3": anyInt,
	"net.ipv6.neigh.default.gc_thresh1": anyInt, "net.ipv6.neigh.default.gc_thresh2": anyInt, "net.ipv6.neigh.default.gc_thresh3": anyInt,

	"net.ipv4.fib_multipath_hash_policy": number(0, 3), "net.ipv6.fib_multipath_hash_policy": number(0, 3),
	"net.ipv4.fib_multipath_use_neigh": flag, "net.ipv4.ip_nonlocal_bind": flag, "net.ipv6.ip_nonlocal_bind": flag,
	"net.ipv4.tcp_l3mdev_accept": flag, "net.ipv4.udp_l3mdev_accept": flag, "net.ipv4.raw_l3mdev_accept": flag,
	"net.ipv4.igmp_max_memberships": anyInt, "net.ipv4.ip_local_port_range": {1, 65535, 2}, "net.ipv4.tcp_mtu_probing": number(0, 2),
	"net.ipv4.tcp_rmem": tcpSize, "net.ipv4.tcp_wmem": tcpSize, "net.ipv4.icmp_echo_ignore_broadcasts": flag, "net.ipv4.tcp_syncookies": number(0, 2),

	"net.core.rmem_max": anyInt, "net.core.wmem_max": anyInt, "net.core.rmem_default": anyInt, "net.core.wmem_default": anyInt,
	"net.core.netdev_max_backlog": anyInt, "net.core.somaxconn": anyInt, "net.core.netdev_budget": anyInt, "net.core.optmem_max": anyInt,

	"net.netfilter.nf_conntrack_max": anyInt, "net.bridge.bridge-nf-call-iptables": flag, "net.bridge.bridge-nf-call-ip6tables": flag,
	"net.bridge.bridge-nf-call-arptables": flag,
}

// Sysctl is a kernel parameter that a bundle may set, for references. * in Key stands for a link of the group, all or default.
type Sysctl struct{ Key, Takes string }

// Sysctls are all of them, sorted by key.
func Sysctls() []Sysctl {
	var out []Sysctl
	for _, key := range sortedKeys(parameters) {
		out = append(out, Sysctl{key, parameters[key].String()})
	}
	return out
}

// sysctls reads the kernel parameters of a group, once all its links are known.
func (c *checker) sysctls(g *group, s spot, values map[string]string) {
	g.sysctlAt = map[string]spot{}
	for _, written := range sortedKeys(values) {
		at := s.key(written)
		key := dotted(written)
		p, ok := c.parameter(g, at, key)
		if !ok {
			continue
		}
		value, good := p.read(values[written])
		if !good && values[written] == "" && at.broken() {
			continue
		}
		if !good {
			c.error(diag.InvalidSysctl, at, fmt.Sprintf("%s cannot be %q", key, values[written]), "it takes "+p.String())
			continue
		}
		if first, twice := g.sysctlAt[key]; twice {
			c.error(diag.DuplicateName, at, fmt.Sprintf("%s is given twice, as in %s", key, first.place()), "keep one of them")
			continue
		}
		g.sysctlAt[key] = at
		g.Sysctls = append(g.Sysctls, model.Sysctl{Key: key, Value: value})
	}
	slices.SortFunc(g.Sysctls, func(a, b model.Sysctl) int { return strings.Compare(a.Key, b.Key) })
}

// podSysctls reads the kernel parameters of a network's interfaces in Pods.
func (c *checker) podSysctls(n *network, s spot, v *v1.NetworkSpec) {
	if len(v.Sysctls) > 0 && v.Delegate != nil {
		c.error(diag.FieldNotAllowed, s, fmt.Sprintf("network %s is made by the CNI plugin %s", n.Key(), v.Type), "remove sysctls, and chain the plugin tuning in a confList")
		return
	}
	for _, key := range sortedKeys(v.Sysctls) {
		at := s.key(key)
		p, ok := podParameters()[key]
		if !ok {
			hint := diag.Suggest(key, keys(podParameters()))
			if hint == "" {
				hint = "docs/reference-sysctls.md lists them: those of a link, with " + model.IfNameWord + " for its name"
			}
			c.error(diag.UnknownSysctl, at, fmt.Sprintf("%s is not among the kernel parameters that a network may set in its Pods", key), hint)
			continue
		}
		value, good := p.read(v.Sysctls[key])
		if !good {
			if v.Sysctls[key] != "" || !at.broken() {
				c.error(diag.InvalidSysctl, at, fmt.Sprintf("%s cannot be %q", key, v.Sysctls[key]), "it takes "+p.String())
			}
			continue
		}
		n.Sysctls = append(n.Sysctls, model.Sysctl{Key: key, Value: value})
	}
}

// podParameters are those of one link, for the interfaces of Pods.
var podParameters = sync.OnceValue(func() map[string]parameter {
	out := map[string]parameter{}
	for key, p := range parameters {
		if one := strings.Replace(key, ".*.", "."+model.IfNameWord+".", 1); one != key {
			out[one] = p
		}
	}
	return out
})

// dotted is a key in the spelling with dots; sysctl(8) takes the one of /proc/sys too, with the two exchanged.
func dotted(key string) string {
	if i := strings.IndexAny(key, "./"); i < 0 || key[i] == '.' {
		return key
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(key)
}

// parameter finds a key in the allow-list; a link in it has to be one of the group.
func (c *checker) parameter(g *group, s spot, key string) (parameter, bool) {
	if p, ok := parameters[key]; ok {
		return p, true
	}
	pattern, dev := key, ""
	if parts := strings.Split(key, "."); len(parts) == 5 && (parts[2] == "conf" || parts[2] == "neigh") {
		dev = strings.ReplaceAll(parts[3], "/", ".")
		parts[3] = "*"
		pattern = strings.Join(parts, ".")
	}
	p, ok := parameters[pattern]
	switch {
	case key == "net.ipv4.ip_forward":
		c.error(diag.UnknownSysctl, s, "net.ipv4.ip_forward is another name of net.ipv4.conf.all.forwarding", "write net.ipv4.conf.all.forwarding")
	case !ok:
		hint := diag.Suggest(pattern, keys(parameters))
		if hint == "" {
			hint = "docs/reference-sysctls.md lists those that are; others belong into the node's own configuration"
		}
		c.error(diag.UnknownSysctl, s, fmt.Sprintf("%s is not among the kernel parameters that a bundle may set", key), hint)
	case dev != "all" && dev != "default" && g.links[dev] == nil:
		c.dangling("interface", dev, s, append(keys(g.links), "all", "default"), false)
		return p, false
	}
	return p, ok
}

// read checks a value and writes it as the kernel shows it, numbers with one blank between them.
func (p parameter) read(text string) (string, bool) {
	words := strings.Fields(text)
	if len(words) != p.count {
		return "", false
	}
	before := p.least
	for i, w := range words {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil || n < before || n > p.most {
			return "", false
		}
		before, words[i] = n, strconv.FormatInt(n, 10)
	}
	return strings.Join(words, " "), true
}

// String says what a parameter takes, for people.
func (p parameter) String() string {
	one := fmt.Sprintf("a number from %d to %d", p.least, p.most)
	if p.count > 1 {
		return fmt.Sprintf("%d numbers from %d to %d, none below the one before", p.count, p.least, p.most)
	}
	return one
}
