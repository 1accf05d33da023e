//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"danm.io/danm/test/cluster/bed"
)

// network is one of the bundle's, and what the tests know of it beforehand.
type network struct {
	name, namespace string
	spec            string
	v4, v6          netip.Prefix // none: that family is not there
	node            bool         // every node has one of its own, also where the addresses are the cluster's
	plugin          bool         // the plugin gives the addresses, so that a Pod asks for none
}

// key is how DANM names it.
func (n network) key() string {
	if n.namespace == "" {
		return n.name
	}
	return n.namespace + "/" + n.name
}

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

// chain is a list of two plugins; master, addresses and MTU are DANM's to fill in.
const chain = `{"cniVersion": "1.0.0", "plugins": [{"type": "macvlan", "mode": "bridge"}, {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"}}]}`

// own is a list with addresses of its own.
const own = `{"cniVersion": "1.0.0", "plugins": [{"type": "bridge", "bridge": "br-own", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.66.0.0/24"}], [{"subnet": "fd00:66::/64"}]]}}, {"type": "tuning", "mtu": 1400}]}`

// lent is a plugin that asks DANM for addresses of the network acme/pool.
const lent = `{"cniVersion": "1.0.0", "type": "bridge", "bridge": "br-lent", "ipam": {"type": "danm", "network": "acme/pool"}}`

// acme are networks of every kind that this machine's kernel has.
var acme = []network{
	{name: "wire", namespace: "acme", spec: "type: macvlan, fabric: f", v4: prefix("10.61.0.0/24"), v6: prefix("fd00:61::/64")},
	{name: "voice", namespace: "acme", spec: "type: macvlan, fabric: f, vxlan: auto", v4: prefix("10.62.0.0/24"), v6: prefix("fd00:62::/64")},
	{name: "data", namespace: "acme", spec: "type: bridge, fabric: f, vxlan: auto", v4: prefix("10.63.0.0/24"), v6: prefix("fd00:63::/64")},
	{name: "local", namespace: "acme", spec: "type: bridge, hostDevice: br-local", v4: prefix("10.64.0.0/24"), v6: prefix("fd00:64::/64"), node: true},
	{name: "chain", namespace: "acme", spec: "type: macvlan, fabric: f, vxlan: auto, delegate: {confList: '" + chain + "'}", v4: prefix("10.65.0.0/24"), v6: prefix("fd00:65::/64")},
	{name: "own", namespace: "acme", spec: "type: bridge, delegate: {confList: '" + own + "'}", v4: prefix("10.66.0.0/24"), v6: prefix("fd00:66::/64"), node: true, plugin: true},
	{name: "six", namespace: "acme", spec: "type: macvlan, fabric: f, vxlan: auto", v6: prefix("fd00:67::/64")},
	{name: "oam", spec: "type: macvlan, fabric: f, vxlan: auto, allowedTenants: [acme]", v4: prefix("10.68.0.0/24"), v6: prefix("fd00:68::/64")},
}

// overlap is what two tenants each call their network "data": the same addresses on VNIs of their own.
const overlap = "type: macvlan, fabric: f, vxlan: auto, ipv4: {cidr: 10.77.0.0/24}, ipv6: {cidr: 'fd00:77::/64'}"

// borrowing is the network of Pods whose addresses a plugin has asked DANM for.
var borrowing = network{name: "lent", namespace: "acme", spec: "type: bridge, delegate: {conf: '" + lent + "'}", v4: prefix("10.69.0.0/24"), v6: prefix("fd00:69::/64"), node: true, plugin: true}

// tinyPool is the only address of the network acme/tiny that is given by choice.
const tinyPool = "10.70.0.10-10.70.0.10"

// document is the network's, with its addresses unless the plugin has its own. All are definitions for Pods of Multus, too.
func (n network) document() string {
	metadata := "{name: " + n.name + ", namespace: " + n.namespace + "}"
	if n.namespace == "" {
		metadata = "{name: " + n.name + "}"
	}
	spec := n.spec + ", render: nad"
	if n.v4.IsValid() && !n.plugin {
		spec += ", ipv4: {cidr: " + n.v4.String() + "}"
	}
	if n.v6.IsValid() && !n.plugin {
		spec += ", ipv6: {cidr: '" + n.v6.String() + "'}"
	}
	return networkDocument(metadata, "{"+spec+"}")
}

