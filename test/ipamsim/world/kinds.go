package world

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"danm.io/danm/spec/api/v1alpha1"
)

// kind is how the API server treats the objects of a kind.
type kind struct {
	gvk            schema.GroupVersionKind
	resource       schema.GroupResource
	new            func() Object
	status         bool // stands apart, as a subresource
	generation     bool // counts changes of the spec
	createOnUpdate bool // PUT makes what is not there
	unconditional  bool // PUT without a version is taken
	metaAndStatus  bool // an update of the status takes the metadata along
	rules          func(o, old Object) field.ErrorList
}

// The kinds of the world.
const (
	IPBlock  = "IPBlock"
	NodePlan = "NodePlan"
	Lease    = "Lease"
	Node     = "Node"
	Pod      = "Pod"
)

var kinds = map[string]*kind{
	IPBlock: {
		gvk: v1alpha1.GroupVersion.WithKind(IPBlock), resource: schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "ipblocks"},
		new: func() Object { return &v1alpha1.IPBlock{} }, status: true, generation: true, rules: blockRules,
	},
	NodePlan: {
		gvk: v1alpha1.GroupVersion.WithKind(NodePlan), resource: schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "nodeplans"},
		new: func() Object { return &v1alpha1.NodePlan{} }, status: true, generation: true,
	},
	Lease: {
		gvk: coordinationv1.SchemeGroupVersion.WithKind(Lease), resource: schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"},
		new: func() Object { return &coordinationv1.Lease{} }, createOnUpdate: true,
	},
	Node: {
		gvk: corev1.SchemeGroupVersion.WithKind(Node), resource: schema.GroupResource{Resource: "nodes"},
		new: func() Object { return &corev1.Node{} }, status: true, unconditional: true, metaAndStatus: true,
	},
	Pod: {
		gvk: corev1.SchemeGroupVersion.WithKind(Pod), resource: schema.GroupResource{Resource: "pods"},
		new: func() Object { return &corev1.Pod{} }, status: true, generation: true, unconditional: true, metaAndStatus: true,
	},
}

func kindOf(o Object) (*kind, error) {
	name := reflect.TypeOf(o).Elem().Name()
	if k, ok := kinds[name]; ok {
		return k, nil
	}
	return nil, apierrors.NewBadRequest(fmt.Sprintf("no kind %s in this world", name))
}

// set copies Spec or Status of from, or clears it.
func (k *kind) set(part string, o, from Object) {
	to := reflect.ValueOf(o).Elem().FieldByName(part)
	if from == nil {
		to.SetZero()
		return
	}
	to.Set(reflect.ValueOf(from.DeepCopyObject()).Elem().FieldByName(part))
}

func (k *kind) sameSpec(a, b Object) bool {
	spec := func(o Object) any { return reflect.ValueOf(o).Elem().FieldByName("Spec").Interface() }
	return apiequality.Semantic.DeepEqual(spec(a), spec(b))
}

func (k *kind) check(o, old Object) field.ErrorList {
	if k.rules == nil {
		return nil
	}
	return k.rules(o, old)
}

// blockRules are those of the markers in spec/api/v1alpha1/ipblock.go that a program here could break.
func blockRules(object, old Object) (errs field.ErrorList) {
	o := object.(*v1alpha1.IPBlock)
	bad := func(path string, value any, why string) {
		errs = append(errs, field.Invalid(field.NewPath(path), value, why))
	}
	s, st := o.Spec, o.Status
	switch s.Role {
	case v1alpha1.RoleRoot, v1alpha1.RoleBlock, v1alpha1.RoleSingle:
	default:
		bad("spec.role", s.Role, "unsupported value")
	}
	suffix := "-" + strings.NewReplacer("/", "-", ":", "x").Replace(s.CIDR)
	if s.Role != v1alpha1.RoleRoot && !strings.HasSuffix(o.Name, suffix) {
		bad("", o.Name, "an IPBlock is named by its space and range")
	}
	space, serr := netip.ParsePrefix(s.Space.CIDR)
	r, rerr := netip.ParsePrefix(s.CIDR)
	switch {
	case serr != nil || rerr != nil:
		bad("spec.cidr", s.CIDR, "cidr and space.cidr are masked, and cidr lies in the space")
	case space != space.Masked() || r != r.Masked() || r.Bits() < space.Bits() || !space.Contains(r.Addr()):
		bad("spec.cidr", s.CIDR, "cidr and space.cidr are masked, and cidr lies in the space")
	case s.Role == v1alpha1.RoleSingle && !r.IsSingleIP():
		bad("spec.cidr", s.CIDR, "a Single is one address")
	case s.Role == v1alpha1.RoleRoot && s.CIDR != s.Space.CIDR:
		bad("spec.cidr", s.CIDR, "a Root is the whole space")
	}
	if was, ok := old.(*v1alpha1.IPBlock); ok && (s.Space != was.Spec.Space || s.CIDR != was.Spec.CIDR || s.Role != was.Spec.Role) {
		bad("spec", s.CIDR, "space, cidr and role never change")
	}
	if s.BlockBits < 0 || s.BlockBits > 128 {
		bad("spec.blockBits", s.BlockBits, "must be 0 to 128")
	}
	if s.Space.ID < 0 || s.Space.ID > 16777215 {
		bad("spec.space.id", s.Space.ID, "must be 0 to 16777215")
	}
	seen := map[string]bool{}
	for _, c := range s.Ceded {
		if seen["c"+c.Address] || len(c.Address) > 39 || len(c.UID) > 64 {
			bad("spec.ceded", c.Address, "twice, or too long")
		}
		seen["c"+c.Address] = true
	}
	for _, h := range s.Held {
		if seen["h"+h.Address] || len(h.Address) > 39 {
			bad("spec.held", h.Address, "twice, or too long")
		}
		seen["h"+h.Address] = true
	}
	if len(s.Ceded) > 256 || len(s.Held) > 256 || len(st.Free) > 16 || len(st.Offers) > 64 || len(st.Reason) > 512 {
		bad("spec", s.CIDR, "too many items")
	}
	switch st.Answer {
	case "", v1alpha1.AnswerCeded, v1alpha1.AnswerRefused:
	default:
		bad("status.answer", st.Answer, "unsupported value")
	}
	return errs
}
