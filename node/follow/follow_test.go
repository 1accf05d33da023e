package follow

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// notes is a listener that writes down what it is told.
type notes struct {
	mu   sync.Mutex
	said []string
}

func (n *notes) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, fmt.Sprintf(format, args...))
}
func (n *notes) Begin()                              { n.note("begin") }
func (n *notes) Listed(u *unstructured.Unstructured) { n.note("%s", u.GetName()) }
func (n *notes) End()                                { n.note("end") }
func (n *notes) Synced(yes bool)                     { n.note("synced %v", yes) }
func (n *notes) Event(kind watch.EventType, u *unstructured.Unstructured) {
	n.note("%s %s", kind, u.GetName())
}

func (n *notes) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.said)
}

func thing(name, version string) string {
	return fmt.Sprintf(`{"apiVersion":"x/v1","kind":"Thing","metadata":{"name":%q,"resourceVersion":%q}}`, name, version)
}

// TestFollow: one life of an API that lists in pages, watches, ends a watch after a bookmark, and forgets; each answer is scripted, and
// what is asked is what the API's conventions want: the next watch begins where the last one ended, a forgotten version leads to a list.
func TestFollow(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		mu.Lock()
		what := fmt.Sprintf("list limit=%s continue=%s", q.Get("limit"), q.Get("continue"))
		if q.Get("watch") != "" {
			what = fmt.Sprintf("watch from=%s bookmarks=%s", q.Get("resourceVersion"), q.Get("allowWatchBookmarks"))
		}
		asked = append(asked, what+" "+q.Get("labelSelector"))
		step := len(asked)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		list := func(more, version, items string) {
			fmt.Fprintf(w, `{"apiVersion":"x/v1","kind":"ThingList","metadata":{"continue":%q,"resourceVersion":%q},"items":[%s]}`, more, version, items)
		}
		event := func(kind, object string) { fmt.Fprintf(w, `{"type":%q,"object":%s}`+"\n", kind, object) }
		switch step {
		case 1:
			list("c1", "4", thing("a", "1")+","+thing("b", "2"))
		case 2: // a list that breaks off counts for nothing
			http.Error(w, "away", http.StatusServiceUnavailable)
		case 3:
			list("c1", "4", thing("a", "1")+","+thing("b", "2"))
		case 4:
			list("", "5", thing("c", "3"))
		case 5:
			event("ADDED", thing("d", "6"))
			event("BOOKMARK", thing("", "9"))
			w.(http.Flusher).Flush()
			time.Sleep(1100 * time.Millisecond) // a watch that ends at once is an error
		case 6:
			event("DELETED", thing("d", "10"))
			event("ERROR", `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410}`)
		case 7:
			list("", "20", thing("e", "19"))
		case 8: // not there for a moment: nobody has to list for that
			http.Error(w, "away", http.StatusServiceUnavailable)
		default:
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
	}))
	defer api.Close()
	client, err := dynamic.NewForConfig(&rest.Config{Host: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	n, done := &notes{}, make(chan struct{})
	go func() {
		Run(ctx, Kind{API: client.Resource(schema.GroupVersionResource{Group: "x", Version: "v1", Resource: "things"}), Name: "things", Selector: metav1.ListOptions{LabelSelector: "a=b"}, Page: 2}, n,
			slog.New(slog.NewTextHandler(&log, nil)))
		close(done)
	}()
	want := []string{"begin", "a", "b", "synced false", "begin", "a", "b", "c", "end", "synced true", "ADDED d", "synced true", "DELETED d", "synced false", "begin", "e", "end", "synced false", "synced true"}
	for end := time.Now().Add(30 * time.Second); len(n.all()) < len(want) && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
	}
	cancel()
	<-done
	if got := n.all(); !slices.Equal(got, append(want, "synced false")) {
		t.Errorf("said\n%q, want\n%q", got, want)
	}
	wantAsked := []string{"list limit=2 continue= a=b", "list limit=2 continue=c1 a=b", "list limit=2 continue= a=b", "list limit=2 continue=c1 a=b",
		"watch from=5 bookmarks=true a=b", "watch from=9 bookmarks=true a=b", "list limit=2 continue= a=b", "watch from=20 bookmarks=true a=b", "watch from=20 bookmarks=true a=b"}
	if !slices.Equal(asked, wantAsked) {
		t.Errorf("asked\n%q, want\n%q", asked, wantAsked)
	}
	if text := log.String(); !strings.Contains(text, "things are not watched") || !strings.Contains(text, "list things") || !strings.Contains(text, "watch things") {
		t.Error(text)
	}
}
