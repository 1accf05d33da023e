package endpoints

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

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
	end := n.start()
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
	end()              // or that is still under way, and would take what is changed below with it
	n.start()
	n.until("s1/eth0")
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

// TestTheAPIForgets: what happened while nobody watched, and the API does not know any more, is found by a new list.
func TestTheAPIForgets(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("web", "s1", "eth0")
	n.until("s1/eth0")
	n.watched(1)
	n.api.mu.Lock()
	n.api.refuse["WATCH"] = 1
	n.api.mu.Unlock()
	n.http.CloseClientConnections()
	n.watched(0)
	n.change("s1", "DELETED", func(*danmv1.DanmEp) {})
	n.api.mu.Lock()
	n.api.log = nil
	n.api.mu.Unlock()
	n.until("s1/eth0") // lists go on
}

// TestALateAnswer: what happened to a DanmEp between its creation and the answer is not undone by the answer.
func TestALateAnswer(t *testing.T) {
	n := newNode(t)
	n.start()
	n.add("first", "s0", "eth0")
	n.until("s0/eth0")
	n.watched(1)
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
