//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"danm.io/danm/test/cluster/bed"
)

// link is one of a node's, as `ip -j -d link` has it.
type link struct {
	IfName   string `json:"ifname"`
	Master   string `json:"master"`
	Alias    string `json:"ifalias"`
	LinkInfo struct {
		Kind string `json:"info_kind"`
		Data struct {
			ID   int    `json:"id"`
			Link string `json:"link"` // a VXLAN's device
		} `json:"info_data"`
	} `json:"linkinfo"`
}

func (s *suite) links(n *bed.Node) (all []link) {
	s.t.Helper()
	s.until("links of "+n.Name, 10*time.Second, func() (bool, string) {
		out, err := n.Exec("ip", "-j", "-d", "link")
		all = nil
		// Links that come and go meanwhile interrupt a dump, and ip says so beside it.
		return err == nil && !strings.Contains(out, "interrupted") && json.Unmarshal([]byte(out), &all) == nil, out
	})
	return all
}

// vxlan is "id device" of a VXLAN that is the same on all nodes, or what the nodes have instead.
func (s *suite) vxlan(name string) string {
	s.t.Helper()
	var have []string
	for _, n := range s.Nodes {
		text := "none"
		for _, l := range s.links(n) {
			if l.IfName == name && l.LinkInfo.Kind == "vxlan" {
				text = fmt.Sprint(l.LinkInfo.Data.ID, " ", l.LinkInfo.Data.Link)
			}
		}
		have = append(have, text)
	}
	if have = slices.Compact(have); len(have) == 1 {
		return have[0]
	}
	return fmt.Sprint(have)
}
