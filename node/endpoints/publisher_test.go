package endpoints

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// server is an API that knows DanmEps alone, by the API's documents: versions, conflicts, preconditions, watches.
type server struct {
	mu      sync.Mutex
	version int
	objects map[string]danmv1.DanmEp // by namespace/name
	watches map[chan []byte]bool
	refuse  map[string]int                    // status by method
	writes  map[string]int                    // by method
	late    func(key string, e danmv1.DanmEp) // called before a creation is answered
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/apis/danm.io/v1/"), "/")
	if path[0] == "danmeps" && r.URL.Query().Get("watch") != "" {
		s.watch(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if code := s.refuse[r.Method]; code != 0 {
		fault(w, code, "InternalError")
		return
	}
	if path[0] == "danmeps" {
		list := danmv1.DanmEpList{}
		list.APIVersion, list.Kind, list.ResourceVersion = "danm.io/v1", "DanmEpList", strconv.Itoa(s.version)
		for _, key := range slices.Sorted(maps.Keys(s.objects)) {
			if e := s.objects[key]; r.URL.Query().Get("labelSelector") == danmv1.LabelNode+"="+e.Labels[danmv1.LabelNode] {
				list.Items = append(list.Items, e)
			}
		}
		_ = json.NewEncoder(w).Encode(list)
		return
	}
	body, _ := io.ReadAll(r.Body)
	var e danmv1.DanmEp
	_ = json.Unmarshal(body, &e)
	key := path[1] + "/" + e.Name
	if len(path) > 3 {
		key = path[1] + "/" + path[3]
	}
	old, is := s.objects[key]
	s.writes[r.Method]++
	switch {
	case r.Method != http.MethodPost && !is:
		fault(w, 404, "NotFound")
	case r.Method == http.MethodPost && is:
		fault(w, 409, "AlreadyExists")
	case r.Method == http.MethodGet:
		_ = json.NewEncoder(w).Encode(old)
	case r.Method == http.MethodPut && old.ResourceVersion != e.ResourceVersion:
		fault(w, 409, "Conflict")
	case r.Method == http.MethodDelete:
		var o struct{ Preconditions struct{ UID string } }
		_ = json.Unmarshal(body, &o)
		if o.Preconditions.UID != string(old.UID) {
			fault(w, 409, "Conflict")
			return
		}
		s.set("DELETED", key, old)
		_ = json.NewEncoder(w).Encode(old)
	default:
		if is {
			e.UID = old.UID
		}
		e = s.set(map[bool]string{true: "MODIFIED", false: "ADDED"}[is], key, e)
		if s.late != nil && !is {
			s.late(key, e)
		}
		_ = json.NewEncoder(w).Encode(e)
	}
}

func fault(w http.ResponseWriter, code int, reason string) {
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":%q,"code":%d}`, reason, code)
}

// set changes an object and tells the watchers.
func (s *server) set(event, key string, e danmv1.DanmEp) danmv1.DanmEp {
	s.version++
	e.APIVersion, e.Kind, e.ResourceVersion = "danm.io/v1", "DanmEp", strconv.Itoa(s.version)
	if e.UID == "" {
		e.UID = types.UID("uid-" + strconv.Itoa(s.version))
	}
	if s.objects[key] = e; event == "DELETED" {
		delete(s.objects, key)
	}
	b, _ := json.Marshal(map[string]any{"type": event, "object": e})
	for w := range s.watches {
		w <- b
	}
	return e
}

func (s *server) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 1000)
	s.mu.Lock()
	if s.refuse["WATCH"] != 0 || r.URL.Query().Get("resourceVersion") != strconv.Itoa(s.version) {
		s.mu.Unlock()
		fmt.Fprintln(w, `{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410}}`)
		return
	}
	s.watches[events] = true
	s.mu.Unlock()
	w.(http.Flusher).Flush()
	for {
		select {
		case e := <-events:
			_, _ = w.Write(append(e, '\n'))
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// node is what is attached, as the test says.
type node struct {
	t   *testing.T
	api *server
	p   *Publisher

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

func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
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

// TestPublished: what is attached is told, what ends is told no more, and nothing is written twice.
func TestPublished(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("web", "s1", "eth0", "net1")
	n.until("s1/eth0", "s1/net1")
	n.add("db", "s2", "eth0")
	n.until("s1/eth0", "s1/net1", "s2/eth0")
	n.eventually("three counted", func() bool { return n.p.Published() == 3 })
	n.p.Changed("s1", true)
	n.del("s2")
	n.until("s1/eth0", "s1/net1")
	if posts, puts := n.count(http.MethodPost), n.count(http.MethodPut); posts != 3 || puts != 0 {
		t.Errorf("%d created, %d changed", posts, puts)
	}
	n.add("web", "s3", "eth0") // the Pod's next sandbox
	n.del("s1")
	n.until("s3/eth0")
}

// TestMadeAgain: what others delete, change, or hide from us by its label.
func TestMadeAgain(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("web", "s1", "eth0")
	n.until("s1/eth0")
	as := func(ok func(danmv1.DanmEp) bool) func() bool {
		return func() bool {
			n.api.mu.Lock()
			defer n.api.mu.Unlock()
			for _, e := range n.api.objects {
				return ok(e)
			}
			return false
		}
	}
	n.change("s1", "DELETED", func(*danmv1.DanmEp) {})
	n.until("s1/eth0")
	n.change("s1", "MODIFIED", func(e *danmv1.DanmEp) { e.Spec.Iface.Address = "10.6.6.6/24" })
	n.eventually("the address back", as(func(e danmv1.DanmEp) bool { return e.Spec.Iface.Address == "" }))
	n.change("s1", "MODIFIED", func(e *danmv1.DanmEp) {
		e.Spec.CID, e.Annotations, e.Finalizers = "s9", map[string]string{"theirs": "1"}, []string{"theirs.io/x"}
	})
	n.until("s1/eth0") // what said to be of s9 is gone, and s1's is back
	n.change("s1", "MODIFIED", func(e *danmv1.DanmEp) { e.Spec.Host = "n2" })
	n.eventually("the host back", as(func(e danmv1.DanmEp) bool { return e.Spec.Host == "n1" }))
	n.change("s1", "MODIFIED", func(e *danmv1.DanmEp) {
		e.Spec.Netns, e.Annotations, e.Finalizers = "x", map[string]string{"theirs": "1"}, []string{"theirs.io/x"}
	})
	n.eventually("the path back, and what is others' left", as(func(e danmv1.DanmEp) bool {
		return e.Spec.Netns == "" && e.Annotations["theirs"] == "1" && len(e.Finalizers) == 1
	}))
	n.change("s1", "MODIFIED", func(e *danmv1.DanmEp) { e.Labels["app"] = "other" })
	n.eventually("the label back", as(func(e danmv1.DanmEp) bool { return e.Labels["app"] == "web" }))
	n.api.mu.Lock() // for a watch with a selector, an object that leaves it is deleted
	for key, e := range n.api.objects {
		e.Labels = nil
		n.api.set("DELETED", key, e)
		n.api.objects[key] = e
	}
	n.api.mu.Unlock()
	n.eventually("found without its label", as(func(e danmv1.DanmEp) bool { return e.Labels[danmv1.LabelNode] == "n1" }))
}

// TestALateAnswer: what happened to a DanmEp between its creation and the answer is not undone by the answer.
func TestALateAnswer(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("first", "s0", "eth0")
	n.until("s0/eth0")
	n.eventually("a watch that has told of it", func() bool {
		n.api.mu.Lock()
		defer n.api.mu.Unlock()
		return len(n.api.watches) == 1
	})
	var once sync.Once
	n.api.mu.Lock()
	n.api.late = func(key string, e danmv1.DanmEp) {
		once.Do(func() {
			n.api.set("DELETED", key, e)
			time.Sleep(200 * time.Millisecond) // both events are heard before the answer
		})
	}
	n.api.mu.Unlock()
	n.add("web", "s1", "eth0")
	n.until("s0/eth0", "s1/eth0")
}

// TestLabelsFollowThePod.
func TestLabelsFollowThePod(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("web", "s1", "eth0")
	n.until("s1/eth0")
	n.set(func() { p := n.pods["u-web"]; p.Labels = map[string]string{"tier": "front"}; n.pods["u-web"] = p })
	n.p.PodChanged("api-web", "", "u-web")
	n.eventually("the Pod's new labels", func() bool {
		n.api.mu.Lock()
		defer n.api.mu.Unlock()
		for _, e := range n.api.objects {
			_, old := e.Labels["app"]
			return e.Labels["tier"] == "front" && !old
		}
		return false
	})
}

// TestWaits: of a Pod that the API says nothing of, and of a sandbox that is being attached, nothing is told, and nothing is untold.
func TestWaits(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("first", "s0", "eth0")
	n.until("s0/eth0")
	n.add("web", "s1", "eth0")
	n.until("s0/eth0", "s1/eth0")
	n.set(func() { n.pending["s1"] = true })
	n.p.Changed("s1", true)
	n.set(func() { delete(n.pods, "u-first") }) // gone from the API: what follows is Kubernetes' work
	n.p.PodChanged("u-first")
	n.change("s0", "DELETED", func(*danmv1.DanmEp) {})
	n.add("last", "s2", "eth0") // a control: the queue went on
	n.until("s1/eth0", "s2/eth0")
	n.set(func() {
		n.has["s3"] = model.Attached{Sandbox: "s3", PodUID: "u-new", Interfaces: []model.Attachment{{IfName: "eth0"}}}
	})
	n.p.Changed("s3", true)
	n.add("more", "s4", "eth0")
	n.until("s1/eth0", "s2/eth0", "s4/eth0")
	n.set(func() { n.pods["u-new"] = Pod{UID: "api-new", Namespace: "acme", Name: "new"} })
	n.p.PodChanged("u-new")
	n.until("s1/eth0", "s2/eth0", "s3/eth0", "s4/eth0")
}

// TestAfterARestart: what ended while no agent was there goes, unless the records may be missing for another reason.
func TestAfterARestart(t *testing.T) {
	n := newNode(t)
	end := n.start()
	n.add("web", "s1", "eth0")
	n.add("db", "s2", "eth0")
	n.until("s1/eth0", "s2/eth0")
	end()
	n.set(func() { delete(n.has, "s1"); n.complete = false })
	end = n.start()
	n.add("new", "s3", "eth0")
	n.until("s1/eth0", "s2/eth0", "s3/eth0") // s1 may live, and its record be lost
	n.del("s2")                              // what ends before our eyes has ended
	n.until("s1/eth0", "s3/eth0")
	end()
	n.api.mu.Lock()
	n.api.refuse[http.MethodGet] = 500
	n.api.mu.Unlock()
	end = n.start()
	n.del("s3") // before anything is known of the API
	n.p.Changed("s9", false)
	n.add("more", "s4", "eth0")
	n.api.mu.Lock()
	clear(n.api.refuse)
	n.api.mu.Unlock()
	n.until("s1/eth0", "s4/eth0")
	n.eventually("nothing remembered for nothing", func() bool {
		n.p.mu.Lock()
		defer n.p.mu.Unlock()
		return len(n.p.ended) == 0
	})
	end()
	n.set(func() { n.complete = true })
	n.start()
	n.until("s4/eth0")
}

// TestAFight: who changes a DanmEp each time that it was made good is left alone for a while; others are not.
func TestAFight(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("web", "s1", "eth0")
	n.until("s1/eth0")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				n.change("s1", "MODIFIED", func(e *danmv1.DanmEp) { e.Labels["app"] = fmt.Sprint("theirs", i) })
			}
		}
	}()
	n.eventually("many changes", func() bool { return n.count(http.MethodPut) >= most/2 })
	time.Sleep(500 * time.Millisecond) // time for hundreds
	n.add("db", "s2", "eth0")
	n.until("s1/eth0", "s2/eth0")
	close(stop)
	<-done
	if puts := n.count(http.MethodPut); puts > most {
		t.Errorf("%d writes", puts)
	}
}

// TestRecordsBecomeComplete: what was kept while records could be missing goes when they are known to be all.
func TestRecordsBecomeComplete(t *testing.T) {
	n := newNode(t)
	end := n.start()
	n.add("web", "s1", "eth0")
	n.add("db", "s2", "eth0")
	n.until("s1/eth0", "s2/eth0")
	end()
	n.set(func() { delete(n.has, "s1"); n.complete = false })
	n.look = 10 * time.Millisecond
	n.start()
	n.add("new", "s3", "eth0")
	n.until("s1/eth0", "s2/eth0", "s3/eth0")
	n.set(func() { n.complete = true })
	n.until("s2/eth0", "s3/eth0")
}

// TestASandboxAgain: a runtime may try again under the ID of a sandbox that ended, and then that it ended says nothing any more.
func TestASandboxAgain(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("web", "s1", "eth0")
	n.until("s1/eth0")
	n.api.mu.Lock()
	n.api.refuse[http.MethodDelete] = 500
	n.api.mu.Unlock()
	n.del("s1")
	n.eventually("tried", func() bool { return n.p.queue.NumRequeues("s1") > 0 })
	n.add("web", "s1", "eth0")
	n.p.mu.Lock()
	if len(n.p.ended) != 0 {
		t.Errorf("%v", n.p.ended)
	}
	n.p.mu.Unlock()
	n.until("s1/eth0")
}

// TestAnAPIThatFails: everything is told once it works again, also what ended before the first list.
func TestAnAPIThatFails(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("old", "s0", "eth0")
	n.until("s0/eth0")
	n.api.mu.Lock()
	n.api.refuse[http.MethodPost], n.api.refuse[http.MethodDelete] = 500, 500
	n.api.mu.Unlock()
	n.add("web", "s1", "eth0")
	n.del("s0")
	n.set(func() { n.err = errors.New("journal") })
	n.p.Changed("s1", true)
	n.eventually("tried again", func() bool { return n.p.queue.NumRequeues("s0") > 1 })
	n.until("s0/eth0")
	n.set(func() { n.err = nil })
	n.api.mu.Lock()
	clear(n.api.refuse)
	n.api.mu.Unlock()
	n.until("s1/eth0")
}

// TestOthersAreLeftAlone: a DanmEp of another node, and one of DANM's own times, without labels.
func TestOthersAreLeftAlone(t *testing.T) {
	n := newNode(t)
	n.api.mu.Lock()
	for i, host := range []string{"n2", "n1", "n1"} {
		e := danmv1.DanmEp{Spec: danmv1.DanmEpSpec{Host: host, CID: fmt.Sprint("x", i)}}
		e.Name, e.Namespace = fmt.Sprint("ep", i), "acme"
		if i != 1 {
			e.Labels = map[string]string{danmv1.LabelNode: "n1"}
		}
		n.api.set("ADDED", "acme/"+e.Name, e)
	}
	n.api.mu.Unlock()
	n.start()
	n.until("x0/", "x1/") // x2 says to be ours, and is not
}
