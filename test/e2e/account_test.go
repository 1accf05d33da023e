//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"danm.io/danm/test/cluster/bed"
)

// account is what stands on a node for its Pods, one way or the other.
type account struct {
	records    int // of the agent's journal
	namespaces int
	veths      int // host ends on bridges of the host, of DANM's driver and of plugins
	results    int // of delegates, in the agent's cache
	pods       int // addresses of host-local for the default network
	own        int // for the network acme/own
	flannel    int // for the walk-through
}

// expected is the account of Pods, by what they ask for.
func expected(pods []corev1.Pod) (a account) {
	for _, p := range pods {
		a.records++
		a.namespaces++
		for _, name := range networksOf(p) {
			switch {
			case name == "pods":
				a.veths, a.results, a.pods = a.veths+1, a.results+1, a.pods+1
			case p.Namespace != "acme":
			case name == "data" || name == "local":
				a.veths++
			case name == "chain":
				a.results++
			case name == "own":
				a.veths, a.results, a.own = a.veths+1, a.results+1, a.own+2
			case name == "lent":
				a.records++ // of the plugin's call, besides the Pod's own
				a.veths, a.results = a.veths+1, a.results+1
			}
		}
	}
	return a
}

// networksOf are the names of what a Pod asks for, the default network first.
func networksOf(p corev1.Pod) (names []string) {
	var asked []map[string]string
	if json.Unmarshal([]byte(p.Annotations["danm.io/interfaces"]), &asked) == nil {
		for _, one := range asked {
			names = append(names, one["tenantNetwork"]+one["clusterNetwork"])
		}
		return names
	}
	names = []string{"pods"}
	if text := p.Annotations["k8s.v1.cni.cncf.io/networks"]; text != "" {
		names = append(names, strings.Split(text, ",")...)
	}
	return names
}

// found is a node's account by its kernel and its disk.
func (s *suite) found(n *bed.Node) (a account) {
	s.t.Helper()
	files := func(pattern string) (out []string) {
		names, err := filepath.Glob(n.Path(pattern))
		s.must(err)
		for _, name := range names {
			out = append(out, filepath.Base(name))
		}
		return out
	}
	addresses := func(network string) int {
		return len(slices.DeleteFunc(files("/var/lib/cni/networks/"+network+"/*"), func(f string) bool { return f == "lock" || strings.HasPrefix(f, "last_reserved_ip") }))
	}
	a.namespaces = len(files("/run/netns/*"))
	a.results = len(files("/var/lib/danm/delegates/results/*"))
	a.pods, a.own, a.flannel = addresses("pods"), addresses("own"), addresses("flannel")
	for _, l := range s.links(n) {
		if l.LinkInfo.Kind == "veth" && l.Master != "" {
			a.veths++
		}
	}
	out, err := s.danmctl(n, "ipam", "check", "--state-dir", "/var/lib/danm", "-o", "json")
	var said struct{ Compared string }
	if jerr := json.Unmarshal([]byte(out), &said); jerr != nil {
		s.t.Fatalf("%s: danmctl ipam check: %v: %s", n.Name, err, out)
	}
	if _, err := fmt.Sscanf(said.Compared, "%d record", &a.records); err != nil {
		s.t.Fatalf("%s: danmctl ipam check compared %q", n.Name, said.Compared)
	}
	return a
}

// accounted waits until every node has for the Pods that there are what they need, and nothing else; then danmctl finds the same.
func (s *suite) accounted(within time.Duration) {
	s.t.Helper()
	s.until("nothing leaked", within, func() (bool, string) {
		pods := s.ours()
		if slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil }) {
			return false, "Pods are being deleted"
		}
		for _, n := range s.Nodes {
			want := expected(slices.DeleteFunc(slices.Clone(pods), func(p corev1.Pod) bool { return p.Spec.NodeName != n.Name }))
			if have := s.found(n); have != want {
				return false, fmt.Sprintf("%s has %+v, and its Pods need %+v", n.Name, have, want)
			}
		}
		return true, ""
	})
	want := map[string]int{}
	for _, p := range s.ours() {
		if p.Spec.NodeName != "" {
			want[p.Namespace] += len(networksOf(p))
		}
	}
	for namespace, count := range want {
		s.until(fmt.Sprintf("%d DanmEps in %s", count, namespace), 30*time.Second, func() (bool, string) {
			have := s.endpoints(namespace)
			return have == count, fmt.Sprint(have)
		})
	}
	for _, n := range s.Nodes {
		s.checked(n, "--state-dir", "/var/lib/danm", "--live")
	}
	s.checked(s.Nodes[0], "--live")
	s.held()
}

// checked holds what journal, kernel and API say of addresses against each other.
func (s *suite) checked(n *bed.Node, args ...string) {
	s.t.Helper()
	if out, err := s.danmctl(n, append([]string{"ipam", "check", "--kubeconfig", s.kubeconfig}, args...)...); err != nil {
		s.t.Errorf("%s: danmctl ipam check %v: %v\n%s", n.Name, args, err, out)
	}
}

// held: `danmctl ipam show` counts as many addresses of each network as the Pods have.
func (s *suite) held() {
	s.t.Helper()
	want := map[string]int{}
	for _, p := range s.ours() {
		for _, name := range networksOf(p) {
			if key, families := known(p.Namespace, name); families > 0 {
				want[key] += families
			}
		}
	}
	have := map[string]int{}
	for _, node := range s.Nodes {
		out, err := s.danmctl(node, "ipam", "show", "--state-dir", "/var/lib/danm", "-o", "json")
		var said struct {
			Spaces []struct {
				Networks []string
				Counts   map[string]float64 // free ones of IPv6 are more than an int holds
			}
		}
		if jerr := json.Unmarshal([]byte(out), &said); jerr != nil {
			s.t.Fatalf("%s: danmctl ipam show: %v: %s", node.Name, err, out)
		}
		for _, space := range said.Spaces {
			if count := int(space.Counts["held"]); count > 0 {
				have[strings.Join(space.Networks, " ")] += count
			}
		}
	}
	if !maps.Equal(have, want) {
		s.t.Errorf("danmctl ipam show counts %v held, and Pods have %v", have, want)
	}
}

// known is the key of a network that a Pod asks for, and how many addresses of DANM's it has there.
func known(namespace, name string) (key string, families int) {
	switch {
	case namespace == "acme" && name == "tiny":
		return "acme/tiny", 1
	case namespace != "acme" && name == "data":
		return namespace + "/data", 2
	case name == "lent":
		return "acme/pool", 2
	}
	i := slices.IndexFunc(acme, func(n network) bool { return n.name == name })
	if i < 0 || acme[i].plugin {
		return "", 0
	}
	n := acme[i]
	for _, subnet := range []netip.Prefix{n.v4, n.v6} {
		if subnet.IsValid() {
			families++
		}
	}
	return n.key(), families
}

// endpoints counts the DanmEps of a namespace.
func (s *suite) endpoints(namespace string) int {
	s.t.Helper()
	client, err := dynamic.NewForConfig(s.API.Config(bed.AdminToken))
	s.must(err)
	list, err := client.Resource(schema.GroupVersionResource{Group: "danm.io", Version: "v1", Resource: "danmeps"}).Namespace(namespace).List(s.t.Context(), metav1.ListOptions{})
	s.must(err)
	return len(list.Items)
}
