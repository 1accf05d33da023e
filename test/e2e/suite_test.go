//go:build linux

// Package e2e is the whole thing: DANM from deploy/ on a real Kubernetes of two nodes, where kubelets start Pods through containerd,
// and what counts is what the Pods have and whom they reach.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"danm.io/danm/test/cluster/bed"
)

func TestMain(m *testing.M) {
	// Parts that run beside each other wait for most of their time; the default is as many as there are cores.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	bed.ClusterMain(m)
}

// suite is a cluster that runs DANM, for one part of the tests.
type suite struct {
	t *testing.T
	*bed.Cluster
	client     kubernetes.Interface
	kubeconfig string
}

// part of the story, whose name is the subtest's.
type part struct {
	name string
	run  func(*suite)
}

// TestE2EKubernetes is one story on one cluster, since starting it costs the most. Parts that wait for something most of their time, and
// have namespaces of their own, run beside each other; those that break nodes come afterwards.
func TestE2EKubernetes(t *testing.T) {
	images := append(bed.DANM(), walkthroughImage(t))
	s := &suite{t: t, Cluster: bed.NewCluster(t, bed.Options{Nodes: 2, Labels: "role=edge", Fabric: "fab0", PodNetwork: podNetwork, Images: images})}
	var err error
	s.kubeconfig, err = s.API.Kubeconfig("e2e", bed.AdminToken)
	s.must(err)
	s.client, err = kubernetes.NewForConfig(s.API.Config(bed.AdminToken))
	s.must(err)
	if !s.each(part{"deploy", (*suite).deploy}) {
		return
	}
	t.Run("beside", func(t *testing.T) {
		for _, p := range []part{
			{"networks", (*suite).networks},
			{"tenants", (*suite).tenants},
			{"exhausted pool", (*suite).exhausted},
			{"walkthrough", (*suite).walkthrough},
			{"devices", (*suite).devices},
			{"functions", (*suite).functions},
			{"static Pod", (*suite).staticPod},
		} {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				p.run(s.in(t))
			})
		}
	})
	s.each(
		part{"agent killed", (*suite).agentKilled},
		part{"functions under fire", (*suite).functionsUnderFire},
		part{"kubelet restarts", (*suite).kubeletRestarts},
		part{"containerd restarts", (*suite).containerdRestarts},
		part{"verbs", (*suite).verbs},
		part{"node reboots", (*suite).nodeReboots},
		part{"Pods deleted", (*suite).podsDeleted},
	)
}

func (s *suite) in(t *testing.T) *suite {
	own := *s
	own.t = t
	return &own
}

// each runs parts one after another; what comes next does not stand upon them.
func (s *suite) each(parts ...part) (ok bool) {
	ok = true
	for _, p := range parts {
		ok = s.t.Run(p.name, func(t *testing.T) { p.run(s.in(t)) }) && ok
	}
	return ok
}

