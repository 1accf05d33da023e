package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// podAPI is an API server that knows Pods alone: lists in pages, watches, one GET. It speaks by the API's documents, with none of
// client-go in it.
type podAPI struct {
	t *testing.T

	mu       sync.Mutex
	pods     []map[string]any
	version  int
	watchers map[chan string]bool
	refuse   bool
	selector string // of the last list
	lists    int
	pages    int
}

func pod(uid, namespace, name string, more map[string]any) map[string]any {
	meta := map[string]any{"uid": uid, "namespace": namespace, "name": name}
	for k, v := range more {
		meta[k] = v
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": map[string]any{"filler": strings.Repeat("x", 1000)}, "status": map[string]any{"phase": "Running"}}
}

func (a *podAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	refuse := a.refuse
	a.mu.Unlock()
	switch {
	case refuse:
		http.Error(w, "away", http.StatusServiceUnavailable)
	case r.URL.Path != "/api/v1/pods":
		a.one(w, strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/"))
	case q.Get("watch") != "":
		a.watch(w, r)
	default:
		a.list(w, q.Get("fieldSelector"), q.Get("continue"), q.Get("limit"))
	}
}

func (a *podAPI) list(w http.ResponseWriter, selector, from, limit string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.selector = selector
	n, _ := strconv.Atoi(limit)
	at, _ := strconv.Atoi(from)
	if a.pages++; at == 0 {
		a.lists++
	}
	end := min(at+n, len(a.pods))
	meta := map[string]any{"resourceVersion": strconv.Itoa(a.version)}
	if end < len(a.pods) {
		meta["continue"] = strconv.Itoa(end)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": "PodList", "metadata": meta, "items": a.pods[at:end]})
}

func (a *podAPI) one(w http.ResponseWriter, path []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	for _, p := range a.pods {
		if m := p["metadata"].(map[string]any); len(path) == 3 && m["namespace"] == path[0] && m["name"] == path[2] {
			_ = json.NewEncoder(w).Encode(p)
			return
		}
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404}`)
}

func (a *podAPI) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 100)
	a.mu.Lock()
	if r.URL.Query().Get("resourceVersion") != strconv.Itoa(a.version) { // what happened since is not kept
		a.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410}}`)
		return
	}
	a.watchers[events] = true
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	for {
		select {
		case e, open := <-events:
			if !open {
				return
			}
			fmt.Fprintln(w, e)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// change does something to a Pod and tells the watchers.
func (a *podAPI) change(event string, p map[string]any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	m := p["metadata"].(map[string]any)
	m["resourceVersion"] = strconv.Itoa(a.version)
	for i, o := range a.pods {
		if o["metadata"].(map[string]any)["uid"] == m["uid"] {
			a.pods = append(a.pods[:i:i], a.pods[i+1:]...)
			break
		}
	}
	if event != "DELETED" {
		a.pods = append(a.pods, p)
	}
	b, err := json.Marshal(map[string]any{"type": event, "object": p})
	if err != nil {
		a.t.Error(err)
	}
	for w := range a.watchers {
		w <- string(b)
	}
}

// hangUp ends all watches.
func (a *podAPI) hangUp(refuse bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = refuse
	for w := range a.watchers {
		close(w)
		delete(a.watchers, w)
	}
}

func TestPodsOfTheNode(t *testing.T) {
	a := &podAPI{t: t, watchers: map[chan string]bool{}, version: 7}
	for i := range 60 {
		a.pods = append(a.pods, pod(fmt.Sprintf("u%d", i), "acme", fmt.Sprintf("p%d", i), nil))
	}
	a.pods = append(a.pods, pod("sts", "acme", "web-3", map[string]any{"annotations": map[string]any{"danm.io/interfaces": "[]", "other": "is not kept"},
		"ownerReferences": []any{map[string]any{"apiVersion": "x/v1", "kind": "Other", "name": "o", "uid": "o"}, map[string]any{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "web-uid", "controller": true},
			map[string]any{"apiVersion": "tenant.example/v1", "kind": "StatefulSet", "name": "other", "uid": "other", "controller": true}}}))
	a.pods = append(a.pods, pod("mirror", "kube-system", "etcd-n1", map[string]any{"annotations": map[string]any{"kubernetes.io/config.mirror": "hash"}}))
	server := httptest.NewServer(a)
	defer server.Close()
	p, err := NewPods(&rest.Config{Host: server.URL}, "n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, known := p.Known("u1"); known || p.Synced() {
		t.Error("it knows before it was told")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("never: " + what)
			}
		}
	}
	known := func(uid string) bool { _, ok := p.Known(uid); return ok }
	eventually("synced", p.Synced)
	a.mu.Lock()
	if a.selector != "spec.nodeName=n1" || a.pages != 3 || a.lists != 1 {
		t.Errorf("selector %q, %d pages of %d lists", a.selector, a.pages, a.lists)
	}
	a.mu.Unlock()
	if got, _ := p.Known("sts"); !reflect.DeepEqual(got, PodInfo{UID: "sts", Namespace: "acme", Name: "web-3", StatefulSet: "web", StatefulSetUID: "web-uid", Phase: "Running",
		Annotations: map[string]string{"danm.io/interfaces": "[]"}}) {
		t.Errorf("%+v", got)
	}
	if got, ok := p.Known("hash"); !ok || got.UID != "mirror" || got.Static != "hash" || !known("mirror") || !known("u59") || known("u60") {
		t.Errorf("%+v", got)
	}
	a.change("ADDED", pod("new", "acme", "new", nil))
	eventually("a new Pod is known", func() bool { return known("new") })
	a.change("DELETED", pod("mirror", "kube-system", "etcd-n1", map[string]any{"annotations": map[string]any{"kubernetes.io/config.mirror": "hash"}}))
	eventually("a static Pod is gone under both UIDs", func() bool { return !known("mirror") && !known("hash") })
	// The mirror of a static Pod is made anew: what is deleted is the old one.
	a.change("ADDED", pod("m2", "kube-system", "etcd-n1", map[string]any{"annotations": map[string]any{"kubernetes.io/config.mirror": "hash"}}))
	a.change("DELETED", pod("m1", "kube-system", "etcd-n1", map[string]any{"annotations": map[string]any{"kubernetes.io/config.mirror": "hash"}}))
	a.change("ADDED", pod("last", "acme", "last", nil))
	eventually("the last", func() bool { return known("last") })
	if !known("hash") {
		t.Error("the Pod that is there is forgotten")
	}
	one, err := p.Get(t.Context(), "acme", "web-3")
	if err != nil || one.UID != "sts" {
		t.Errorf("%+v, %v", one, err)
	}
	if _, err := p.Get(t.Context(), "acme", "none"); !errors.Is(err, ErrNoPod) {
		t.Errorf("a Pod that is not there: %v", err)
	}

	a.hangUp(true)
	eventually("not synced while the API is away", func() bool { return !p.Synced() })
	if !known("sts") {
		t.Error("an API that is away has no Pods")
	}
	if _, err := p.Get(t.Context(), "acme", "none"); err == nil || errors.Is(err, ErrNoPod) {
		t.Errorf("an API that is away says that there is no Pod: %v", err)
	}
	a.change("DELETED", pod("u1", "acme", "p1", nil)) // nobody sees it
	a.hangUp(false)
	eventually("what happened meanwhile is known", func() bool { return p.Synced() && !known("u1") && known("u2") })
	cancel()
	<-ended
	if p.Synced() {
		t.Error("synced after the end")
	}
}

// A network-status is a merge patch of the status subresource, for one UID; a Pod of that name that is another one is no Pod.
func TestSetNetworkStatus(t *testing.T) {
	var asked []string
	answers := []int{200, 404, 422, 500, 422}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type")+" "+string(body))
		code := answers[len(asked)-1]
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		field := map[bool]string{true: "metadata.uid", false: "metadata.annotations"}[len(asked) == 3]
		fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Status","metadata":{},"status":"Failure","reason":%q,"code":%d,"details":{"causes":[{"field":%q}]}}`,
			map[int]string{404: "NotFound", 422: "Invalid", 500: "InternalError"}[code], code, field)
	}))
	defer srv.Close()
	p, err := NewPods(&rest.Config{Host: srv.URL}, "n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ err, gone bool }{{false, false}, {true, true}, {true, true}, {true, false}, {true, false}} {
		err := p.SetNetworkStatus(t.Context(), "acme", "web", "u1", `[{"name":"a"}]`)
		if (err != nil) != want.err || errors.Is(err, ErrNoPod) != want.gone {
			t.Errorf("%v", err)
		}
	}
	want := `PATCH /api/v1/namespaces/acme/pods/web/status application/merge-patch+json {"metadata":{"annotations":{"k8s.v1.cni.cncf.io/network-status":"[{\"name\":\"a\"}]"},"uid":"u1"}}`
	if len(asked) != 5 || asked[0] != want {
		t.Errorf("%q", asked)
	}
}

