package blocks

import (
	"bytes"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/ipam"
	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/cli"
)

// operator is the kubeconfig of somebody with the ClusterRole danm-viewer, and with what a rule says on top.
func (s *site) operator(name string, rules ...string) cli.LiveOptions {
	s.t.Helper()
	s.must(client.IgnoreAlreadyExists(s.c.Create(s.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: name}})))
	s.kubectl("create", "clusterrolebinding", name+"-reads", "--clusterrole=danm-viewer", "--serviceaccount=acme:"+name)
	s.t.Cleanup(func() { _, _ = s.api.Kubectl(nil, "delete", "clusterrolebinding", name+"-reads") })
	for _, r := range rules {
		verbs, resource, _ := strings.Cut(r, " ")
		s.kubectl("create", "role", "-n", system, name, "--verb="+verbs, "--resource="+resource)
		s.kubectl("create", "rolebinding", "-n", system, name, "--role="+name, "--serviceaccount=acme:"+name)
		s.t.Cleanup(func() { _, _ = s.api.Kubectl(nil, "delete", "-n", system, "role,rolebinding", name) })
	}
	path, err := s.api.Kubeconfig(name, s.kubectl("create", "token", "-n", "acme", name))
	s.must(err)
	return cli.LiveOptions{Kubeconfig: path}
}

// TestClusterOperators: danm-viewer is enough to look, and not to accept or release; with the patch of leases that
// docs/operations.md names it is.
func TestClusterOperators(t *testing.T) {
	s := newSite(t)
	const node = "operated"
	s.renew(s.node(node), node)
	t.Cleanup(func() {
		_, _ = s.api.Kubectl(nil, "delete", "node", node)
		_, _ = s.api.Kubectl(nil, "delete", "lease", "-n", system, blocks.LeasePrefix+node, "--ignore-not-found")
	})
	s.kubectl("annotate", "lease", "-n", system, blocks.LeasePrefix+node, ipam.AnnotationSuspect+"=nonce")
	viewer, operator := s.operator("viewer"), s.operator("operator", "patch leases")
	run := func(f func(cli.IO) int) (int, string) {
		var out bytes.Buffer
		return f(cli.IO{Out: &out, Err: &out}), out.String()
	}
	annotation := func(name string) string {
		l := &coordinationv1.Lease{}
		s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: system, Name: blocks.LeasePrefix + node}, l))
		return l.Annotations[name]
	}
	show := func(l cli.LiveOptions) func(cli.IO) int {
		return func(io cli.IO) int {
			return cli.IPAMShow(t.Context(), cli.IPAMOptions{Live: l, Output: "text"}, io)
		}
	}
	check := func(l cli.LiveOptions, accept bool) func(cli.IO) int {
		return func(io cli.IO) int {
			return cli.IPAMCheck(t.Context(), cli.IPAMOptions{Live: l, Output: "text", Accept: accept}, io)
		}
	}
	off := func(l cli.LiveOptions) func(cli.IO) int {
		return func(io cli.IO) int {
			return cli.IPAMRelease(t.Context(), cli.IPAMReleaseOptions{Live: l, Node: node, PoweredOff: true, Force: true, Yes: true}, io)
		}
	}
	for _, c := range []struct {
		what string
		do   func(cli.IO) int
		code int
		says string
	}{
		{"a viewer shows", show(viewer), cli.OK, ""},
		{"a viewer checks", check(viewer, false), cli.OK, "1 node waits and claims nothing: " + node},
		{"a viewer accepts", check(viewer, true), cli.Failed, "forbidden"},
		{"a viewer releases", off(viewer), cli.Failed, "forbidden"},
	} {
		if code, out := run(c.do); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%s: exit %d\n%s", c.what, code, out)
		}
	}
	if annotation(ipam.AnnotationChecked)+annotation(ipam.AnnotationOff) != "" {
		t.Error("a viewer wrote")
	}
	if code, out := run(check(operator, true)); code != cli.OK || annotation(ipam.AnnotationChecked) != "nonce" {
		t.Errorf("an operator accepts: exit %d\n%s", code, out)
	}
	if code, out := run(off(operator)); code != cli.OK || annotation(ipam.AnnotationOff) != "id-"+node {
		t.Errorf("an operator releases: exit %d\n%s", code, out)
	}
}
