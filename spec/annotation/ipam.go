package annotation

import (
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// IPAM is what the ipam section of a CNI conf asks of danm as the IPAM plugin of another plugin.
type IPAM struct {
	Namespace string // of the network, "" = the Pod's
	// Request names the network as an annotation does, except that kind DanmNet (key "network") may also mean a ClusterNetwork.
	// An address that was not asked for has mode NoAddress: what that means is for the network to say.
	Request model.InterfaceRequest
}

const knownIPAMKeys = "type, socket, network, tenantNetwork, clusterNetwork, ip, ip6"

// ParseIPAM reads the object under path ("ipam"), under the same rules as an entry of an annotation: case-sensitive, no key
// twice, none that is unknown, one network. A name may have its namespace in front ("acme/voice"), except a ClusterNetwork's.
func ParseIPAM(path string, raw []byte) (out IPAM, problems diag.List) {
	root, err := parseJSON(raw)
	if err != nil {
		return out, problem(diag.AnnotationSyntax, path, err.Error())
	}
	r := reader{}
	if root.kind != object {
		r.add(diag.AnnotationSyntax, path, root.offset, "%s instead of an object", root.kind)
		return out, r.problems
	}
	references, seen := 0, map[string]bool{}
	for _, m := range root.members {
		at := path + "." + clip(m.key)
		if seen[m.key] {
			r.add(diag.AnnotationField, at, m.offset, "key %s stands twice", short(m.key))
			continue
		}
		seen[m.key] = true
		switch m.key {
		case "type", "socket":
			r.isText(at, m.value)
		case "network", "tenantNetwork", "clusterNetwork":
			references++
			name := m.value
			if namespace, rest, ok := strings.Cut(name.text, "/"); ok && m.key != "clusterNetwork" {
				name.text = namespace
				out.Namespace = r.name(at, name)
				name.text = rest
			}
			out.Request.Kind, out.Request.Network = kinds[m.key], r.name(at, name)
		case "ip":
			out.Request.IP = r.address(at, m.value, true)
		case "ip6":
			out.Request.IP6 = r.address(at, m.value, false)
		default:
			r.add(diag.AnnotationField, at, m.offset, "unknown key %s; known are %s", short(m.key), knownIPAMKeys)
		}
	}
	if references != 1 {
		r.add(diag.AnnotationReference, path, root.offset, "%d network references; exactly one of network, tenantNetwork, clusterNetwork is needed", references)
	}
	return out, r.problems
}
