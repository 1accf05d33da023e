package validate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/Masterminds/semver/v3"
)

// bundle checks that there is one Bundle document, and what it says.
func (c *checker) bundle() {
	docs := c.docs.Bundles
	if len(docs) == 0 {
		switch {
		case c.docs.Incomplete: // it may stand in what could not be read
		case c.docs.Len() == 0:
			c.error(diag.EmptyBundle, spot{}, "there are no documents", "a bundle is a directory of *.yaml files of apiVersion "+v1.APIVersion)
		default:
			c.error(diag.MissingBundle, spot{}, "no document is of kind Bundle", "add one: {apiVersion: "+v1.APIVersion+", kind: Bundle, metadata: {name: …}}")
		}
		return
	}
	first := at(&docs[0].Where, "")
	for i := range docs[1:] {
		c.error(diag.DuplicateBundle, at(&docs[i+1].Where, "kind"), "there is a second document of kind Bundle, the first is in "+first.place(), "keep one of them")
	}
	doc := docs[0].Value
	c.origins["Bundle/"+doc.Metadata.Name] = first.origin()
	c.subdomain(first.in("metadata").in("name"), doc.Metadata.Name)
	spec := first.in("spec")
	if v := doc.Spec.Version; v != "" {
		if _, err := semver.StrictNewVersion(v); err != nil {
			c.error(diag.InvalidVersion, spec.in("version"), fmt.Sprintf("%q is no semantic version", v), "write it as 1.2.0, without a v in front")
		}
	}
	if doc.Spec.VersionPolicy != "" && doc.Spec.Version == "" && !first.broken() {
		c.error(diag.MissingField, spec.in("versionPolicy"), "versions are compared, but there is none", "write spec.version")
	}
	c.out.Name, c.out.Version = doc.Metadata.Name, doc.Spec.Version
	c.out.ConfirmTimeout = c.duration(spec.in("confirmTimeout"), doc.Spec.ConfirmTimeout, defaultConfirmTimeout, 2*time.Second, 10*time.Minute)
	c.out.Monotonic = c.choice(spec.in("versionPolicy"), doc.Spec.VersionPolicy, "Monotonic") != ""
	c.rollout(spec.in("rollout"), doc.Spec.Rollout)
	c.prune(spec.in("prune"), doc.Spec.Prune)
	for i, p := range doc.Spec.Probes {
		c.probe(spec.in("probes").nth(i), p)
	}
}

func (c *checker) probe(s spot, p v1.Probe) {
	c.label(s.in("name"), p.Name)
	c.unique("probe", p.Name, s.in("name"))
	fallback := min(2*time.Second, c.out.ConfirmTimeout)
	out := model.Probe{Name: p.Name, Timeout: c.duration(s.in("timeout"), p.Timeout, fallback, time.Millisecond, c.out.ConfirmTimeout)}
	var given []string
	if p.TCP != "" {
		given = append(given, "tcp")
		out.Kind, out.Target = model.ProbeTCP, p.TCP
		c.hostPort(s.in("tcp"), p.TCP)
	}
	if p.ICMP != "" {
		given = append(given, "icmp")
		out.Kind, out.Target = model.ProbeICMP, p.ICMP
		c.addr(s.in("icmp"), p.ICMP)
	}
	if p.Gateway {
		given = append(given, "gateway")
		out.Kind = model.ProbeGateway
	}
	if p.Source {
		given = append(given, "source")
		out.Kind = model.ProbeSource
	}
	switch {
	case len(given) == 0 && !s.broken():
		c.error(diag.InvalidProbe, s, fmt.Sprintf("probe %s says nothing to test", p.Name), "give one of tcp, icmp, gateway, source")
	case len(given) > 1:
		c.error(diag.InvalidProbe, s, fmt.Sprintf("probe %s has several targets: %s", p.Name, strings.Join(given, ", ")), "write one probe each")
	}
	c.out.Probes = append(c.out.Probes, out)
}

// hostPort checks "host:port" with an IPv6 host in brackets. Package net is not for pure rooms, and its rules are these.
func (c *checker) hostPort(s spot, text string) {
	i := strings.LastIndexByte(text, ':')
	ok := i > 0
	if ok {
		host := text[:i]
		if strings.HasPrefix(host, "[") {
			a, err := netip.ParseAddr(strings.TrimSuffix(host[1:], "]"))
			ok = err == nil && a.Is6() && strings.HasSuffix(host, "]")
		} else {
			ok = isSubdomain(strings.ToLower(host))
		}
		port, err := strconv.ParseUint(text[i+1:], 10, 16)
		ok = ok && err == nil && port > 0
	}
	if !ok {
		c.error(diag.InvalidProbe, s, fmt.Sprintf("%q is no host:port", text), "write it as 10.9.0.254:443, hub.example.org:443 or [fd00::1]:443")
	}
}
