package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
)

// oracle answers as the API does, and remembers the questions.
type oracle struct {
	mu        sync.Mutex
	pod       Pod
	err       error
	questions []string
}

func (a *oracle) answer(_ context.Context, namespace, name, uid string) (Pod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.questions = append(a.questions, fmt.Sprintf("%s/%s %s", namespace, name, uid))
	return a.pod, a.err
}

// set is what it answers from now on; asked is what it was asked since.
func (a *oracle) set(pod Pod, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pod, a.err, a.questions = pod, err, nil
}

func (a *oracle) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.questions)
}

// Addresses are kept for Pods on sticky networks alone.
func TestStickyNetworksAlone(t *testing.T) {
	who := ipam.Sticky{Namespace: "acme", StatefulSet: "web", UID: "u", Ordinal: 2}
	p := choice{pod: Pod{Sticky: who}, items: []chosen{{network: model.Network{Sticky: true}, ifName: "eth0"}, {ifName: "eth1"}}}
	if w := p.wants(); w[0].Sticky != who || w[1].Sticky != (ipam.Sticky{}) {
		t.Errorf("%+v", w)
	}
}

// For another plugin's interface the API is asked only where the answer matters.
func TestForAnotherPluginStickyNetworksAlone(t *testing.T) {
	n := newNode(t, nil)
	a := &oracle{err: errors.New("the API is away")}
	n.restart(func(o *Options) { o.Pod = a.answer })
	if _, e := n.call(asIPAM("ADD", "s1", "net1", "u", ofData)); e != nil || len(a.asked()) != 0 {
		t.Fatal(e, a.asked())
	}
	n.networks(func(list []model.Network) []model.Network { list[3].Sticky = true; return list })
	if _, e := n.call(asIPAM("ADD", "s2", "net1", "u2", ofData)); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodUnknown) {
		t.Fatal(e)
	}
}

// A Pod gets what its annotation asks for, whatever the first of the dialects' keys, or the default network; never less.
func TestPodsAskInTheirAnnotations(t *testing.T) {
	n := newNode(t, nil)
	a := &oracle{}
	n.restart(func(o *Options) { o.Pod = a.answer })
	for i, c := range []struct {
		name, annotation string
		conf             string // interfaces of the CNI configuration
		err              error
		want             []string // names and addresses
		code             diag.Code
		says             string
	}{
		{"one network, twice, and one of the cluster", `[{"network":"data","ip":"dynamic"},{"tenantNetwork":"data","ip":"10.0.0.77/24","ip6":"dynamic"},{"clusterNetwork":"shared","ip":"dynamic"}]`, "", nil,
			[]string{"eth0 10.0.0.10/24", "data1 10.0.0.77/24 fd00::10/64", "eth2 10.3.0.1/24"}, "", ""},
		{"nothing", "", "", nil, []string{"eth0 10.2.0.1/24"}, "", ""},
		{"nothing, said so", "[]", "", nil, []string{"eth0 10.2.0.2/24"}, "", ""},
		{"what the configuration says goes first", `[{"network":"data","ip":"dynamic"}]`, on("shared"), nil, []string{"eth0 10.3.0.2/24"}, "", ""},
		{"a slip", `[{"network":"data","ipv4":"dynamic"}]`, "", nil, nil, diag.AnnotationField, "acme/pod-c"},
		{"no JSON", `{`, "", nil, nil, diag.AnnotationSyntax, "danm.io/interfaces"},
		{"another tenant's network", `[{"tenantNetwork":"secret","ip":"dynamic"}]`, "", nil, nil, diag.PodNetworkUnknown, "secret"},
		{"the API is away", "", "", errors.New("connection refused"), nil, diag.PodUnknown, "what Pod acme/pod-c"},
	} {
		pod := Pod{}
		if c.annotation != "" {
			pod.Annotations = map[string]string{annotation.Key: c.annotation}
		}
		a.set(pod, c.err)
		sandbox := fmt.Sprintf("c%d", i)
		r, e := n.call(request("ADD", sandbox, "acme", "u-"+sandbox, c.conf))
		want := []string{fmt.Sprintf("acme/pod-%s u-%s", sandbox, sandbox)}
		if c.conf != "" {
			want = nil // nothing that it could say matters
		}
		if !slices.Equal(a.asked(), want) {
			t.Errorf("%s: asked %v", c.name, a.asked())
		}
		if c.code != "" {
			if e == nil || e.Details != string(c.code) || !strings.Contains(e.Msg, c.says) || e.Code == types.ErrInternal {
				t.Errorf("%s: %+v", c.name, e)
			}
			if _, err := n.ipam.Lookup(sandbox); !errors.Is(err, ipam.ErrNotFound) {
				t.Errorf("%s: something is recorded (%v)", c.name, err)
			}
			continue
		}
		got := shown(r)
		if e != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v %q", c.name, e, got)
		}
	}
	// With interfaces in the configuration it is asked where a network keeps addresses, and only there.
	a.set(Pod{}, errors.New("away"))
	if _, e := n.call(request("ADD", "conf", "acme", "u-conf", on("shared"))); e != nil {
		t.Error(e)
	}
	n.networks(func(list []model.Network) []model.Network { list[1].Sticky = true; return list })
	if _, e := n.call(request("ADD", "kept", "acme", "u-kept", on("shared"))); e == nil || e.Details != string(diag.PodUnknown) {
		t.Errorf("%+v", e)
	}
	// DEL and CHECK need no answer.
	a.set(Pod{}, errors.New("away"))
	for _, verb := range []string{"CHECK", "DEL"} {
		if _, e := n.call(request(verb, "c0", "acme", "u-c0", "")); e != nil {
			t.Error(verb, e)
		}
	}
}

// A runtime that names no UID means whoever has the name, and one that names no Pod has none that the API could know.
func TestWhoIsAskedAbout(t *testing.T) {
	n := newNode(t, nil)
	a := &oracle{}
	n.restart(func(o *Options) { o.Pod = a.answer })
	req := request("ADD", "c", "acme", "", "")
	req.Args = "K8S_POD_NAMESPACE=acme;K8S_POD_NAME=p"
	if _, e := n.call(req); e != nil || !slices.Equal(a.asked(), []string{"acme/p "}) {
		t.Errorf("%v, asked %q", e, a.asked())
	}
	a.set(Pod{}, nil)
	req = request("ADD", "d", "", "", "")
	req.Args = ""
	req.Stdin = []byte(`{"cniVersion":"0.3.1","name":"danm","namespace":"acme"}`)
	if _, e := n.call(req); e != nil || len(a.asked()) != 0 {
		t.Errorf("%v, asked %q", e, a.asked())
	}
}
