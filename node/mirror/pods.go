package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"danm.io/danm/node/follow"
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
	Labels         map[string]string
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

	// Changed is told of a Pod that came, went, or has other labels, after it is known; nil = nobody. It is set before Run.
	Changed func(PodInfo)

	next   map[string]PodInfo // of the list in progress
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
	selector := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", p.node).String()}
	follow.Run(ctx, follow.Kind{API: p.api.Resource(podKind), Name: "Pods of this node", Selector: selector, Page: podPage}, (*podListener)(p), p.log)
}

// podListener keeps Pods as the API tells of them.
type podListener Pods

// Begin is follow.Listener's.
func (p *podListener) Begin() { p.next = map[string]PodInfo{} }

// Listed is follow.Listener's.
func (p *podListener) Listed(u *unstructured.Unstructured) { put(p.next, infoOf(u)) }

// End is follow.Listener's.
func (p *podListener) End() {
	p.mu.Lock()
	before := p.byUID
	p.byUID, p.next = p.next, nil
	now := p.byUID
	p.mu.Unlock()
	for uid, info := range now {
		if old, was := before[uid]; uid == info.UID && (!was || !maps.Equal(info.Labels, old.Labels)) {
			p.tell(info)
		}
	}
	for uid, info := range before {
		if _, still := now[uid]; !still && uid == info.UID {
			p.tell(info)
		}
	}
}

// Synced is follow.Listener's.
func (p *podListener) Synced(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.synced = yes
}

// Event is follow.Listener's.
func (p *podListener) Event(kind watch.EventType, u *unstructured.Unstructured) {
	info := infoOf(u)
	p.mu.Lock()
	before, known := p.byUID[info.UID]
	switch kind {
	case watch.Added, watch.Modified:
		put(p.byUID, info)
	case watch.Deleted:
		delete(p.byUID, info.UID)
		if p.byUID[info.Static].UID == info.UID {
			delete(p.byUID, info.Static)
		}
	}
	p.mu.Unlock()
	if !known || kind == watch.Deleted || !maps.Equal(before.Labels, info.Labels) {
		p.tell(info)
	}
}

// tell says who came, went, or has other labels.
func (p *podListener) tell(info PodInfo) {
	if p.Changed != nil {
		p.Changed(info)
	}
}

func put(byUID map[string]PodInfo, info PodInfo) {
	byUID[info.UID] = info
	if info.Static != "" {
		byUID[info.Static] = info
	}
}

func infoOf(u *unstructured.Unstructured) PodInfo {
	out := PodInfo{UID: string(u.GetUID()), Namespace: u.GetNamespace(), Name: u.GetName(), Static: u.GetAnnotations()[annStatic], Labels: u.GetLabels()}
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
