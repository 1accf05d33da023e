//go:build linux

package nodes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/test/cluster/bed"
)

// status is one element of a network-status, as its readers have it.
type status struct {
	Name      string
	Interface string
	IPs       []string `json:"ips"`
	MAC       string
	Default   bool
}

// A Pod of Multus, on networks that a bundle renders as definitions and on one that was made by hand: it gets them all, and its
// network-status is written by the node's own credentials, under the policy that narrows them.
func TestClusterPodsOfMultus(t *testing.T) {
	s := newSite(t)
	crd, err := os.ReadFile(filepath.Join(bed.Root(), "test/cluster/testdata/crd/nad.yaml"))
	s.must(err)
	s.apply(string(crd))
	s.addresses = ", render: nad, ipv4: {cidr: 10.50.0.0/24, gateway: 10.50.0.254}, ipv6: {cidr: \"fd50::/64\"}"
	s.commit(1400, "")
	s.apply("apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: edge}\nspec: {interval: 5s, configMaps: {namespace: danm-system, selector: {bundle: edge}}}\n")
	s.until("rolled out", time.Minute, s.rolledOut(""))
	if got := s.kubectl("get", "network-attachment-definition", "voice", "-n", "acme", "-o", "jsonpath={.spec.config}"); !strings.Contains(got, `"tenantNetwork":"voice"`) {
		t.Fatal(got)
	}
	s.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
	for namespace, subnet := range map[string]string{"acme": "10.60.0.0/24", "other": "10.61.0.0/24"} {
		s.apply("apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: hand, namespace: " + namespace + "}\nspec:\n" +
			`  config: '{"cniVersion":"1.0.0","type":"macvlan","master":"eth9","ipam":{"type":"host-local","subnet":"` + subnet + `"}}'` + "\n")
	}
	s.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: acme}\n") // Pods have one
	uid := s.pod("web", "n1", map[string]string{
		"v1.multus-cni.io/default-network": "acme/voice",
		"k8s.v1.cni.cncf.io/networks":      `[{"name":"voice","interface":"x0","ips":["10.50.0.77"],"mac":"02:00:00:00:00:77"},{"name":"hand"}]`,
	})
	p, err := s.sandbox("n1")
	s.must(err)
	var out []byte
	s.until("attached", time.Minute, func() bool { // the api layer comes to the node after the bundle's
		out, err = p.kubelet("ADD", "web", uid)
		return err == nil
	})
	var res struct {
		Interfaces []struct{ Name, Mac string }
		IPs        []struct {
			Address   string
			Interface int
		}
	}
	s.must(json.Unmarshal(out, &res))
	var all []status
	for i, in := range res.Interfaces {
		one := status{Name: []string{"acme/voice", "acme/voice", "acme/hand"}[i], Interface: in.Name, MAC: in.Mac, Default: i == 0}
		for _, ip := range res.IPs {
			if ip.Interface == i {
				address, _, _ := strings.Cut(ip.Address, "/")
				one.IPs = append(one.IPs, address)
			}
		}
		all = append(all, one)
	}
	names := fmt.Sprint(all[0].Interface, " ", all[1].Interface, " ", all[2].Interface)
	if names != "eth0 x0 net2" || fmt.Sprint(all[1].IPs) != "[10.50.0.77]" || all[1].MAC != "02:00:00:00:00:77" || len(all[0].IPs) != 2 || len(all[2].IPs) != 1 || !strings.HasPrefix(all[2].IPs[0], "10.60.0.") {
		t.Errorf("%s", out)
	}
	var told []status
	var text string
	s.until("told to the Pod", 30*time.Second, func() bool { // an answer does not wait for it for long
		text = s.kubectl("get", "pod", "web", "-n", "acme", "-o", `jsonpath={.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}`)
		return text != ""
	})
	s.must(json.Unmarshal([]byte(text), &told))
	if fmt.Sprint(told) != fmt.Sprint(all) {
		t.Errorf("network-status\n%s\nof\n%s", text, out)
	}
	s.endpointsOf("web", uid, all)
	// What the agent tells a Pod that is another one by: the API server names the field.
	other, err := s.api.Kubectl(s.fork(s.cp), "patch", "pod", "web", "-n", "acme", "--subresource=status", "--type=merge", "-p", `{"metadata":{"uid":"another"}}`, "-v", "8")
	if err == nil || !bytes.Contains(other, []byte(`"reason":"Invalid"`)) || !bytes.Contains(other, []byte(`"field":"metadata.uid"`)) {
		t.Errorf("%v %s", err, other)
	}
	// Another namespace's is out of reach, and says which ones are not; the one above is the control.
	uid = s.pod("thief", "n1", map[string]string{"v1.multus-cni.io/default-network": "acme/voice", "k8s.v1.cni.cncf.io/networks": "other/hand"})
	q, err := s.sandbox("n1")
	s.must(err)
	if out, err := q.kubelet("ADD", "thief", uid); err == nil || !bytes.Contains(out, []byte("PodNetworkUnknown")) || !bytes.Contains(out, []byte("acme/hand")) {
		t.Errorf("%v %s", err, out)
	}
	if _, err := p.kubelet("DEL", "web", ""); err != nil {
		t.Error(err)
	}
	s.until("no DanmEp", 30*time.Second, func() bool { return len(s.endpoints()) == 0 })
}

// pod makes the object that a scheduler has put on a node; its UID is the API's.
func (s *site) pod(name, node string, annotations map[string]string) (uid string) {
	s.t.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name, "namespace": "acme", "annotations": annotations},
		"spec": map[string]any{"nodeName": node, "automountServiceAccountToken": false, "containers": []any{map[string]any{"name": "c", "image": "none"}}},
	})
	s.must(err)
	s.apply(string(text))
	return s.kubectl("get", "pod", name, "-n", "acme", "-o", "jsonpath={.metadata.uid}")
}

// kubelet calls the binary as a runtime does for a Pod, with a configuration that says nothing of interfaces.
func (p *sandbox) kubelet(command, pod, uid string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(p.s.bin, "danm"))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.ns.Path, "CNI_IFNAME=eth0", "CNI_PATH=" + p.s.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=acme;K8S_POD_NAME=" + pod + ";K8S_POD_UID=" + uid}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"danm","type":"danm","socket":%q}`, filepath.Join(p.s.dir, p.node+".sock")))
	return cmd.Output()
}
