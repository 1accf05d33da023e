package annotation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// selection is one element of the NPWG's list (multi-net-spec v1.3, section 4.1.2), read as Multus reads it: keys that nobody
// knows are passed over.
type selection struct {
	Name         string                     `json:"name"`
	Namespace    string                     `json:"namespace"`
	Interface    string                     `json:"interface"`
	OldInterface string                     `json:"interfaceRequest"` // Multus's own, before "interface"
	IPs          []string                   `json:"ips"`
	MAC          string                     `json:"mac"`
	Args         map[string]json.RawMessage `json:"cni-args"`
	Ports        []portMapping              `json:"portMappings"`
	Bandwidth    *bandwidth                 `json:"bandwidth"`
	DefaultRoute *[]string                  `json:"default-route"`
	GUID         string                     `json:"infiniband-guid"`
	Claim        string                     `json:"ipam-claim-reference"`
	Device       string                     `json:"deviceID"`
}

// portMapping and bandwidth are handed to plugins as they stand (CNI conventions, "Well-known Capabilities").
type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol,omitempty"`
	HostIP        string `json:"hostIP,omitempty"`
}

type bandwidth struct {
	IngressRate  int64 `json:"ingressRate"`
	IngressBurst int64 `json:"ingressBurst"`
	EgressRate   int64 `json:"egressRate"`
	EgressBurst  int64 `json:"egressBurst"`
}

// parseSelections reads the NPWG's two annotations: the default network's, which is one element in the default network's place,
// and the list of the others. Each is a comma-separated text of [namespace/]name[@interface], or JSON.
func parseSelections(annotations map[string]string) ([]model.InterfaceRequest, diag.List) {
	r := selectionReader{}
	if text := annotations[DefaultNetworkKey]; text != "" {
		if r.list(DefaultNetworkKey, text); len(r.out) > 1 {
			r.add(diag.AnnotationReference, DefaultNetworkKey, "%d networks instead of the one that takes the default network's place", len(r.out))
		}
		for i := range r.out {
			r.out[i].Selection.Default = true
		}
	}
	if text := annotations[NPWGKey]; text != "" {
		r.list(NPWGKey, text)
	}
	r.oneDefaultRoute()
	if r.problems.HasErrors() {
		return nil, r.problems
	}
	return r.out, nil
}

// oneDefaultRoute refuses two elements that want the default route of one family. Without gateways an element wants both.
func (r *selectionReader) oneDefaultRoute() {
	var wanted [2]int
	for _, q := range r.out {
		s := q.Selection
		for family, is := range [2]func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
			if s.DefaultRoute && (len(s.Gateways) == 0 || slices.ContainsFunc(s.Gateways, is)) {
				wanted[family]++
			}
		}
	}
	if most := max(wanted[0], wanted[1]); most > 1 {
		r.add(diag.AnnotationRoute, NPWGKey, "%d elements have default-route for one family, and one can", most)
	}
}

// selectionReader collects requests and problems.
type selectionReader struct {
	out      []model.InterfaceRequest
	problems diag.List
}

func (r *selectionReader) add(code diag.Code, path, format string, args ...any) {
	r.problems = append(r.problems, problem(code, path, fmt.Sprintf(format, args...))...)
}

func (r *selectionReader) list(path, text string) {
	if len(text) > MaxBytes {
		r.add(diag.AnnotationTooBig, path, "%d bytes, at most %d are read", len(text), MaxBytes)
		return
	}
	if !utf8.ValidString(text) {
		r.add(diag.AnnotationSyntax, path, "not UTF-8")
		return
	}
	var all []*selection
	if strings.ContainsAny(text, `[{"`) { // how Multus tells them apart
		var err error
		if all, err = selections([]byte(text)); err != nil {
			r.add(diag.AnnotationSyntax, path, "%s", clipped(err))
			return
		}
	} else {
		for item := range strings.SplitSeq(text, ",") {
			all = append(all, named(item))
		}
	}
	if len(all) > MaxInterfaces {
		r.add(diag.AnnotationTooBig, path, "%d interfaces, at most %d are attached", len(all), MaxInterfaces)
		return
	}
	for i, s := range all {
		at := fmt.Sprintf("%s[%d]", path, i)
		if s == nil {
			r.add(diag.AnnotationSyntax, at, "it is not [namespace/]name[@interface]")
			continue
		}
		r.out = append(r.out, r.request(at, s))
	}
}

