//go:build linux

// Package kubernetes tests on whole nodes: real kubelets and containerds, Pods that run, and DANM's own Pods from deploy/.
package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"danm.io/danm/test/cluster/bed"
)

func TestMain(m *testing.M) { bed.ClusterMain(m) }

// suite is a cluster with DANM's images on its nodes.
type suite struct {
	t *testing.T
	*bed.Cluster
}

// TestClusterKubernetes is one story on one cluster, since starting it costs the most.
func TestClusterKubernetes(t *testing.T) {
	s := &suite{t, bed.NewCluster(t, bed.Options{Nodes: 2, Labels: "role=edge", Images: bed.DANM()})}
	for _, part := range []struct {
		name string
		run  func(*suite)
	}{
		{"nodes", (*suite).nodes},
		{"pods", (*suite).pods},
		{"service", (*suite).service},
		{"credentials", (*suite).credentials},
		{"deploy", (*suite).deploy},
		{"rollout", (*suite).rollout},
		{"services of a node end", (*suite).outages},
		{"reboot", (*suite).reboot},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.run(&suite{t, s.Cluster}) }) {
			break // the next part stands upon it
		}
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

// until waits; it ends the test with what is there instead.
func (s *suite) until(what string, within time.Duration, ok func() bool) {
	s.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > within {
			s.t.Fatalf("not %s within %v:\n%s\n%s\n%s", what, within, s.kubectl("get", "pods", "-A", "-o", "wide"), s.kubectl("get", "events", "-A", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp"), s.danm())
		}
		time.Sleep(100 * time.Millisecond)
	}
	s.t.Logf("%s after %v", what, time.Since(begin).Round(10*time.Millisecond))
}

// danm is what DANM's objects and Pods say.
func (s *suite) danm() string {
	objects, _ := s.API.Kubectl(nil, "get", "networkbundles,nodeplans", "-o", "wide")
	logs := ""
	for _, l := range []string{"app=danm-agent", "app=danm-guard", "app.kubernetes.io/name=danm-controller"} {
		out, _ := s.API.Kubectl(nil, "logs", "-n", "danm-system", "-l", l, "--tail=15", "--prefix")
		logs += string(out)
	}
	return string(objects) + logs
}

// pod of the workload.
type pod struct{ name, node, ip string }

// running lists the Pods of a selector that are Ready.
func (s *suite) running(namespace, selector string) []pod {
	s.t.Helper()
	var out []pod
	text := s.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP} {.status.conditions[?(@.type=="Ready")].status} {.metadata.deletionTimestamp}{"\n"}{end}`)
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 4 && f[3] == "True" {
			out = append(out, pod{f[0], f[1], f[2]})
		}
	}
	return out
}

func on(pods []pod, node string) []pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p pod) bool { return p.node != node })
}

const workload = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: ` + bed.BusyboxName + `
        command: [sh, -c, "mkdir /www && hostname >/www/index.html && exec httpd -f -p 8080 -h /www"]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  selector: {app: web}
  clusterIP: 10.96.0.80
  ports: [{port: 80, targetPort: 8080}]
`

// nodes: two Nodes that are two machines.
func (s *suite) nodes() {
	for _, what := range []string{"machineID", "bootID"} {
		if ids := strings.Fields(s.kubectl("get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo."+what+"}")); len(ids) != 2 || ids[0] == ids[1] {
			s.t.Errorf("%s: %q", what, ids)
		}
	}
	s.t.Logf("\n%s", s.kubectl("get", "nodes", "-o", "wide", "-L", "role"))
}

// pods: they run on both nodes, reach each other, and can be entered.
func (s *suite) pods() {
	s.until("a default service account", 30*time.Second, func() bool {
		_, err := s.API.Kubectl(nil, "get", "serviceaccount", "default")
		return err == nil
	})
	s.apply(workload)
	s.until("four Pods Ready", 90*time.Second, func() bool { return len(s.running("default", "app=web")) == 4 })
	pods := s.running("default", "app=web")
	for _, n := range s.Nodes {
		here := on(pods, n.Name)
		if len(here) != 2 {
			s.t.Fatalf("%s has %d Pods: %v", n.Name, len(here), pods)
		}
		if out, err := s.exec(here[0], "ping", "-c", "1", "-W", "3", here[1].ip); err != nil {
			s.t.Errorf("%v does not reach %v: %s", here[0], here[1], out)
		}
		if out, err := s.exec(here[0], "ping", "-c", "1", "-W", "1", strings.TrimSuffix(here[0].ip, here[0].ip[strings.LastIndex(here[0].ip, "."):])+".250"); err == nil {
			s.t.Errorf("an absent Pod answers: %s", out)
		}
	}
	a, b := on(pods, "n1")[0], on(pods, "n2")[0]
	if out, err := s.exec(a, "ping", "-c", "1", "-W", "3", b.ip); err != nil {
		s.t.Errorf("%v does not reach %v on the other node: %s", a, b, out)
	}
}

func (s *suite) exec(p pod, args ...string) (string, error) {
	out, err := s.API.Kubectl(nil, append([]string{"exec", p.name, "--"}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// get fetches a page. Not with busybox's wget: it looks up a service's name, and that crashes in a static glibc without NSS.
func get(ip string, port int, path ...string) []string {
	return []string{"sh", "-c", fmt.Sprintf(`printf 'GET /%s HTTP/1.0\r\n\r\n' | busybox nc -w 3 %s %d`, strings.Join(path, "/"), ip, port)}
}

// service: its address answers to nodes and Pods, and behind it are the Pods of both nodes.
func (s *suite) service() {
	pods := s.running("default", "app=web")
	askers := map[string]func() (string, error){
		"node n1": func() (string, error) {
			return s.Node("n1").Exec(get("10.96.0.80", 80)...)
		},
		"node n2": func() (string, error) {
			return s.Node("n2").Exec(get("10.96.0.80", 80)...)
		},
		"a Pod": func() (string, error) { return s.exec(pods[0], get("10.96.0.80", 80)...) },
		"the port": func() (string, error) {
			return s.Node("n1").Exec(get("10.96.0.80", 81)...)
		},
	}
	for name, ask := range askers {
		seen := map[string]bool{}
		for deadline := time.Now().Add(30 * time.Second); len(seen) < len(pods) && time.Now().Before(deadline); {
			out, err := ask()
			if name == "the port" {
				if err == nil {
					s.t.Errorf("a port that the Service does not have answers: %s", out)
				}
				break
			}
			if err == nil {
				lines := strings.Split(strings.TrimSpace(out), "\n")
				seen[lines[len(lines)-1]] = true
			}
		}
		for _, p := range pods {
			if name != "the port" && !seen[p.name] {
				s.t.Errorf("%s did not reach %s through the Service: %v", name, p.name, seen)
			}
		}
	}
}

// credentials: a kubelet's token writes its own Node and no other's.
func (s *suite) credentials() {
	client, err := dynamic.NewForConfig(s.API.Config(bed.NodeToken(1)))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range []struct {
		node string
		sub  []string
		may  bool
	}{
		{"n1", nil, true},
		{"n2", nil, false},
		{"n1", []string{"status"}, true},
		{"n2", []string{"status"}, false},
	} {
		// A bare PATCH: kubectl would read first, and the Node authorizer lets a node read its own only.
		_, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "nodes"}).Patch(s.t.Context(), r.node, types.MergePatchType,
			[]byte(`{"metadata":{"annotations":{"test":"x"}}}`), metav1.PatchOptions{}, r.sub...)
		if r.may && err != nil {
			s.t.Errorf("n1 writes %s %v: %s", r.node, r.sub, err)
		}
		if !r.may && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "is not allowed to modify node")) {
			s.t.Errorf("n1 writes %s %v: %v", r.node, r.sub, err)
		}
	}
}
