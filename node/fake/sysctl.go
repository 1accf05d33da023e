package fake

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// params are the kernel parameters: by family of parameters ("net.ipv4.conf/rp_filter") and link, or by key.
type params struct {
	perLink map[string]map[string]string
	single  map[string]string
}

// everyParam asks for all of them.
const everyParam = "**"

func newParams() params {
	p := params{perLink: map[string]map[string]string{}, single: map[string]string{"net.core.somaxconn": "4096", "net.core.rmem_max": "212992", "net.ipv4.tcp_l3mdev_accept": "0", "net.ipv4.tcp_rmem": "4096 131072 6291456"}}
	for family, value := range map[string]string{"net.ipv4.conf/forwarding": "0", "net.ipv4.conf/rp_filter": "0", "net.ipv4.conf/accept_redirects": "1",
		"net.ipv6.conf/forwarding": "0", "net.ipv6.conf/accept_ra": "1", "net.ipv4.neigh/gc_stale_time": "60"} {
		p.perLink[family] = map[string]string{"default": value}
		if strings.Contains(family, ".conf/") {
			p.perLink[family]["all"] = value
		}
	}
	p.linkCame("lo")
	return p
}

func (p params) linkCame(link string) {
	for _, values := range p.perLink {
		values[link] = values["default"]
	}
}

func (p params) linkWent(link string) {
	for _, values := range p.perLink {
		delete(values, link)
	}
}

// place finds the values that a key stands among, and its name there.
func (p params) place(key string) (values map[string]string, name, family string) {
	if parts := strings.Split(key, "."); len(parts) == 5 {
		family = strings.Join(parts[:3], ".") + "/" + parts[4]
		if values, ok := p.perLink[family]; ok {
			return values, strings.ReplaceAll(parts[3], "/", "."), family
		}
	}
	return p.single, key, ""
}

// write is what the kernel does on a write: forwarding of all is written to every link and to default and turns
// redirects around, an IPv4 or neighbour default goes to the links that have it.
func (p params) write(key, value string) error {
	values, name, family := p.place(key)
	old, there := values[name]
	if !there {
		return fmt.Errorf("%s: %w", key, ErrNoEntry)
	}
	values[name] = value
	if old == value {
		return nil
	}
	forwarding := strings.HasSuffix(family, "conf/forwarding")
	for link, v := range values {
		fromAll := forwarding && name == "all"
		fromDefault := !forwarding && name == "default" && link != "all" && v == old && !strings.HasPrefix(family, "net.ipv6.conf/")
		if family != "" && (fromAll || fromDefault) {
			values[link] = value
		}
	}
	if family == "net.ipv4.conf/forwarding" && name == "all" {
		p.perLink["net.ipv4.conf/accept_redirects"]["all"] = map[string]string{"0": "1", "1": "0"}[value]
	}
	return nil
}

// list gives those that any of the patterns names: a key, one with * for the link, or everyParam.
func (p params) list(patterns []string) []model.Sysctl {
	found := map[string]string{}
	for _, pattern := range patterns {
		values, name, family := p.place(pattern)
		switch {
		case pattern == everyParam:
			maps.Copy(found, p.single)
			for family, values := range p.perLink {
				addAll(found, family, values)
			}
		case name == "*":
			addAll(found, family, values)
		default:
			if v, there := values[name]; there {
				found[pattern] = v
			}
		}
	}
	var out []model.Sysctl
	for _, k := range slices.Sorted(maps.Keys(found)) {
		out = append(out, model.Sysctl{Key: k, Value: found[k]})
	}
	return out
}

func addAll(found map[string]string, family string, values map[string]string) {
	base, param, _ := strings.Cut(family, "/")
	for link, v := range values {
		found[base+"."+strings.ReplaceAll(link, ".", "/")+"."+param] = v
	}
}

var _ plan.Kernel = (*Kernel)(nil)