func (s *suite) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) kubectl(args ...string) string {
	s.t.Helper()
	out, err := s.API.Kubectl(nil, args...)
	if err != nil {
		s.t.Fatalf("kubectl %v: %s", args, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *suite) apply(manifest string) {
	s.t.Helper()
	if out, err := s.API.KubectlInput(nil, manifest, "apply", "--server-side", "-f", "-"); err != nil {
		s.t.Fatalf("%s\n%s", out, manifest)
	}
}

// danmctl runs the program on a node, where it finds the agent's journal, and the cluster by a kubeconfig.
func (s *suite) danmctl(n *bed.Node, args ...string) (string, error) {
	return n.Exec(append([]string{filepath.Join(bed.Root(), "bin", "danmctl")}, args...)...)
}

// until waits; it ends the test with why not, and with what is there instead.
func (s *suite) until(what string, within time.Duration, ok func() (bool, string)) {
	s.t.Helper()
	begin, last := time.Now(), ""
	for {
		done, why := ok()
		if took := time.Since(begin).Round(100 * time.Millisecond); done {
			if took > 5*time.Second {
				what += " (before: " + last + ")"
			}
			if took > 0 {
				s.t.Logf("%s after %v", what, took)
			}
			return
		}
		last = why
		if time.Since(begin) > within {
			s.t.Fatalf("not %s within %v: %s\n%s", what, within, why, s.diagnostics())
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// diagnostics are what a person would ask for.
func (s *suite) diagnostics() string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-A", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp"},
		{"get", "networkbundles,nodeplans,ipblocks", "-o", "wide"},
		{"get", "tenantnetworks,clusternetworks", "-A"},
		{"logs", "-n", "danm-system", "-l", "app=danm-agent", "--tail=25", "--prefix"},
		{"logs", "-n", "danm-system", "-l", "app=danm-guard", "--tail=5", "--prefix"},
		{"logs", "-n", "danm-system", "-l", "app.kubernetes.io/name=danm-controller", "--tail=15", "--prefix"},
	} {
		out, _ := s.API.Kubectl(nil, args...)
		fmt.Fprintf(&b, "--- %s\n%s", strings.Join(args, " "), out)
	}
	return b.String()
}

// pods of a selector that have not ended, sorted by name.
func (s *suite) pods(namespace, selector string) []corev1.Pod {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(namespace).List(s.t.Context(), metav1.ListOptions{LabelSelector: selector})
	s.must(err)
	slices.SortFunc(list.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return list.Items
}

func isReady(p corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// allReady waits until a selector has so many Pods, all of them Ready, and returns them.
func (s *suite) allReady(namespace, selector string, count int, within time.Duration) (pods []corev1.Pod) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d Pods %s Ready", count, selector), within, func() (bool, string) {
		pods = s.pods(namespace, selector)
		waiting := slices.DeleteFunc(slices.Clone(pods), isReady)
		names := ""
		for _, p := range waiting {
			names += p.Name + " "
		}
		return len(pods) == count && len(waiting) == 0, fmt.Sprintf("there are %d, and these are not Ready: %s", len(pods), names)
	})
	return pods
}

// exec runs a program in a Pod.
func (s *suite) exec(p corev1.Pod, args ...string) (string, error) {
	out, err := s.API.Kubectl(nil, append([]string{"exec", "-n", p.Namespace, p.Name, "--"}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// get fetches a page. Not with busybox's wget, for the reason that test/cluster/kubernetes has.
func get(ip string, port int, path string) []string {
	return []string{"sh", "-c", fmt.Sprintf(`printf 'GET /%s HTTP/1.0\r\n\r\n' | busybox nc -w 3 %s %d`, path, ip, port)}
}

// deploy: an overlay as it is, then the bundle; from then on the runtime asks DANM for every Pod's interfaces.
func (s *suite) deploy() {
	s.must(s.API.InstallCRDs(nil))
	s.kubectl("apply", "--server-side", "--force-conflicts", "-k", filepath.Join(bed.Root(), "deploy", "overlays", "lightweight"))
	s.apply(bundle())
	s.until("rolled out", 2*time.Minute, func() (bool, string) {
		out := s.kubectl("get", "networkbundle", "edge", "-o", `jsonpath={.status.nodes} {.status.conditions[?(@.type=="Ready")]}`)
		return strings.HasPrefix(out, "2/2") && strings.Contains(out, `"RolledOut"`), out
	})
	s.danmReady(time.Minute)
	for _, n := range s.Nodes {
		if _, err := os.Stat(n.Path("/etc/cni/net.d/10-danm.conflist")); err != nil {
			s.t.Errorf("%s: the agent is Ready and the runtime does not know of DANM: %v", n.Name, err)
		}
	}
	s.t.Logf("\n%s\n%s", s.kubectl("get", "nodes,pods", "-A", "-o", "wide"), s.kubectl("get", "tenantnetworks,clusternetworks", "-A"))
}

func (s *suite) danmReady(within time.Duration) {
	s.t.Helper()
	for selector, count := range map[string]int{"app=danm-agent": len(s.Nodes), "app=danm-guard": len(s.Nodes), "app.kubernetes.io/name=danm-controller": 1} {
		s.allReady("danm-system", selector, count, within)
	}
}

// processes of a node whose command line begins so, by PID in the node.
func (s *suite) processes(n *bed.Node, argv ...string) (pids []string) {
	s.t.Helper()
	files, err := filepath.Glob(n.Path("/proc/[0-9]*/cmdline"))
	s.must(err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) || len(text) == 0 {
			continue
		}
		if strings.HasPrefix(string(text), strings.Join(argv, "\x00")+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}
