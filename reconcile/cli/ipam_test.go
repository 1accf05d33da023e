package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/ipam"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

func ipamNetwork() model.Network {
	return model.Network{Kind: model.DanmNet, Namespace: "acme", Name: "voice", NetworkID: "voice", Type: model.MACVLAN, SpaceDomain: "edge", VLAN: 310,
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/26")}}
}

// addressNode is a state directory in which an agent gave out addresses; its agent still has the journal open.
func addressNode(t *testing.T, data func(ifName string, a netip.Addr) []byte) (dir string, addr netip.Addr) {
	t.Helper()
	dir = t.TempDir()
	n := ipamNetwork()
	if _, err := state.Open(dir).Write(model.NodeState{Home: model.LocalHome, Node: "a", Slots: 1, Bundle: "b", Revision: "dir@sha256:" + strings.Repeat("0", 64), Networks: []model.Network{n}, Digest: model.NodePlan{}.Digest()}); err != nil {
		t.Fatal(err)
	}
	s, err := ipam.Open(filepath.Join(dir, "ipam"), ipam.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, pod := range []string{"p1", "p2"} {
		_, err := s.Acquire(t.Context(), ipam.Intent{Sandbox: "sandbox-" + pod, PodUID: "u-" + pod, Namespace: "acme", Pod: pod, Slots: 1,
			Wants: []ipam.Want{{IfName: "eth1", Network: n, IP: model.AddressRequest{Mode: model.AddressDynamic}}},
			Record: func(g []ipam.Grant) ([]byte, error) {
				if pod == "p1" {
					addr = g[0].Addresses[0].Addr()
				}
				if data == nil {
					return nil, nil
				}
				return data("eth1", g[0].Addresses[0].Addr()), nil
			}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Release(t.Context(), "sandbox-p2"); err != nil {
		t.Fatal(err)
	}
	return dir, addr
}

func TestIPAMShowNode(t *testing.T) {
	dir, addr := addressNode(t, nil)
	var out, errs bytes.Buffer
	if code := IPAMShow(t.Context(), IPAMOptions{StateDir: dir, Output: "text"}, IO{Out: &out, Err: &errs}); code != OK || errs.Len() > 0 {
		t.Fatalf("exit %d %s", code, errs.String())
	}
	for _, want := range []string{"edge vlan 310 10.0.0.0/26 (acme/voice): 1 held, 60 free, 1 cooling", addr.String(), "held", "acme/p1 eth1", "node a", "sandbox sandbox-p1", "cooling", "since 20", "network base address"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "-10.0.0.") {
		t.Errorf("free addresses are shown:\n%s", out.String())
	}
	out.Reset()
	if code := IPAMShow(t.Context(), IPAMOptions{StateDir: dir, Output: "json", All: true, Network: "acme/voice"}, IO{Out: &out, Err: &errs}); code != OK {
		t.Fatalf("exit %d %s", code, errs.String())
	}
	var got struct {
		Spaces []struct {
			Counts map[string]uint64
			Ranges []struct{ First, Last, State, Pod string }
		}
	}
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got.Spaces) != 1 || got.Spaces[0].Counts["free"] != 60 {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, c := range []struct {
		o    IPAMOptions
		want string
	}{
		{IPAMOptions{StateDir: dir, Output: "text", Network: "acme/nothing"}, "no network"},
		{IPAMOptions{StateDir: t.TempDir(), Output: "text"}, "no address journal"},
		{IPAMOptions{StateDir: dir, Output: "yaml"}, "unknown output"},
	} {
		errs.Reset()
		if code := IPAMShow(t.Context(), c.o, IO{Out: &out, Err: &errs}); code != Failed || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%+v: exit %d %s", c.o, code, errs.String())
		}
	}
	if names := NetworkNames(t.Context(), IPAMOptions{StateDir: dir}); !slices.Equal(names, []string{"acme/voice"}) {
		t.Error(names)
	}
}

// TestAttachmentIsTheAgents: the fields that are read here are those that the agent writes.
func TestAttachmentIsTheAgents(t *testing.T) {
	b, err := os.ReadFile("../../cni/server/record.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"version", "netns", "netnsID", "interfaces"} {
		if !regexp.MustCompile("`json:\"" + tag + "\"`").Match(b) {
			t.Errorf("the agent's record has no %s", tag)
		}
	}
	if want := fmt.Sprintf("recordVersion = %d\n", attachmentVersion); !bytes.Contains(b, []byte(want)) {
		t.Errorf("the agent's record is not of version %d", attachmentVersion)
	}
}

// addressed is a cluster with one network, a node with a block, and a node that waits since etcd was restored.
func addressed(t *testing.T) *objects {
	t.Helper()
	n := ipamNetwork()
	name, text := segment.Encode(model.Segment{Networks: []model.Network{n}})
	s := v1alpha1.IPSpace{Domain: "edge", ID: 310, CIDR: "10.0.0.0/26"}
	block := func(role, owner, cidr string) v1alpha1.IPBlock {
		o := v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: role, Space: s, CIDR: cidr, Owner: owner, Identity: "m/n"}}
		o.Name, o.UID, o.ResourceVersion = s.BlockName(netip.MustParsePrefix(cidr)), types.UID("uid-"+cidr), "7"
		o.Labels = map[string]string{v1alpha1.LabelSpace: s.Hash(), v1alpha1.LabelOwner: owner}
		return o
	}
	root := block(v1alpha1.RoleRoot, "", "10.0.0.0/26")
	root.Name, root.Spec.BlockBits = s.RootName(), 28
	orphan := block(v1alpha1.RoleBlock, "", "10.0.0.16/28")
	orphan.Spec.Held = []v1alpha1.IPHolder{{Address: "10.0.0.18", Namespace: "acme", Pod: "old", UID: "u-old"}, {Address: "10.0.0.19"}}
	ep := danmv1.DanmEp{Spec: danmv1.DanmEpSpec{NetworkName: "voice", Pod: "p1", PodUID: "u", Host: "a", Iface: danmv1.DanmEpIface{Name: "eth1", Address: "10.0.0.5/26"}}}
	ep.Namespace, ep.Name = "acme", "ep1"
	identity, renewed := "m/n", metav1.NewMicroTime(time.Now().Add(-time.Hour))
	lease := coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "danm-node-a", Namespace: "danm-system", UID: "l", ResourceVersion: "9", Annotations: map[string]string{ipam.AnnotationSuspect: "nonce"}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &identity, RenewTime: &renewed}}
	plan := v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Segments: []string{name}}}}}
	return &objects{
		blocks: []v1alpha1.IPBlock{root, block(v1alpha1.RoleBlock, "a", "10.0.0.0/28"), orphan}, endpoints: []danmv1.DanmEp{ep}, leases: []coordinationv1.Lease{lease},
		plans: []v1alpha1.NodePlan{plan}, segments: []v1alpha1.PlanSegment{{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: string(text)}},
		nodes:  []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}}}},
		writes: &[]string{},
	}
}

