package endpoints

import (
	"crypto/sha256"
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// Pod is what the API says of a Pod.
type Pod struct {
	UID, Namespace, Name string
	Labels               map[string]string
}

// space is the namespace (RFC 9562, section 5.5) of the names of DanmEps.
var space = uuid.MustParse("7d0c1f8e-35a4-5b0b-9d5f-0f3f6d0e8a51")

// Objects are the DanmEps of a sandbox, in the order of its interfaces. Names follow from sandbox and interface, so that what is lost
// comes back under the name that it had. The labels are the Pod's, as DANM's were, and ours to find them by.
func Objects(node string, a model.Attached, p Pod) []danmv1.DanmEp {
	var out []danmv1.DanmEp
	for _, at := range a.Interfaces {
		id := uuid.NewSHA1(space, []byte(a.Sandbox+"/"+at.IfName)).String()
		e := danmv1.DanmEp{
			TypeMeta: metav1.TypeMeta{APIVersion: danmv1.APIVersion, Kind: danmv1.KindDanmEp},
			ObjectMeta: metav1.ObjectMeta{
				Name: id, Namespace: p.Namespace, Labels: map[string]string{},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: types.UID(p.UID)}},
			},
			Spec: danmv1.DanmEpSpec{
				NetworkName: networkName(at, p.Namespace), NetworkType: string(at.Type), ApiType: string(at.NetworkKind), EndpointID: id,
				Host: node, Pod: p.Name, PodUID: p.UID, CID: a.Sandbox, Netns: a.Netns,
				Iface: danmv1.DanmEpIface{Name: at.IfName, MacAddress: at.MAC, Mtu: at.MTU, DeviceID: at.DeviceID},
			},
		}
		for _, prefix := range at.Addresses {
			if prefix.Addr().Is4() {
				e.Spec.Iface.Address = prefix.String()
			} else {
				e.Spec.Iface.AddressIPv6 = prefix.String()
			}
		}
		e.Spec.Iface.Proutes, e.Spec.Iface.Proutes6 = policyRoutes(at.PolicyRoutes, netip.Addr.Is4), policyRoutes(at.PolicyRoutes, netip.Addr.Is6)
		for k, v := range p.Labels {
			e.Labels[k] = v
		}
		for k, v := range map[string]string{
			danmv1.LabelNode: node, danmv1.LabelPodUID: p.UID, danmv1.LabelSandbox: a.Sandbox,
			danmv1.LabelNetwork: e.Spec.NetworkName, danmv1.LabelAPIType: e.Spec.ApiType,
		} {
			e.Labels[k] = v1alpha1.LabelValue(strings.ReplaceAll(v, "/", "."))
		}
		out = append(out, e)
	}
	return out
}

// networkName is the network's own name, for one of another namespace with that in front.
func networkName(at model.Attachment, namespace string) string {
	return strings.TrimPrefix(at.Network, namespace+"/")
}

func policyRoutes(routes []model.PodRoute, of func(netip.Addr) bool) map[string]string {
	var out map[string]string
	for _, r := range routes {
		if of(r.To.Addr()) {
			if out == nil {
				out = map[string]string{}
			}
			out[r.To.String()] = r.Via.String()
		}
	}
	return out
}

// digest is of everything in a DanmEp that is ours to say.
type digest [sha256.Size]byte

func digestOf(e danmv1.DanmEp) digest {
	b, err := json.Marshal(struct {
		Labels map[string]string
		Owners []metav1.OwnerReference
		Spec   danmv1.DanmEpSpec
	}{e.Labels, e.OwnerReferences, e.Spec})
	if err != nil {
		panic(err) // strings and maps of them
	}
	return sha256.Sum256(b)
}