// selections reads JSON; one object is a list of one.
func selections(raw []byte) ([]*selection, error) {
	if strings.HasPrefix(strings.TrimSpace(string(raw)), "{") {
		raw = append(append([]byte{'['}, raw...), ']')
	}
	var out []*selection
	err := json.Unmarshal(raw, &out)
	if s := (*json.SyntaxError)(nil); errors.As(err, &s) {
		return nil, fmt.Errorf("at byte %d: %w", s.Offset, err)
	}
	return out, err
}

// named reads [namespace/]name[@interface]; nil for anything else.
func named(text string) *selection {
	name, ifName, at := strings.Cut(strings.TrimSpace(text), "@")
	namespace, rest, slash := strings.Cut(name, "/")
	if slash {
		name = rest
	}
	s := &selection{Name: strings.TrimSpace(name), Interface: strings.TrimSpace(ifName)}
	if slash {
		s.Namespace = strings.TrimSpace(namespace)
	}
	if at && s.Interface == "" || slash && s.Namespace == "" || strings.ContainsAny(s.Interface, "@/") {
		return nil
	}
	return s
}

// unicastMAC is the address of one Ethernet interface: its first bit on the wire is 0 (IEEE 802, section 8.2).
var unicastMAC = regexp.MustCompile(`^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$`)

func (r *selectionReader) request(at string, s *selection) model.InterfaceRequest {
	out := &model.Selection{Namespace: s.Namespace, IfName: s.Interface, Args: s.Args}
	if out.IfName == "" {
		out.IfName = s.OldInterface
	}
	if !isName(s.Name) || s.Namespace != "" && !isName(s.Namespace) {
		r.add(diag.AnnotationReference, at, "%s in namespace %s is not the name of an object", short(s.Name), short(s.Namespace))
	}
	for _, text := range s.IPs {
		if !isAddress(text) {
			r.add(diag.AnnotationAddress, at+".ips", "%s is not an address", short(text))
		}
		out.Addresses = append(out.Addresses, text)
	}
	if s.MAC != "" {
		out.MAC = strings.ToLower(strings.ReplaceAll(s.MAC, "-", ":"))
		if !unicastMAC.MatchString(out.MAC) || out.MAC == "00:00:00:00:00:00" {
			r.add(diag.AnnotationField, at+".mac", "%s is not the address of one Ethernet interface", short(s.MAC))
		}
	}
	r.defaultRoute(at+".default-route", s, out)
	for _, unknown := range []struct{ key, value, reason string }{
		{"ipam-claim-reference", s.Claim, "claims of addresses are not kept here; sticky networks keep the addresses of StatefulSets"},
		{"deviceID", s.Device, "which device a Pod gets is the kubelet's choice"},
	} {
		if unknown.value != "" {
			r.add(diag.AnnotationField, at+"."+unknown.key, "%s", unknown.reason)
		}
	}
	out.Capabilities = capabilities(s)
	return model.InterfaceRequest{Kind: model.Definition, Network: s.Name, Selection: out}
}

// defaultRoute reads gateways, at most one a family: several would need a choice between them for each packet.
func (r *selectionReader) defaultRoute(at string, s *selection, out *model.Selection) {
	if s.DefaultRoute == nil {
		return
	}
	out.DefaultRoute = true
	seen := map[bool]bool{}
	for _, text := range *s.DefaultRoute {
		gw, err := netip.ParseAddr(text)
		switch {
		case err != nil || !family(gw, gw.Is4()) || gw.IsUnspecified():
			r.add(diag.AnnotationRoute, at, "%s is not the address of a gateway", short(text))
		case seen[gw.Is4()]:
			r.add(diag.AnnotationRoute, at, "a second gateway of a family, %s; one can be", gw)
		}
		seen[gw.Is4()] = true
		out.Gateways = append(out.Gateways, gw)
	}
}

func capabilities(s *selection) map[string]any {
	out := map[string]any{}
	if len(s.Ports) > 0 {
		out["portMappings"] = s.Ports
	}
	if s.Bandwidth != nil {
		out["bandwidth"] = s.Bandwidth
	}
	if s.GUID != "" {
		out["infinibandGUID"] = s.GUID
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// isAddress says whether a text is an address, with or without a length.
func isAddress(text string) bool {
	a, err := netip.ParseAddr(text)
	if strings.Contains(text, "/") {
		var p netip.Prefix
		p, err = netip.ParsePrefix(text)
		a = p.Addr()
	}
	return err == nil && family(a, a.Is4()) && !a.IsUnspecified()
}

// clipped bounds what a library says of a user's text.
func clipped(err error) string {
	if text := err.Error(); len(text) > 200 {
		return text[:200] + "..."
	}
	return err.Error()
}