func command(f func(context.Context, IO) int, t *testing.T) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := f(t.Context(), IO{Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

func TestIPAMShowCluster(t *testing.T) {
	l := addressed(t).serve(t)
	code, out, errs := command(func(ctx context.Context, io IO) int {
		return IPAMShow(ctx, IPAMOptions{Live: l, Output: "text", Network: "acme/voice"}, io)
	}, t)
	for _, want := range []string{"10.0.0.5", "acme/p1 eth1", "acme/old", "from before DANM's blocks", "in a block of the controller", "node a"} {
		if code != OK || !strings.Contains(out, want) {
			t.Errorf("exit %d, no %q in\n%s%s", code, want, out, errs)
		}
	}
	if names := NetworkNames(t.Context(), IPAMOptions{Live: l}); !slices.Equal(names, []string{"acme/voice"}) {
		t.Error(names)
	}
}

// What an object says tells a terminal nothing.
func TestTextIsPrintable(t *testing.T) {
	var b bytes.Buffer
	if err := (IO{Out: &b}).text("a \x1b[2Jb\u202e\r\xff ü\n+ c\td\n"); err != nil {
		t.Fatal(err)
	}
	if want := "a \\x1b[2Jb\\u202e\\r\\xff ü\n+ c\\td\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	o := addressed(t)
	o.blocks[1].Spec.Ceded = append(o.blocks[1].Spec.Ceded, v1alpha1.IPCession{Address: "10.0.0.7", UID: "gone", Node: "b\x1b[1A"})
	code, out, _ := command(func(ctx context.Context, io IO) int {
		return IPAMCheck(ctx, IPAMOptions{Live: o.serve(t), Output: "text"}, io)
	}, t)
	if code != Differences || strings.ContainsRune(out, 0x1b) {
		t.Errorf("exit %d %q", code, out)
	}
}

func TestIPAMRelease(t *testing.T) {
	held, kept := "10.0.0.18", "10.0.0.33"
	for _, c := range []struct {
		name   string
		o      IPAMReleaseOptions
		wrong  func(*objects)
		code   int
		want   string // in what is printed
		writes []string
	}{
		{"a node", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true}, nil, OK, "1 block and 0 single addresses of node a", []string{`PATCH danm-node-a {"metadata":{"annotations":{"danm.io/powered-off":"m/n"},"resourceVersion":"9","uid":"l"}}`}},
		{"only said", IPAMReleaseOptions{Node: "a", PoweredOff: true, DryRun: true}, nil, OK, "would annotate", nil},
		{"agreed to", IPAMReleaseOptions{Node: "a", PoweredOff: true, Stdin: strings.NewReader("yes\n")}, nil, OK, "Go on?", []string{"PATCH danm-node-a"}},
		{"not agreed to", IPAMReleaseOptions{Node: "a", PoweredOff: true, Stdin: strings.NewReader("\n")}, nil, Failed, "nothing was done", nil},
		{"nobody there", IPAMReleaseOptions{Node: "a", PoweredOff: true}, nil, Failed, "--yes", nil},
		{"ready", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true}, func(o *objects) { o.nodes[0].Status.Conditions[0].Status = corev1.ConditionTrue }, Failed, "is Ready", nil},
		{"ready, forced", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true, Force: true}, func(o *objects) { o.nodes[0].Status.Conditions[0].Status = corev1.ConditionTrue }, OK, "done", []string{"PATCH danm-node-a"}},
		{"just renewed", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true}, func(o *objects) {
			now := metav1.NewMicroTime(time.Now().Add(-19 * time.Minute))
			o.leases[0].Spec.RenewTime = &now
		}, Failed, "sign of life", nil},
		{"its clock is behind", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true}, func(o *objects) {
			at := metav1.NewTime(time.Now().Add(-time.Minute))
			o.leases[0].ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "danm-node", Time: &at}}
		}, Failed, "sign of life", nil},
		{"danmctl is no sign of life", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true}, func(o *objects) {
			at := metav1.NewTime(time.Now().Add(-time.Minute))
			o.leases[0].ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "danmctl", Time: &at}}
		}, OK, "done", []string{"PATCH danm-node-a"}},
		{"Node gone", IPAMReleaseOptions{Node: "a", PoweredOff: true, Yes: true}, func(o *objects) { o.nodes = nil }, OK, "done", []string{"PATCH danm-node-a"}},
		{"no such node", IPAMReleaseOptions{Node: "z", PoweredOff: true, Yes: true, Force: true}, nil, Failed, "no Lease", nil},
		{"no word for it", IPAMReleaseOptions{Node: "a", Yes: true}, nil, Failed, "belong together", nil},
		{"both", IPAMReleaseOptions{Node: "a", PoweredOff: true, Address: held, Network: "acme/voice"}, nil, Failed, "say what to release", nil},
		{"imported", IPAMReleaseOptions{Address: held, Network: "acme/voice", Yes: true}, nil, OK, "imported as Pod acme/old's", []string{`"spec":{"held":[{"address":"10.0.0.19"}]}`}},
		{"its Pod is there", IPAMReleaseOptions{Address: held, Network: "acme/voice", Yes: true, Force: true}, func(o *objects) {
			o.pods = []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "old", UID: "u-old"}}}
		}, Failed, "Pod acme/old is there", nil},
		{"another of that name", IPAMReleaseOptions{Address: held, Network: "acme/voice", Yes: true}, func(o *objects) {
			o.pods = []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "old", UID: "u-new"}}}
		}, OK, "done", []string{"PATCH"}},
		{"nothing says whose", IPAMReleaseOptions{Address: "10.0.0.19", Network: "acme/voice", Yes: true}, nil, Failed, "nothing says", nil},
		{"nothing says whose, forced", IPAMReleaseOptions{Address: "10.0.0.19", Network: "acme/voice", Yes: true, Force: true}, nil, OK, "done", []string{`"held":[{"address":"10.0.0.18"`}},
		{"not held", IPAMReleaseOptions{Address: "10.0.0.20", Network: "acme/voice", Yes: true, Force: true}, nil, Failed, "nothing keeps it", nil},
		{"a node's", IPAMReleaseOptions{Address: "10.0.0.5", Network: "acme/voice", Yes: true, Force: true}, nil, Failed, "block of node a", nil},
		{"free", IPAMReleaseOptions{Address: "10.0.0.60", Network: "acme/voice", Yes: true, Force: true}, nil, Failed, "it is free", nil},
		{"no network", IPAMReleaseOptions{Address: held, Network: "acme/other", Yes: true}, nil, Failed, "no network", nil},
		{"no address", IPAMReleaseOptions{Address: "x", Network: "acme/voice", Yes: true}, nil, Failed, "no address", nil},
		{"parked", IPAMReleaseOptions{Address: kept, Network: "acme/voice", Yes: true}, func(o *objects) { o.park(kept, "") }, OK, "kept for Pod 0 of StatefulSet acme/web", []string{`"finalizers":[]`, "DELETE"}},
		{"parked, Pod there", IPAMReleaseOptions{Address: kept, Network: "acme/voice", Yes: true, Force: true}, func(o *objects) {
			o.park(kept, "")
			o.pods = []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "web-0", UID: "x"}}}
		}, Failed, "Pod acme/web-0 is there", nil},
		{"kept and taken", IPAMReleaseOptions{Address: kept, Network: "acme/voice", Yes: true, Force: true}, func(o *objects) { o.park(kept, "a") }, Failed, "node a has", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := addressed(t)
			if c.wrong != nil {
				c.wrong(o)
			}
			c.o.Live = o.serve(t)
			code, out, errs := command(func(ctx context.Context, io IO) int { return IPAMRelease(ctx, c.o, io) }, t)
			if code != c.code || !strings.Contains(out+errs, c.want) || len(*o.writes) != len(c.writes) {
				t.Fatalf("exit %d\n%s%s%q", code, out, errs, *o.writes)
			}
			for i, w := range c.writes {
				if !strings.Contains((*o.writes)[i], w) {
					t.Errorf("%s\nwant %s", (*o.writes)[i], w)
				}
			}
		})
	}
}

// park adds an address that is kept for a Pod of a StatefulSet.
func (o *objects) park(a, owner string) {
	b := *o.blocks[1].DeepCopy()
	b.Spec.Role, b.Spec.CIDR, b.Spec.Owner = v1alpha1.RoleSingle, a+"/32", owner
	b.Name, b.Finalizers = b.Spec.Space.BlockName(netip.MustParsePrefix(a+"/32")), []string{v1alpha1.IPFinalizer}
	b.Spec.Reservation = &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: "web", UID: "sts", IfName: "eth1"}
	o.blocks = append(o.blocks, b)
}
