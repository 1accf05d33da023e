package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"danm.io/danm/spec/annotation"
)

// PodInfo is what is kept of one Pod.
type PodInfo struct {
	UID, Namespace, Name string
	// Static is the UID by which the runtime knows a static Pod: its object in the API is a mirror with a UID of its own.
	Static         string
	StatefulSet    string // name of the owner, "" = none
	StatefulSetUID string
	Phase          string
	Annotations    map[string]string // those of annotation.Keys that it has, nil for none
}

// ErrNoPod says that the API has no such Pod.
var ErrNoPod = errors.New("no such Pod in the API")

const (
	podPage   = 25 // Pods in one answer: a whole list of big ones would cost megabytes for a moment
	annStatic = "kubernetes.io/config.mirror"
)

var podKind = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// Pods knows the Pods of one node. See NewPods.
type Pods struct {
	api  dynamic.Interface
	node string
	log  *slog.Logger

	mu     sync.Mutex
	byUID  map[string]PodInfo // by either UID
	synced bool
}

// NewPods is told about the Pods of a node by Run. Until then it knows none, and says so.
func NewPods(config *rest.Config, node string, log *slog.Logger) (*Pods, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 500, 1000 // the server has its own fairness; after a boot all Pods of a node come at once
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API: %w", err)
	}
	return newPods(api, node, log), nil
}

func newPods(api dynamic.Interface, node string, log *slog.Logger) *Pods {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Pods{api: api, node: node, log: log, byUID: map[string]PodInfo{}}
}

// Synced says whether what Known tells is the API's word now: everything was listed, and changes are being watched.
func (p *Pods) Synced() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.synced
}

// Known finds a Pod of this node by its UID, or a static Pod by the UID that its runtime knows it by. It tells what was known last
// while the API is away; see Synced.
func (p *Pods) Known(uid string) (PodInfo, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, ok := p.byUID[uid]
	return info, ok
}

// Get asks the API itself for one Pod, for a node that has not been told of it yet. Errors: ErrNoPod, or why there is no answer.
func (p *Pods) Get(ctx context.Context, namespace, name string) (PodInfo, error) {
	u, err := p.api.Resource(podKind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return PodInfo{}, fmt.Errorf("pod %s/%s: %w", namespace, name, ErrNoPod)
	}
	if err != nil {
		return PodInfo{}, fmt.Errorf("read Pod %s/%s: %w", namespace, name, err)
	}
	return infoOf(u), nil
}

// statusKey is the annotation by which the NPWG's dialect tells what a Pod got (multi-net-spec v1.3, section 5).
const statusKey = "k8s.v1.cni.cncf.io/network-status"

// SetNetworkStatus writes what a Pod got into its annotation, if its object still has this UID. Errors: ErrNoPod, also where another Pod
// has the name now; or why it could not be written.
func (p *Pods) SetNetworkStatus(ctx context.Context, namespace, name, uid, status string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid, "annotations": map[string]string{statusKey: status}}})
	if err != nil {
		return err
	}
	_, err = p.api.Resource(podKind).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case apierrors.IsNotFound(err) || isOfUID(err):
		return fmt.Errorf("network-status of Pod %s/%s: %w: %w", namespace, name, ErrNoPod, err)
	case err != nil:
		return fmt.Errorf("write network-status of Pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

// isOfUID says whether a change was refused because it would change the UID, which says that the object is another one.
func isOfUID(err error) bool {
	status := apierrors.APIStatus(nil)
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "metadata.uid" })
}

// Run lists and watches until ctx ends.
func (p *Pods) Run(ctx context.Context) {
	pause, said := time.Duration(0), ""
	for ctx.Err() == nil {
		began := time.Now()
		err := p.follow(ctx)
		p.setSynced(false)
		if time.Since(began) > time.Minute {
			pause = 0
		}
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			p.log.Warn("Pods of this node are not watched", "reason", said)
		}
		pause = min(2*pause+time.Second, mostPause)
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

func (p *Pods) setSynced(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synced = yes
}

func (p *Pods) options() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", p.node).String()}
}

// follow lists once and watches from there for as long as the API goes on.
func (p *Pods) follow(ctx context.Context) error {
	version, err := p.list(ctx)
	if err != nil {
		return fmt.Errorf("list Pods: %w", err)
	}
	for ctx.Err() == nil {
		began := time.Now()
		if version, err = p.watchFrom(ctx, version); err != nil {
			return fmt.Errorf("watch Pods: %w", err)
		}
		if time.Since(began) < time.Second {
			return errors.New("watch Pods: the API ends it at once")
		}
	}
	return nil
}

// list replaces what is known by what the API has, page by page; an error in between changes nothing.
func (p *Pods) list(ctx context.Context) (version string, err error) {
	byUID, o := map[string]PodInfo{}, p.options()
	o.Limit = podPage
	for {
		page, cancel := context.WithTimeout(ctx, 30*time.Second)
		list, err := p.api.Resource(podKind).List(page, o)
		cancel()
		if err != nil {
			return "", err
		}
		for i := range list.Items {
			put(byUID, infoOf(&list.Items[i]))
		}
		if o.Continue = list.GetContinue(); o.Continue == "" {
			version = list.GetResourceVersion()
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byUID = byUID
	return version, nil
}

// watchFrom follows one watch to its end, and returns where the next one begins. The API ends it after watchFor.
func (p *Pods) watchFrom(ctx context.Context, version string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, watchFor+establish)
	defer cancel()
	patience := time.AfterFunc(establish, cancel)
	o, seconds := p.options(), int64(watchFor.Seconds())
	o.ResourceVersion, o.TimeoutSeconds, o.AllowWatchBookmarks = version, &seconds, true
	w, err := p.api.Resource(podKind).Watch(ctx, o)
	if err != nil {
		return version, err
	}
	defer w.Stop()
	patience.Stop()
	p.setSynced(true)
	for e := range w.ResultChan() {
		if e.Type == watch.Error {
			return version, apierrors.FromObject(e.Object)
		}
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok {
			return version, fmt.Errorf("event of a %T", e.Object)
		}
		version = u.GetResourceVersion()
		p.event(e.Type, u)
	}
	return version, ctx.Err()
}

func (p *Pods) event(kind watch.EventType, u *unstructured.Unstructured) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch info := infoOf(u); kind {
	case watch.Added, watch.Modified:
		put(p.byUID, info)
	case watch.Deleted:
		delete(p.byUID, info.UID)
		if p.byUID[info.Static].UID == info.UID {
			delete(p.byUID, info.Static)
		}
	}
}

func put(byUID map[string]PodInfo, info PodInfo) {
	byUID[info.UID] = info
	if info.Static != "" {
		byUID[info.Static] = info
	}
}

func infoOf(u *unstructured.Unstructured) PodInfo {
	out := PodInfo{UID: string(u.GetUID()), Namespace: u.GetNamespace(), Name: u.GetName(), Static: u.GetAnnotations()[annStatic]}
	for _, key := range annotation.Keys {
		if text, has := u.GetAnnotations()[key]; has {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[key] = text
		}
	}
	out.Phase, _, _ = unstructured.NestedString(u.Object, "status", "phase")
	for _, o := range u.GetOwnerReferences() {
		if o.Kind == "StatefulSet" && strings.HasPrefix(o.APIVersion, "apps/") && o.Controller != nil && *o.Controller {
			out.StatefulSet, out.StatefulSetUID = o.Name, string(o.UID)
		}
	}
	return out
}
