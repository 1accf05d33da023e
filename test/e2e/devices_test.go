//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const vfResource = "example.org/vf"

// functions is a device plugin whose devices are ids alone.
type functions struct {
	deviceplugin.UnimplementedDevicePluginServer
	ids []string
}

func (f *functions) GetDevicePluginOptions(context.Context, *deviceplugin.Empty) (*deviceplugin.DevicePluginOptions, error) {
	return &deviceplugin.DevicePluginOptions{}, nil
}

func (f *functions) ListAndWatch(_ *deviceplugin.Empty, to grpc.ServerStreamingServer[deviceplugin.ListAndWatchResponse]) error {
	all := &deviceplugin.ListAndWatchResponse{}
	for _, id := range f.ids {
		all.Devices = append(all.Devices, &deviceplugin.Device{ID: id, Health: deviceplugin.Healthy})
	}
	if err := to.Send(all); err != nil {
		return err
	}
	<-to.Context().Done()
	return nil
}

func (f *functions) Allocate(_ context.Context, r *deviceplugin.AllocateRequest) (*deviceplugin.AllocateResponse, error) {
	out := &deviceplugin.AllocateResponse{}
	for range r.GetContainerRequests() {
		out.ContainerResponses = append(out.ContainerResponses, &deviceplugin.ContainerAllocateResponse{})
	}
	return out, nil
}

// offer registers a device plugin at a node's kubelet, and leaves what is known of its devices where plugins look for it.
func (s *suite) offer(n *bed.Node, f *functions) {
	s.t.Helper()
	dir := n.Path("/var/lib/kubelet/device-plugins")
	l, err := net.Listen("unix", filepath.Join(dir, "vf.sock"))
	s.must(err)
	server := grpc.NewServer()
	deviceplugin.RegisterDevicePluginServer(server, f)
	go func() { _ = server.Serve(l) }()
	s.t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithAuthority("localhost"))
	s.must(err)
	defer conn.Close()
	_, err = deviceplugin.NewRegistrationClient(conn).Register(s.t.Context(), &deviceplugin.RegisterRequest{Version: deviceplugin.Version, Endpoint: "vf.sock", ResourceName: vfResource})
	s.must(err)
	known := n.Path("/run/k8s.cni.cncf.io/devinfo/dp")
	s.must(os.MkdirAll(known, 0o755))
	for _, id := range f.ids {
		name := strings.ReplaceAll(vfResource, "/", "-") + "-" + id + "-device.json"
		s.must(os.WriteFile(filepath.Join(known, name), []byte(fmt.Sprintf(`{"type":"pci","version":"1.1.0","pci":{"pci-address":%q}}`, id)), 0o644))
	}
}

// vfPod asks for interfaces on the definition vf, and for devices.
func vfPod(name, networks string, devices int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: acme, labels: {app: %[1]s}, annotations: {k8s.v1.cni.cncf.io/networks: %q}}
spec: {nodeName: n1, terminationGracePeriodSeconds: 1, containers: [{name: c, image: %s, resources: {limits: {%s: "%d"}}}]}
`, name, networks, bed.BusyboxName, vfResource, devices)
}

// devices: the kubelet gives devices to Pods, and each interface of a definition with that resource has one of its Pod's: never one
// twice, none without, and what is known of it stands in the Pod's network-status.
func (s *suite) devices() {
	n := s.Node("n1")
	s.offer(n, &functions{ids: []string{"0000:03:02.0", "0000:03:02.1", "0000:03:02.2"}})
	s.apply(`apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: vf, namespace: acme, annotations: {k8s.v1.cni.cncf.io/resourceName: ` + vfResource + `}}
spec:
  config: '{"cniVersion": "1.0.0", "name": "vf", "plugins": [{"type": "bridge", "bridge": "br-vf", "capabilities": {"CNIDeviceInfoFile": true}, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.71.0.0/24"}]]}}]}'