// Whoever publishes what Pods have is told of those that came, went, or have other labels, and of nothing else that happens to them.
func TestChangedPods(t *testing.T) {
	a := &podAPI{t: t, watchers: map[chan string]bool{}, version: 7}
	labelled := func(uid, app string) map[string]any {
		return pod(uid, "acme", "p-"+uid, map[string]any{"labels": map[string]any{"app": app}})
	}
	a.pods = []map[string]any{labelled("a", "one"), labelled("b", "one"), pod("mirror", "kube-system", "etcd-n1", map[string]any{"annotations": map[string]any{"kubernetes.io/config.mirror": "hash"}})}
	server := httptest.NewServer(a)
	defer server.Close()
	p, err := NewPods(&rest.Config{Host: server.URL}, "n1", nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	said := map[string]int{}
	p.Changed = func(i PodInfo) {
		mu.Lock()
		defer mu.Unlock()
		said[i.UID+"/"+i.Static+"/"+i.Labels["app"]]++
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	expect := func(want map[string]int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			mu.Lock()
			same := reflect.DeepEqual(said, want)
			got := fmt.Sprint(said)
			if same {
				clear(said)
			}
			mu.Unlock()
			if same {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s instead of %v", got, want)
			}
		}
	}
	expect(map[string]int{"a//one": 1, "b//one": 1, "mirror/hash/": 1})
	a.change("MODIFIED", labelled("a", "one")) // its phase, perhaps
	a.change("MODIFIED", labelled("b", "two"))
	a.change("ADDED", labelled("c", "one"))
	a.change("DELETED", labelled("a", "one"))
	expect(map[string]int{"b//two": 1, "c//one": 1, "a//one": 1})
	a.hangUp(true)
	a.change("MODIFIED", labelled("c", "three")) // nobody sees these
	a.change("DELETED", labelled("b", "two"))
	a.change("ADDED", labelled("d", "one"))
	a.hangUp(false)
	expect(map[string]int{"c//three": 1, "b//two": 1, "d//one": 1})
}