func networkDocument(metadata, spec string) string {
	return "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: " + metadata + "\nspec: " + spec + "\n"
}

// bundle is the ConfigMap with the site's documents, the namespaces of its tenants, and the NetworkBundle that reads it.
func bundle() string {
	documents := []string{
		"apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {confirmTimeout: 10s, rollout: {soak: 0s, maxUnavailable: 2, onFailure: Halt}}\n",
		"apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: site}\nspec:\n  groups:\n  - {name: all, selector: {role: edge}, interfaces: [{name: fab0, up: true}, {name: fab1, up: true}], bridges: [{name: br-local}]}\n" +
			"  fabrics:\n  - {name: f, groups: [all], device: fab0, vxlan: {port: 4789}}\n",
		networkDocument("{name: pods}", "{type: bridge, delegate: {file: pods}}"),
		networkDocument("{name: tiny, namespace: acme}", "{type: macvlan, fabric: f, vxlan: auto, ipv4: {cidr: 10.70.0.0/24, pools: ["+tinyPool+"]}}"),
		networkDocument("{name: pool, namespace: acme}", "{type: bridge, hostDevice: br-local, ipv4: {cidr: "+borrowing.v4.String()+"}, ipv6: {cidr: '"+borrowing.v6.String()+"'}}"),
		borrowing.document(), fastPool(), fast.document(),
		networkDocument("{name: data, namespace: red}", "{networkID: red, "+overlap+"}"),
		networkDocument("{name: data, namespace: blue}", "{networkID: blue, "+overlap+"}"),
	}
	out := "apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n"
	for _, tenant := range []string{"acme", "red", "blue"} {
		out += "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: " + tenant + "}\n"
		documents = append(documents, fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: %s}\nspec: {namespaces: [%[1]s], defaultNetwork: pods}\n", tenant))
	}
	for _, n := range acme {
		documents = append(documents, n.document())
	}
	text := strings.Join(documents, "---\n")
	return out + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: edge, namespace: danm-system, labels: {bundle: edge}}\ndata:\n  site.yaml: |\n    " +
		strings.TrimSpace(strings.ReplaceAll(text, "\n", "\n    ")) + "\n"
}

// podNetwork is what an installer leaves on a node at each boot. The bed's own network for Pods becomes one that DANM delegates to;
// the runtime takes the first file by name, which is DANM's as soon as the agent has written it. fab0 gets the address that VXLANs of
// the fabric come from; fab1 is the walk-through's second card; the bundle declares it, since a virtual link is none of those that agents report.
func podNetwork(c *bed.Cluster, n *bed.Node) error {
	if err := bed.Bridge(c, n); err != nil {
		return err
	}
	dir, number := n.Path("/etc/cni/net.d"), strings.TrimPrefix(n.Name, "n")
	flannel := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "flannel", "type": "bridge", "bridge": "cbr0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]]}}`, flannelOf(n))
	errs := []error{os.Rename(filepath.Join(dir, "10-bridge.conflist"), filepath.Join(dir, "pods.conflist")), os.WriteFile(filepath.Join(dir, "flannel.conf"), []byte(flannel), 0o644)}
	for _, args := range []string{"address add 192.0.2." + number + "/24 dev fab0", "link set fab0 up", "link add fab1 type veth peer name fab1-far", "link set fab1 up", "link set fab1-far up"} {
		if out, err := n.Exec(append([]string{"ip"}, strings.Fields(args)...)...); err != nil {
			errs = append(errs, fmt.Errorf("ip %s: %w: %s", args, err, out))
		}
	}
	return errors.Join(append(errs, theCards.plug(n))...)
}

// flannelOf is the subnet of a node's Pods in the walk-through.
func flannelOf(n *bed.Node) netip.Prefix {
	return netip.MustParsePrefix("10.245." + strings.TrimPrefix(n.Name, "n") + ".0/24")
}
