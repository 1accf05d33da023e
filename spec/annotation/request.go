package annotation

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// reader collects problems while it turns JSON values into requests.
type reader struct{ problems diag.List }

func (r *reader) add(code diag.Code, path string, offset int, format string, args ...any) {
	r.problems = append(r.problems, diag.Diagnostic{
		Severity: diag.Error, Code: code, Path: path, Summary: fmt.Sprintf("at byte %d: ", offset) + fmt.Sprintf(format, args...),
	})
}

// kinds are the keys that name a network, each through one DANM API.
var kinds = map[string]model.APIKind{
	"network": model.DanmNet, "tenantNetwork": model.TenantNetwork, "clusterNetwork": model.ClusterNetwork,
}

const knownKeys = "network, tenantNetwork, clusterNetwork, ip, ip6, proutes, proutes6"

func (r *reader) request(path string, v value) (q model.InterfaceRequest) {
	if v.kind != object {
		r.add(diag.AnnotationSyntax, path, v.offset, "%s instead of an object", v.kind)
		return q
	}
	references, seen := 0, map[string]bool{}
	for _, m := range v.members {
		at := path + "." + clip(m.key)
		if seen[m.key] {
			r.add(diag.AnnotationField, at, m.offset, "key %s stands twice", short(m.key))
			continue
		}
		seen[m.key] = true
		switch m.key {
		case "network", "tenantNetwork", "clusterNetwork":
			references++
			q.Kind, q.Network = kinds[m.key], r.name(at, m.value)
		case "ip":
			q.IP = r.address(at, m.value, true)
		case "ip6":
			q.IP6 = r.address(at, m.value, false)
		case "proutes":
			q.Routes = append(q.Routes, r.routes(at, m.value, true)...)
		case "proutes6":
			q.Routes = append(q.Routes, r.routes(at, m.value, false)...)
		default:
			r.add(diag.AnnotationField, at, m.offset, "unknown key %s; known are %s", short(m.key), knownKeys)
		}
	}
	if references != 1 {
		r.add(diag.AnnotationReference, path, v.offset, "%d network references; exactly one of network, tenantNetwork, clusterNetwork is needed", references)
	}
	slices.SortStableFunc(q.Routes, func(a, b model.PodRoute) int {
		return cmp.Or(a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()))
	})
	return q
}

// name reads the name of a Kubernetes object: anything else cannot exist, and must not reach a path or a message.
func (r *reader) name(path string, v value) string {
	if !r.isText(path, v) {
		return ""
	}
	if !isName(v.text) {
		r.add(diag.AnnotationReference, path, v.offset, "%s is not the name of an object", short(v.text))
		return ""
	}
	return v.text
}

// isName says whether an object can be called so: an RFC 1123 subdomain, at most 253 bytes.
func isName(s string) bool {
	label := func(s string) bool {
		ok := s != "" && s[0] != '-' && s[len(s)-1] != '-'
		for i := range len(s) {
			ok = ok && (s[i] == '-' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9')
		}
		return ok
	}
	for l := range strings.SplitSeq(s, ".") {
		if len(s) > 253 || !label(l) {
			return false
		}
	}
	return true
}

// reservation is what an address can be reserved under: a DNS label that begins with a letter.
var reservation = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// address reads "dynamic", "none", "" (not asked for), the name of a reservation, or a static address whose /length is checked and then ignored: the
// network's own length counts.
func (r *reader) address(path string, v value, v4 bool) (q model.AddressRequest) {
	if !r.isText(path, v) {
		return q
	}
	switch v.text {
	case "":
		return q
	case "dynamic":
		return model.AddressRequest{Mode: model.AddressDynamic}
	case "none":
		return model.AddressRequest{Mode: model.AddressNone}
	}
	addr, err := netip.ParseAddr(v.text)
	if strings.Contains(v.text, "/") {
		var p netip.Prefix
		p, err = netip.ParsePrefix(v.text)
		addr = p.Addr()
	}
	switch {
	case err != nil && reservation.MatchString(v.text):
		return model.AddressRequest{Mode: model.AddressReserved, Name: v.text}
	case err != nil:
		r.add(diag.AnnotationAddress, path, v.offset, "%s is neither dynamic, none, an address nor the name of a reservation", short(v.text))
		return q
	case !family(addr, v4):
		r.add(diag.AnnotationAddress, path, v.offset, "%s is of the other address family", addr)
		return q
	}
	return model.AddressRequest{Mode: model.AddressStatic, Addr: addr}
}

func (r *reader) routes(path string, v value, v4 bool) (out []model.PodRoute) {
	if v.kind != object {
		r.add(diag.AnnotationRoute, path, v.offset, "%s instead of an object of destination: gateway", v.kind)
		return nil
	}
	seen := map[netip.Prefix]bool{}
	for _, m := range v.members {
		at := path + "." + clip(m.key)
		to, err := netip.ParsePrefix(m.key)
		if err != nil || !family(to.Addr(), v4) {
			r.add(diag.AnnotationRoute, at, m.offset, "destination %s is not a CIDR of this family", short(m.key))
			continue
		}
		if !r.isText(at, m.value) {
			continue
		}
		via, err := netip.ParseAddr(m.value.text)
		switch to = to.Masked(); { // host bits are tolerated, as DANM does
		case err != nil || !family(via, v4):
			r.add(diag.AnnotationRoute, at, m.value.offset, "gateway %s is not an address of this family", short(m.value.text))
		case seen[to]:
			r.add(diag.AnnotationRoute, at, m.offset, "destination %s stands twice", to)
		default:
			seen[to] = true
			out = append(out, model.PodRoute{To: to, Via: via})
		}
	}
	return out
}

func (r *reader) isText(path string, v value) bool {
	if v.kind != text {
		r.add(diag.AnnotationSyntax, path, v.offset, "%s instead of a string", v.kind)
	}
	return v.kind == text
}

// family also refuses zones and IPv4-mapped addresses: neither can be put on an interface as written.
func family(a netip.Addr, v4 bool) bool {
	return a.Is4() == v4 && !a.Is4In6() && a.Zone() == ""
}

// short quotes user text for a message, and bounds it.
func short(s string) string { return fmt.Sprintf("%q", clip(s)) }

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
