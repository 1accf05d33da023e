//go:build linux

package nodes

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	danmv1 "danm.io/danm/spec/danm/v1"
)

// endpoints are the DanmEps of acme, in the order of their interfaces.
func (s *site) endpoints() []danmv1.DanmEp {
	var list danmv1.DanmEpList
	s.must(json.Unmarshal([]byte(s.kubectl("get", "danmeps", "-n", "acme", "-o", "json")), &list))
	slices.SortFunc(list.Items, func(a, b danmv1.DanmEp) int { return strings.Compare(a.Spec.Iface.Name, b.Spec.Iface.Name) })
	return list.Items
}

// told says whether DanmEps say what a Pod was told of its interfaces.
func told(eps []danmv1.DanmEp, all []status) error {
	if len(eps) != len(all) {
		return fmt.Errorf("%d of %d", len(eps), len(all))
	}
	for _, e := range eps {
		at := slices.IndexFunc(all, func(one status) bool { return one.Interface == e.Spec.Iface.Name })
		if at < 0 {
			return fmt.Errorf("no interface %s", e.Spec.Iface.Name)
		}
		var ips []string
		for _, text := range []string{e.Spec.Iface.Address, e.Spec.Iface.AddressIPv6} {
			if address, _, _ := strings.Cut(text, "/"); address != "" {
				ips = append(ips, address)
			}
		}
		if e.Spec.Iface.MacAddress != all[at].MAC || fmt.Sprint(ips) != fmt.Sprint(all[at].IPs) || "acme/"+e.Spec.NetworkName != all[at].Name {
			return fmt.Errorf("%+v of %+v", e.Spec, all[at])
		}
	}
	return nil
}

// endpointsOf: the DanmEps of an attached Pod are written by the node's own credentials under the policy that narrows them, come back
// when they are deleted, also while no agent is there, have the Pod's labels, and are the Pod's.
func (s *site) endpointsOf(pod, uid string, all []status) {
	s.t.Helper()
	var why error
	published := func() bool { why = told(s.endpoints(), all); return why == nil }
	wait := func(what string, ok func() bool) {
		s.t.Helper()
		s.until(what+fmt.Sprintf(" (%v)", why), 30*time.Second, ok)
	}
	wait("published", published)
	before := s.endpoints()
	for _, e := range before {
		if o := e.OwnerReferences; len(o) != 1 || string(o[0].UID) != uid || e.Spec.PodUID != uid || e.Spec.Host != "n1" || e.Spec.EndpointID != e.Name || e.Labels[danmv1.LabelNode] != "n1" {
			s.t.Errorf("%+v", e)
		}
	}
	s.kubectl("label", "pod", pod, "-n", "acme", "tier=front")
	labelled := func() bool {
		return !slices.ContainsFunc(s.endpoints(), func(e danmv1.DanmEp) bool { return e.Labels["tier"] != "front" })
	}
	wait("labelled", labelled)
	s.kubectl("delete", "danmeps", "-n", "acme", before[0].Name)
	wait("back again", func() bool { return published() && s.endpoints()[0].UID != before[0].UID })
	s.agents["n1"].Stop(syscall.SIGKILL, time.Second)
	s.kubectl("delete", "danmeps", "-n", "acme", "--all")
	s.restartAgent("n1")
	wait("back after an agent was away", func() bool { return published() && labelled() }) // the agent may learn of the Pod's labels later
	if again := s.endpoints(); again[0].Name != before[0].Name || again[0].Labels["tier"] != "front" {
		s.t.Errorf("%+v", again[0])
	}
	if shown := s.kubectl("get", "de", "-n", "acme"); !strings.Contains(shown, pod) {
		s.t.Error(shown)
	}
}
