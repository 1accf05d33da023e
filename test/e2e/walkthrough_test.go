//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"danm.io/danm/test/cluster/bed"
)

// mapping is what DANM's walk-through names and this machine has not, in the order in which it is replaced.
var mapping = []struct{ theirs, ours, reason string }{
	{"ipvlan", "macvlan", "the kernel has no ipvlan"},
	{"vniType: vlan", "vniType: vxlan", "the kernel has no VLAN links"},
	{"vlan: ", "vxlan: ", "the same"},
	{"ens4", "fab0", "the nodes' first card besides the management's"},
	{"ens5", "fab1", "the second"},
	{"busybox:latest", walkthroughName, "there is no registry to pull from"},
}

const walkthroughName = "localhost/danm-bed/walkthrough:1"

// walkthroughImage is busybox as a registry has it: what a container's args say is run.
func walkthroughImage(t *testing.T) bed.Image {
	t.Helper()
	i, err := bed.Busybox()
	if err != nil {
		t.Skip(err)
	}
	i.Name, i.Entrypoint = walkthroughName, nil
	return i
}

// step of the walk-through: a file is applied, and this comes of it.
type step struct {
	file    string
	refused string // the API server takes nothing, and says this
	outcome func(*suite)
}

// story is DANM's. Where its webhook refuses a file, the object is there and its conditions say why it is not used; what a later
// file of the same name says is taken.
var story = []step{
	{file: "0_wrong_tconf", refused: "vniType and vniRange are given together"},
	{file: "1_good_tconf", outcome: func(s *suite) { s.condition("tenantconfig/tconf", "Ready", "True TenantServed") }},
	{file: "2_tnet_with_vlan", outcome: func(s *suite) {
		s.condition("tenantnetwork/internal", "Assigned", "False NumberNotAllowed")
		s.condition("tenantnetwork/internal", "Ready", "False NumberNotAllowed")
		s.onNodes("vx_internal", "none")
	}},
	{file: "3_chosen_device", outcome: func(s *suite) {
		s.condition("tenantnetwork/internal", "Assigned", "True Assigned")
		s.condition("tenantnetwork/internal", "Ready", "True Published")
		s.onNodes("vx_internal", "1000 fab0")
	}},
	{file: "4_random_device", outcome: func(s *suite) { // the device with fewer networks
		s.condition("tenantnetwork/internal2", "Ready", "True Published")
		s.onNodes("vx_internal2", "2000 fab1")
	}},
	{file: "5_wrong_device", outcome: func(s *suite) {
		s.condition("tenantnetwork/internal3", "Assigned", "False DeviceNotAllowed")
		s.condition("tenantnetwork/internal3", "Ready", "False DeviceNotAllowed")
		s.onNodes("vx_internal3", "none")
	}},
	{file: "6_static_tnet", outcome: func(s *suite) { s.condition("tenantnetwork/management", "Ready", "True Published") }},
	{file: "7_default_cnet", outcome: func(s *suite) { s.condition("clusternetwork/default", "Ready", "True Published") }},
	{file: "8_external_cnet", outcome: func(s *suite) {
		s.condition("clusternetwork/external", "Ready", "True Published")
		s.onNodes("vx_external", "500 fab0")
	}},
	{file: "9_wrong_deployment", outcome: func(s *suite) { s.refusedPod("default", "AnnotationReference") }},
	{file: "10_good_deployment", outcome: func(s *suite) {
		s.has("default", map[string]string{"eth0": "10.245.0.0/16", "ext1": "10.100.1.0/24", "int2": "10.240.1.0/24"})
	}},
	{file: "11_allowed_default", outcome: func(s *suite) { s.has("default", map[string]string{"eth0": "10.245.0.0/16"}) }},
	{file: "12_not_allowed_default", outcome: func(s *suite) { s.refusedPod("kube-system", "PodNetworkUnknown") }},
}