`)
	s.until("the kubelet offers the devices", time.Minute, func() (bool, string) {
		out := s.kubectl("get", "node", "n1", "-o", `jsonpath={.status.allocatable['example\.org/vf']}`)
		return out == "3", out
	})
	s.apply(vfPod("vf-two", "vf,vf", 2) + "---\n" + vfPod("vf-one", "vf", 1))
	two, one := s.allReady("acme", "app=vf-two", 1, 2*time.Minute)[0], s.allReady("acme", "app=vf-one", 1, time.Minute)[0]
	var all []string
	for _, p := range []corev1.Pod{two, one} {
		has := s.devicesOf(p)
		if told := s.told(p, len(has)); !slices.Equal(told, has) {
			s.t.Errorf("%s: network-status tells of %q, DanmEps of %q", p.Name, told, has)
		}
		if p.Name == "vf-two" && !slices.IsSorted(has) {
			s.t.Errorf("net1 and net2 have %q", has)
		}
		all = append(all, has...)
	}
	if slices.Sort(all); !slices.Equal(all, []string{"0000:03:02.0", "0000:03:02.1", "0000:03:02.2"}) {
		s.t.Errorf("the Pods have %q", all)
	}
	s.kubectl("delete", "pods", "vf-two", "vf-one", "-n", "acme", "--wait=false")
	s.until("no device's information left", time.Minute, func() (bool, string) {
		left, err := filepath.Glob(n.Path("/run/k8s.cni.cncf.io/devinfo/cni/*"))
		s.must(err)
		return len(left) == 0 && len(s.pods("acme", "app in (vf-one, vf-two)")) == 0, fmt.Sprint(left)
	})
	s.apply(vfPod("vf-less", "vf,vf", 1))
	s.until("an event with the lines to add", time.Minute, func() (bool, string) {
		said := s.events(s.pods("acme", "app=vf-less")[0])
		return strings.Contains(said, "PodDeviceMissing") && strings.Contains(said, "1 of 2") && strings.Contains(said, "limits:\n    example.org/vf: \"2\""), said
	})
	s.kubectl("delete", "pod", "vf-less", "-n", "acme")
	s.kubectl("delete", "network-attachment-definition", "vf", "-n", "acme")
}

// devicesOf are the devices of a Pod's interfaces, by DanmEps, in the order of the interfaces.
func (s *suite) devicesOf(p corev1.Pod) (out []string) {
	s.t.Helper()
	client, err := dynamic.NewForConfig(s.API.Config(bed.AdminToken))
	s.must(err)
	byName := map[string]string{}
	s.until("DanmEps of "+p.Name, 30*time.Second, func() (bool, string) {
		list, err := client.Resource(schema.GroupVersionResource{Group: "danm.io", Version: "v1", Resource: "danmeps"}).Namespace(p.Namespace).List(s.t.Context(), metav1.ListOptions{LabelSelector: danmv1.LabelPodUID + "=" + string(p.UID)})
		s.must(err)
		clear(byName)
		for i := range list.Items {
			var e danmv1.DanmEp
			s.must(runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &e))
			byName[e.Spec.Iface.Name] = e.Spec.Iface.DeviceID
		}
		return byName["net1"] != "" && (p.Name != "vf-two" || byName["net2"] != ""), fmt.Sprint(byName)
	})
	for _, name := range []string{"net1", "net2"} {
		if id := byName[name]; id != "" {
			out = append(out, id)
		}
	}
	return out
}

// statusDevices are those in a Pod's network-status.
func statusDevices(p corev1.Pod) (out []string) {
	var all []struct {
		Info struct {
			PCI struct {
				Address string `json:"pci-address"`
			} `json:"pci"`
		} `json:"device-info"`
	}
	_ = json.Unmarshal([]byte(p.Annotations["k8s.v1.cni.cncf.io/network-status"]), &all)
	for _, one := range all {
		if one.Info.PCI.Address != "" {
			out = append(out, one.Info.PCI.Address)
		}
	}
	return out
}

// told are the devices in a Pod's network-status, which comes after its interfaces where the API server takes long: it is waited for.
func (s *suite) told(p corev1.Pod, count int) (devices []string) {
	s.t.Helper()
	s.until(fmt.Sprintf("network-status of %s with %d devices", p.Name, count), 30*time.Second, func() (bool, string) {
		now, err := s.client.CoreV1().Pods(p.Namespace).Get(s.t.Context(), p.Name, metav1.GetOptions{})
		s.must(err)
		devices = statusDevices(*now)
		return len(devices) == count, fmt.Sprint(devices)
	})
	return devices
}

// staticPod: a Pod of the kubelet's own, whose object in the API is a mirror under another UID, has its interfaces like any other.
func (s *suite) staticPod() {
	n := s.Node("n2")
	file := n.Path("/etc/kubernetes/manifests/fixed.yaml")
	s.must(os.MkdirAll(filepath.Dir(file), 0o755))
	s.must(os.WriteFile(file, []byte(`apiVersion: v1
kind: Pod
metadata: {name: fixed, namespace: acme, labels: {app: fixed}, annotations: {k8s.v1.cni.cncf.io/networks: wire}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: `+bed.BusyboxName+`}]}
`), 0o644))
	p := s.allReady("acme", "app=fixed", 1, 2*time.Minute)[0]
	if p.Annotations["kubernetes.io/config.mirror"] == "" || p.Annotations["kubernetes.io/config.mirror"] == string(p.UID) {
		s.t.Errorf("no mirror of a static Pod: %v", p.Annotations)
	}
	if out, err := s.exec(p, "ip", "-o", "addr", "show", "dev", "net1"); err != nil || !strings.Contains(out, " 10.61.0.") || !strings.Contains(out, " fd00:61::") {
		s.t.Errorf("it has %s %v", out, err)
	}
	s.until("its network-status", 30*time.Second, func() (bool, string) {
		out := s.pods("acme", "app=fixed")[0].Annotations["k8s.v1.cni.cncf.io/network-status"]
		return strings.Contains(out, "acme/wire"), out
	})
	s.until("its DanmEps", 30*time.Second, func() (bool, string) {
		out := s.kubectl("get", "danmeps", "-n", "acme", "-l", danmv1.LabelPodUID+"="+string(p.UID), "-o", "jsonpath={.items[*].spec.Interface.Name}")
		return len(strings.Fields(out)) == 2, out
	})
	s.must(os.Remove(file))
	s.until("it gone", time.Minute, func() (bool, string) { return len(s.pods("acme", "app=fixed")) == 0, "it is there" })
}
