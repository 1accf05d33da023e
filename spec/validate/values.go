package validate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// maxLinkName is IFNAMSIZ-1 (linux/if.h).
const maxLinkName = 15

// isLabel is RFC 1123 as Kubernetes reads it (apimachinery validation.IsDNS1123Label).
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// isSubdomain is labels joined by dots, at most 253 bytes (validation.IsDNS1123Subdomain, which does not bound the parts).
func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if long := len(part) > 63; !long && !isLabel(part) || long && !(isLabel(part[:63]) && isLabel(part[len(part)-63:])) {
			return false
		}
	}
	return true
}

func (c *checker) label(s spot, name string) {
	if !isLabel(name) && (name != "" || !s.broken()) {
		c.error(diag.InvalidName, s, fmt.Sprintf("%q is no name", name), "use lower-case letters, digits and - inside, at most 63")
	}
}

func (c *checker) subdomain(s spot, name string) {
	if !isSubdomain(name) && (name != "" || !s.broken()) {
		c.error(diag.InvalidName, s, fmt.Sprintf("%q is no name", name), "use lower-case letters, digits, and - and . inside, at most 253")
	}
}

// linkChars is the kernel's rule for names of links (dev_valid_name in net/core/dev.c), and printable besides.
func linkChars(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '/' || r == ':' || r == '%' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
}

// linkName checks a name that becomes a link's as it is.
func (c *checker) linkName(s spot, name string) bool {
	switch {
	case name == "" && s.broken():
		return false
	case !linkChars(name):
		c.error(diag.InvalidName, s, fmt.Sprintf("%q cannot name a link", name), "no /, :, % or white space, and not empty")
	case len(name) > maxLinkName:
		c.error(diag.LinkNameTooLong, s, fmt.Sprintf("the link name %q has %d bytes, the kernel takes %d", name, len(name), maxLinkName), "choose a shorter name")
	default:
		return true
	}
	return false
}

// cidr parses a network; host bits are an error that names the network meant.
func (c *checker) cidr(s spot, text string) (netip.Prefix, bool) {
	if text == "" && s.broken() {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil || p.Addr().Is4In6():
		hint := "write it as 10.40.0.0/22 or fd00:40::/64"
		if text == "default" {
			hint = "write 0.0.0.0/0 or ::/0"
		}
		c.error(diag.InvalidCIDR, s, fmt.Sprintf("%q is no CIDR", text), hint)
	case p != p.Masked():
		c.error(diag.HostBitsSet, s, fmt.Sprintf("%s has bits set behind the prefix length", text), fmt.Sprintf("write %s", p.Masked()))
		return p.Masked(), true // good enough to judge the rest by
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

func (c *checker) addr(s spot, text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		c.error(diag.InvalidAddress, s, fmt.Sprintf("%q is no IP address", text), "")
		return netip.Addr{}, false
	}
	return a, true
}

// hostAddress is an address of a link: the host part stays.
func (c *checker) hostAddress(s spot, text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() || p.Addr().IsUnspecified() || p.Addr().IsMulticast() {
		hint := "write it as 192.0.2.1/24"
		if _, err := netip.ParseAddr(text); err == nil {
			hint = "add the prefix length: " + text + "/24"
		}
		c.error(diag.InvalidAddress, s, fmt.Sprintf("%q is no address with prefix length", text), hint)
		return netip.Prefix{}, false
	}
	return p, true
}

func (c *checker) hostAddresses(s spot, texts []string) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range texts {
		if p, ok := c.hostAddress(s.nth(i), text); ok {
			out = append(out, p)
		}
	}
	sortPrefixes(out)
	return out
}

// addrRange parses "a-b" or "a".
func (c *checker) addrRange(s spot, text string) (model.AddrRange, bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	a, errA := netip.ParseAddr(strings.TrimSpace(first))
	b, errB := netip.ParseAddr(strings.TrimSpace(last))
	switch {
	case errA != nil || errB != nil || a.Is4() != b.Is4() || a.Zone()+b.Zone() != "" || a.Is4In6() || b.Is4In6():
		c.error(diag.InvalidRange, s, fmt.Sprintf("%q is no range of addresses", text), "write 10.40.0.10-10.40.0.200, or one address")
	case b.Less(a):
		c.error(diag.InvalidRange, s, fmt.Sprintf("the range %s ends before it begins", text), fmt.Sprintf("write %s-%s", b, a))
	default:
		return model.AddrRange{First: a, Last: b}, true
	}
	return model.AddrRange{}, false
}

// idRanges parses VLAN or VNI ranges: "100-199" or "310", within 1..limit. It clears whole if one of them is wrong: then
// nothing can be said about what lies outside.
func (c *checker) idRanges(s spot, texts []string, code diag.Code, limit uint32, whole *bool) []model.Range32 {
	var out []model.Range32
	before := len(c.problems)
	for i, text := range texts {
		if text == "" && s.broken() { // otherwise reported
			*whole = false
			continue
		}
		first, last, isRange := strings.Cut(text, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 32)
		b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 32)
		switch {
		case errA != nil || errB != nil:
			c.error(diag.InvalidRange, s.nth(i), fmt.Sprintf("%q is no range of numbers", text), `write "100-199" or "310"`)
		case a < 1 || b > uint64(limit):
			c.error(code, s.nth(i), fmt.Sprintf("the range %s leaves 1 to %d", text, limit), "")
		case b < a:
			c.error(diag.InvalidRange, s.nth(i), fmt.Sprintf("the range %s ends before it begins", text), fmt.Sprintf("write \"%d-%d\"", b, a))
		default:
			out = append(out, model.Range32{First: uint32(a), Last: uint32(b)})
		}
	}
	if len(c.problems) > before {
		*whole = false
	}
	sortRanges(out)
	return out
}

// duration parses a Go duration inside bounds; the fallback if the text is empty or wrong.
func (c *checker) duration(s spot, text string, fallback, least, most time.Duration) time.Duration {
	if text == "" {
		return fallback
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		c.error(diag.InvalidDuration, s, fmt.Sprintf("%q is no duration", text), "write it as 15s, 1m30s or 500ms")
	case d < least || d > most:
		c.error(diag.InvalidDuration, s, fmt.Sprintf("%s is not within %s to %s", text, least, most), "")
	default:
		return d
	}
	return fallback
}

// number checks bounds of a plain number. Of one that could not be read, which is 0 then, it has been told.
func (c *checker) number(code diag.Code, s spot, n, least, most int64) bool {
	if n >= least && n <= most {
		return true
	}
	if n == 0 && s.broken() {
		return false
	}
	c.error(code, s, fmt.Sprintf("%d is not within %d to %d", n, least, most), "")
	return false
}

// mtu checks a declared MTU, 0 being none. The kernel's least is 68 (RFC 791), 1280 where IPv6 runs (RFC 8200, section 5).
func (c *checker) mtu(s spot, mtu int, v6 bool) {
	least := 68
	if v6 {
		least = 1280
	}
	if mtu != 0 && (mtu < least || mtu > 65535) {
		c.error(diag.InvalidMTU, s, fmt.Sprintf("MTU %d is not within %d to 65535", mtu, least), "")
	}
}
