package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/model"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
)

// reports are network-statuses as the API would get them.
type reports struct {
	mu   sync.Mutex
	got  []string      // "namespace/name uid text"
	fail []error       // the next answers
	hold chan struct{} // an answer comes when it is closed, nil = at once
}

func (r *reports) take(ctx context.Context, namespace, name, uid, status string) error {
	r.mu.Lock()
	hold := r.hold
	r.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(r.fail) > 0 {
		err := r.fail[0]
		r.fail = r.fail[1:]
		return err
	}
	r.got = append(r.got, fmt.Sprintf("%s/%s %s %s", namespace, name, uid, status))
	return nil
}

// answer is how the next are answered.
func (r *reports) answer(hold chan struct{}, fail ...error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hold, r.fail = hold, fail
}

// by is what was reported when an ADD that began then was answered, of which n are awaited if the answer had to go before.
func (r *reports) by(began time.Time, n int) []string {
	inTime := time.Since(began) < statusWait
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if got := r.all(); inTime || len(got) >= n || time.Now().After(end) {
			return got
		}
	}
}

// failing is how many of the answers are left.
func (r *reports) failing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.fail)
}

func (r *reports) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// The text is what Multus 4 wrote for the same results, but for the names (measured; it indents by four and joins with commas).
func TestNetworkStatus(t *testing.T) {
	parse := func(text string) *types100.Result {
		t.Helper()
		r := &types100.Result{}
		must(t, json.Unmarshal([]byte(text), r))
		return r
	}
	at := []chosen{
		{request: model.InterfaceRequest{Kind: model.ClusterNetwork, Network: "def"}, ifName: "eth0"},
		{request: model.InterfaceRequest{Kind: model.Definition, Network: "hl-a", Selection: &model.Selection{Namespace: "default"}}, ifName: "net1"},
	}
	got, err := statusOf(at, []*types100.Result{
		parse(`{"cniVersion":"1.0.0","interfaces":[{"name":"br"},{"name":"veth1"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/n"}],"ips":[{"address":"10.110.0.42/24","interface":2}]}`),
		parse(`{"cniVersion":"1.1.0","interfaces":[{"name":"net1","mac":"02:00:00:00:00:02","mtu":1400,"sandbox":"/n"}],"ips":[{"address":"10.70.0.2/24"},{"address":"fd00::2/64","interface":0}],"routes":[{"dst":"0.0.0.0/0","gw":"10.70.0.1"},{"dst":"10.0.0.0/8","gw":"10.70.0.9"},{"dst":"::/0"}],"dns":{"nameservers":["10.0.0.9"],"search":["a.b"]}}`),
	}, []json.RawMessage{[]byte(`{"type":["a plugin's mistake"]}`), []byte(`{"version":"1.1.0","pci":{"rdma-device":"mlx5_1","pci-address":"0000:03:02.1"},"type":"pci","more":1}`)})
	want := `[{
    "name": "def",
    "interface": "eth0",
    "ips": [
        "10.110.0.42"
    ],
    "mac": "02:00:00:00:00:01",
    "default": true,
    "dns": {}
},{
    "name": "default/hl-a",
    "interface": "net1",
    "ips": [
        "10.70.0.2",
        "fd00::2"
    ],
    "mac": "02:00:00:00:00:02",
    "mtu": 1400,
    "dns": {
        "nameservers": [
            "10.0.0.9"
        ],
        "search": [
            "a.b"
        ]
    },
    "device-info": {
        "type": "pci",
        "version": "1.1.0",
        "pci": {
            "pci-address": "0000:03:02.1",
            "rdma-device": "mlx5_1"
        }
    },
    "gateway": [
        "10.70.0.1"
    ]
}]`
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	// A plugin that made two interfaces: the one with the gateway is the default one; the host's addresses are nobody's.
	two := parse(`{"cniVersion":"1.0.0","interfaces":[{"name":"h"},{"name":"a","sandbox":"/n"},{"name":"b","sandbox":"/n"}],"ips":[{"address":"10.0.0.9/24","gateway":"10.0.0.1","interface":0},{"address":"10.0.0.1/24","interface":1},{"address":"10.0.1.1/24","gateway":"10.0.1.9","interface":2},{"address":"10.0.2.1/24"}]}`)
	var lines []string
	for _, s := range statuses("def", two, true) {
		lines = append(lines, fmt.Sprintf("%s%v%t", s.Interface, s.IPs, s.Default))
	}
	if want := []string{"a[10.0.0.1]false", "b[10.0.1.1 10.0.2.1]true"}; !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
	for _, r := range []*types100.Result{nil, {}, parse(`{"cniVersion":"1.0.0","interfaces":[{"name":"h"}],"ips":[{"address":"10.0.0.9/24"}]}`)} {
		if got := statuses("def", r, false); len(got) != 0 {
			t.Errorf("nothing in the Pod: %+v", got)
		}
	}
}

// The status is there before the answer, unless the API takes longer; then the answer does not wait, and the status comes later.
func TestNetworkStatusIsReported(t *testing.T) {
	n, _, a, r := npwgNode(t)
	a.set(npwg("data,default/shared", ""), nil)
	r.answer(nil, errors.New("try again"))
	began := time.Now()
	if _, e := n.call(request("ADD", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	got := r.by(began, 1)
	if len(got) != 1 || !strings.HasPrefix(got[0], `acme/pod-c api-uid [{`) || !strings.Contains(got[0], `"name": "acme/data",`) || !strings.Contains(got[0], `"name": "default/shared",`) || !strings.Contains(got[0], `"name": "default",`) {
		t.Fatalf("%q", got)
	}
	// Others are told nothing of: DANM's Pods, and whoever has no annotation.
	a.set(Pod{UID: "x", Annotations: map[string]string{annotation.Key: `[{"network":"data","ip":"dynamic"}]`}}, nil)
	if _, e := n.call(request("ADD", "d", "acme", "ud", "")); e != nil || len(r.all()) != 1 {
		t.Fatal(e, r.all())
	}
	a.set(npwg("data", ""), nil)
	hold := make(chan struct{})
	r.answer(hold)
	began = time.Now()
	if _, e := n.call(request("ADD", "slow", "acme", "us", "")); e != nil || len(r.all()) != 1 || time.Since(began) > 10*statusWait {
		t.Fatal(e, r.all(), time.Since(began))
	}
	close(hold)
	for deadline := time.Now().Add(10 * time.Second); len(r.all()) != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%q", r.all())
		}
	}
}

// What is not attached any more is not reported late, over the status of who came after it; nor is a Pod that is gone.
func TestNetworkStatusOfThePast(t *testing.T) {
	n, _, a, r := npwgNode(t)
	a.set(npwg("data", ""), nil)
	r.answer(nil, ErrPodGone)
	if _, e := n.call(request("ADD", "gone", "acme", "ug", "")); e != nil {
		t.Fatal(e)
	}
	for r.failing() > 0 {
		time.Sleep(time.Millisecond)
	}
	r.answer(nil, slices.Repeat([]error{errors.New("away")}, 1000)...) // until it is detached
	if _, e := n.call(request("ADD", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", "")); e != nil {
		t.Fatal(e)
	}
	r.answer(nil)
	time.Sleep(2 * time.Second) // it would be tried again by then: 100, 200, 400, 800 ms
	if got := r.all(); len(got) != 0 {
		t.Errorf("%q", got)
	}
	began := time.Now()
	if _, e := n.call(request("ADD", "later", "acme", "ul", "")); e != nil || len(r.by(began, 1)) != 1 { // the control
		t.Error(e, r.all())
	}
}
