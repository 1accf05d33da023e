// Package follow tells somebody about the objects of one kind in an API, for as long as it runs: it lists them page by page, watches
// from there, and begins again when the API has forgotten where it was. It keeps no object, so who listens decides what memory costs.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

const (
	// watchFor bounds one watch, establish the wait for the server's first answer.
	watchFor  = 5 * time.Minute
	establish = 10 * time.Second
	// pageTime bounds one page of a list.
	pageTime = 30 * time.Second
	// mostPause is between two tries while an error stands: every node of a cluster may have it.
	mostPause = 30 * time.Second
)

// Listener is told what there is. All calls come one after another.
type Listener interface {
	// Begin starts a list; a list that was begun and not ended counts for nothing.
	Begin()
	// Listed is one object of the list.
	Listed(*unstructured.Unstructured)
	// End says that the list is complete: what it had not is gone.
	End()
	// Event is a change since.
	Event(watch.EventType, *unstructured.Unstructured)
	// Synced says whether what was told is the API's word now: all was listed and changes are being watched.
	Synced(bool)
}

// Kind is what is followed.
type Kind struct {
	API  dynamic.ResourceInterface
	Name string // for people: "Pods of this node"
	// Selector is sent with each list and watch.
	Selector metav1.ListOptions
	Page     int64 // objects in one answer of a list
	// FromCache begins with what the API server has in memory, which may be a little old; the watch makes up for it. Without, a list is
	// read from etcd, by every node of a cluster at once when its API server was started.
	FromCache bool
}

// Run tells l until ctx ends. An API that is away is waited for, and asked for what happened since; only one that does not know that any
// more has to list everything again.
func Run(ctx context.Context, k Kind, l Listener, log *slog.Logger) {
	pause, said, version := time.Duration(0), "", ""
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if version, err = k.follow(ctx, l, version); apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			version = ""
		}
		l.Synced(false)
		if time.Since(began) > time.Minute {
			pause = 0
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			log.Warn(k.Name+" are not watched", "reason", said)
		}
		pause = min(2*pause+time.Second, mostPause)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)): //nolint:gosec // a pause is no secret
		}
	}
}

// follow watches from a version, or lists first if there is none, for as long as the API goes on, and returns where it came to.
func (k Kind) follow(ctx context.Context, l Listener, version string) (string, error) {
	var err error
	if version == "" {
		if version, err = k.list(ctx, l); err != nil {
			return "", fmt.Errorf("list %s: %w", k.Name, err)
		}
	}
	for ctx.Err() == nil {
		began := time.Now()
		if version, err = k.watch(ctx, l, version); err != nil {
			return version, fmt.Errorf("watch %s: %w", k.Name, err)
		}
		if time.Since(began) < time.Second {
			return version, fmt.Errorf("watch %s: the API ends it at once", k.Name)
		}
	}
	return version, nil
}

func (k Kind) list(ctx context.Context, l Listener) (version string, err error) {
	l.Begin()
	for o := k.Selector; ; {
		if o.Limit = k.Page; k.FromCache && o.Continue == "" {
			o.ResourceVersion = "0"
		} else {
			o.ResourceVersion = ""
		}
		page, cancel := context.WithTimeout(ctx, pageTime)
		list, err := k.API.List(page, o)
		cancel()
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			l.Listed(&list.Items[i])
		}
		if o.Continue = list.GetContinue(); o.Continue == "" {
			l.End()
			return list.GetResourceVersion(), nil
		}
	}
}

// watch follows one watch to its end, and returns where the next one begins. The API ends it after watchFor.
func (k Kind) watch(ctx context.Context, l Listener, version string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, watchFor+establish)
	defer cancel()
	patience := time.AfterFunc(establish, cancel)
	o, seconds := k.Selector, int64(watchFor.Seconds())
	o.ResourceVersion, o.TimeoutSeconds, o.AllowWatchBookmarks = version, &seconds, true
	w, err := k.API.Watch(ctx, o)
	if err != nil {
		return version, err
	}
	defer w.Stop()
	patience.Stop()
	l.Synced(true)
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return version, apierrors.FromObject(e.Object)
		}
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			return version, errors.New("an event without an object")
		}
		if version = u.GetResourceVersion(); e.Type != watch.Bookmark {
			l.Event(e.Type, u)
		}
	}
	return version, ctx.Err()
}
