package endpoints

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	danmv1 "danm.io/danm/spec/danm/v1"
)

// server is an API that knows DanmEps alone, by the API's documents: versions, conflicts, preconditions, watches.
type server struct {
	mu      sync.Mutex
	version int
	objects map[string]danmv1.DanmEp // by namespace/name
	log     []told
	watches map[chan []byte]bool
	refuse  map[string]int                    // status by method
	writes  map[string]int                    // by method
	late    func(key string, e danmv1.DanmEp) // called before a creation is answered
}

// told is an event; a watch that begins at an earlier version is told of it, too.
type told struct {
	version int
	text    []byte
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
	s.log = append(s.log, told{s.version, b})
	for w := range s.watches {
		w <- b
	}
	return e
}

func (s *server) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 1000)
	s.mu.Lock()
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if s.refuse["WATCH"] != 0 || err != nil {
		s.mu.Unlock()
		fmt.Fprintln(w, `{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"Expired","code":410}}`)
		return
	}
	s.watches[events] = true
	for _, e := range s.log {
		if e.version > from {
			events <- e.text
		}
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches, events)
	}()
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
