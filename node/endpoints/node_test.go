package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// node is what is attached, as the test says.
type node struct {
	t    *testing.T
	api  *server
	http *httptest.Server
	p    *Publisher

	mu       sync.Mutex
	has      map[string]model.Attached
	pending  map[string]bool
	pods     map[string]Pod // by the runtime's UID
	complete bool
	look     time.Duration
	err      error
}

func (n *node) Sandboxes(uid string) (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s, a := range n.has {
		if uid == "" || a.PodUID == uid {
			out = append(out, s)
		}
	}
	return out
}

func (n *node) Seen(sandbox string) (model.Attached, bool, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, has := n.has[sandbox]
	return a, has, has && !n.pending[sandbox], n.err
}

func newNode(t *testing.T) *node {
	n := &node{t: t, has: map[string]model.Attached{}, pending: map[string]bool{}, pods: map[string]Pod{}, complete: true,
		api: &server{objects: map[string]danmv1.DanmEp{}, watches: map[chan []byte]bool{}, refuse: map[string]int{}, writes: map[string]int{}}}
	return n
}

// start begins an agent's life; the function that it returns ends it.
func (n *node) start() func() {
	n.t.Helper()
	http := httptest.NewServer(n.api)
	n.http = http
	var err error
	n.p, err = New(Options{Node: "n1", Config: &rest.Config{Host: http.URL}, Source: n, Log: slog.New(slog.DiscardHandler),
		Pod: func(uid string) (Pod, bool) {
			n.mu.Lock()
			defer n.mu.Unlock()
			p, ok := n.pods[uid]
			return p, ok
		},
		Complete: func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.complete }})
	if err != nil {
		n.t.Fatal(err)
	}
	if n.look != 0 {
		n.p.look = n.look
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.p.Run(ctx); close(done) }()
	var once sync.Once
	end := func() {
		once.Do(func() { cancel(); <-done; http.CloseClientConnections(); http.Close() })
	}
	n.t.Cleanup(end)
	return end
}

func (n *node) set(change func()) { n.mu.Lock(); defer n.mu.Unlock(); change() }

// add attaches a Pod with interfaces.
func (n *node) add(pod, sandbox string, interfaces ...string) {
	n.set(func() {
		a := model.Attached{Sandbox: sandbox, Namespace: "acme", Pod: pod, PodUID: "u-" + pod}
		for _, name := range interfaces {
			a.Interfaces = append(a.Interfaces, model.Attachment{NetworkKind: model.DanmNet, Network: "acme/net", Type: "macvlan", IfName: name})
		}
		n.has[sandbox] = a
		n.pods[a.PodUID] = Pod{UID: "api-" + pod, Namespace: "acme", Name: pod, Labels: map[string]string{"app": pod}}
	})
	n.p.Changed(sandbox, true)
}

func (n *node) del(sandbox string) {
	n.set(func() { delete(n.has, sandbox) })
	n.p.Changed(sandbox, false)
}

// there are the DanmEps: "sandbox/interface".
func (n *node) there() (out []string) {
	n.api.mu.Lock()
	defer n.api.mu.Unlock()
	for _, e := range n.api.objects {
		out = append(out, e.Spec.CID+"/"+e.Spec.Iface.Name)
	}
	slices.Sort(out)
	return out
}

func (n *node) until(want ...string) {
	n.t.Helper()
	slices.Sort(want)
	n.eventually(fmt.Sprint(want), func() bool { return slices.Equal(n.there(), want) })
}

// watched waits until so many watches are there.
func (n *node) watched(count int) {
	n.t.Helper()
	n.eventually(fmt.Sprint(count, " watches"), func() bool {
		n.api.mu.Lock()
		defer n.api.mu.Unlock()
		return len(n.api.watches) == count
	})
}

func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not %s, but %v", what, n.there())
		}
	}
}

// change lets somebody else change or delete what is there.
func (n *node) change(sandbox string, event string, change func(*danmv1.DanmEp)) {
	n.api.mu.Lock()
	defer n.api.mu.Unlock()
	for key, e := range n.api.objects {
		if e.Spec.CID == sandbox {
			e.Labels = maps.Clone(e.Labels)
			change(&e)
			n.api.set(event, key, e)
		}
	}
}

func (n *node) count(method string) int {
	n.api.mu.Lock()
	defer n.api.mu.Unlock()
	return n.api.writes[method]
}
