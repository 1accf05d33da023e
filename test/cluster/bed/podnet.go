//go:build linux

package bed

import (
	"fmt"
	"os"
	"path/filepath"
)

// PodNetwork gives the Pods of a node their network. It is called at each boot of the node, before its runtime starts: it writes
// into n.Path("/etc/cni/net.d") and n.Path("/opt/cni/bin"), where the reference plugins are already, and sets routes with n.Exec.
type PodNetwork func(c *Cluster, n *Node) error

// Bridge is a bridge a node with 10.244.N.0/24 and a route to every other node's, from the reference plugins alone.
func Bridge(c *Cluster, n *Node) error {
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,"ipam":
{"type":"host-local","ranges":[[{"subnet":"%s"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
`, n.podCIDR())
	if err := os.WriteFile(filepath.Join(n.Path("/etc/cni/net.d"), "10-bridge.conflist"), []byte(conf), 0o644); err != nil {
		return err
	}
	for i := range c.options.Nodes {
		if other := (&Node{index: i + 1}); other.index != n.index {
			if out, err := n.Exec("ip", "route", "replace", other.podCIDR(), "via", other.Address()); err != nil {
				return fmt.Errorf("route to the Pods of n%d: %w: %s", other.index, err, out)
			}
		}
	}
	return nil
}

func (n *Node) podCIDR() string { return fmt.Sprintf("10.244.%d.0/24", n.index) }