// walkthrough is the production walk-through of DANM's documentation.
func (s *suite) walkthrough() {
	corpus := os.Getenv("DANM_CORPUS")
	if corpus == "" {
		s.t.Skip("DANM_CORPUS is not set: DANM's own walk-through is not tried")
	}
	files, err := filepath.Glob(filepath.Join(corpus, "production-walkthrough", "*.yaml"))
	s.must(err)
	if len(files) != len(story) {
		s.t.Errorf("the walk-through has the files %v, and the story %d", files, len(story))
	}
	for _, step := range story {
		ok := s.t.Run(step.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(corpus, "production-walkthrough", step.file+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			s.in(t).take(step, mapped(string(text)))
		})
		if !ok {
			return // the next stands upon it
		}
	}
	s.kubectl("delete", "deployment", "test-deployment", "-n", "kube-system", "--wait=false")
	s.kubectl("delete", "deployment", "test-deployment", "-n", "default", "--wait=false")
	// They go when their Pods have gone, and a minute later; podsDeleted looks.
	s.kubectl("delete", "tenantnetworks", "--all", "-n", "default", "--wait=false")
	s.kubectl("delete", "clusternetworks", "external", "default", "--wait=false")
}

func mapped(text string) string {
	for _, m := range mapping {
		text = strings.ReplaceAll(text, m.theirs, m.ours)
	}
	return text
}

func (s *suite) take(step step, manifest string) {
	out, err := s.API.KubectlInput(nil, manifest, "apply", "-f", "-")
	switch {
	case step.refused != "":
		if err == nil || !strings.Contains(string(out), step.refused) {
			s.t.Errorf("not refused with %q: %v %s", step.refused, err, out)
		}
	case err != nil:
		s.t.Fatalf("%v: %s\n%s", err, out, manifest)
	default:
		step.outcome(s)
	}
}

// condition waits until an object's condition is "status reason", as of the object's newest generation.
func (s *suite) condition(object, kind, want string) {
	s.t.Helper()
	path := fmt.Sprintf(`jsonpath={.metadata.generation} {range .status.conditions[?(@.type=="%s")]}{.observedGeneration} {.status} {.reason} {.message}{end}`, kind)
	s.until(object+" "+kind+" "+want, 30*time.Second, func() (bool, string) {
		out := s.kubectl("get", object, "-n", "default", "-o", path)
		f := strings.SplitN(out, " ", 5)
		return len(f) == 5 && f[0] == f[1] && f[2]+" "+f[3] == want, out
	})
}

// onNodes waits until all nodes have a VXLAN as said, "id device" or "none".
func (s *suite) onNodes(name, want string) {
	s.t.Helper()
	s.until(name+" "+want, 30*time.Second, func() (bool, string) {
		have := s.vxlan(name)
		return have == want, have
	})
}

// refusedPod waits until the walk-through's Pod of a namespace has an event with a code; it has not started.
func (s *suite) refusedPod(namespace, code string) {
	s.t.Helper()
	var said string
	s.until("an event with "+code, time.Minute, func() (bool, string) {
		said = ""
		for _, p := range s.pods(namespace, "app=test-deployment") {
			said += s.events(p)
			if isReady(p) {
				s.t.Fatalf("%s/%s runs", namespace, p.Name)
			}
		}
		return strings.Contains(said, code), said
	})
	s.t.Log(said)
}

// has waits until the walk-through's one Pod runs, and compares its interfaces with the subnets that they shall have an address of.
func (s *suite) has(namespace string, want map[string]string) {
	s.t.Helper()
	var have map[string][]netip.Prefix
	s.until(fmt.Sprintf("one Pod with %d interfaces", len(want)), time.Minute, func() (bool, string) {
		pods := slices.DeleteFunc(s.pods(namespace, "app=test-deployment"), func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
		if len(pods) != 1 || !isReady(pods[0]) {
			return false, fmt.Sprintf("%d Pods", len(pods))
		}
		var err error
		have, err = s.interfaces(pods[0])
		return err == nil && len(have) == len(want)+1, fmt.Sprint(have, err)
	})
	for name, subnet := range want {
		if at := have[name]; len(at) != 1 || !netip.MustParsePrefix(subnet).Contains(at[0].Addr()) {
			s.t.Errorf("%s has %v and not one address of %s", name, at, subnet)
		}
	}
	if at := have["int2"]; len(at) == 1 && (at[0].Addr().Compare(netip.MustParseAddr("10.240.1.100")) < 0 || at[0].Addr().Compare(netip.MustParseAddr("10.240.1.200")) > 0) {
		s.t.Errorf("int2 has %v, out of its pool", at)
	}
}
