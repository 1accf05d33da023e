// Package v1alpha1 is danm.io/v1alpha1, the API of the cluster home: NetworkBundle says where a bundle comes from and what
// became of it, NodePlan and PlanSegment carry to each node what its kernel should have, FabricPeers where the others are, and
// IPBlock whose an address range is.
//
// Users write NetworkBundles; the rest is the controller's, and a NodePlan's status the node's. The types depend on
// apimachinery alone. What a bundle's documents mean is not said here (spec/bundle/v1).
//
// +kubebuilder:object:generate=true
// +groupName=danm.io
package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The API's group and version, and its kinds.
const (
	Group             = "danm.io"
	Version           = "v1alpha1"
	APIVersion        = Group + "/" + Version
	KindNetworkBundle = "NetworkBundle"
	KindNodePlan      = "NodePlan"
	KindPlanSegment   = "PlanSegment"
	KindFabricPeers   = "FabricPeers"
	KindIPBlock       = "IPBlock"
)

// GroupVersion of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// AddToScheme makes the kinds known to clients.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &NetworkBundle{}, &NetworkBundleList{}, &NodePlan{}, &NodePlanList{},
		&PlanSegment{}, &PlanSegmentList{}, &FabricPeers{}, &FabricPeersList{}, &IPBlock{}, &IPBlockList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}

// What people and the controller write on objects.
const (
	// AnnotationRequestedAt asks for a round now; any new value does.
	AnnotationRequestedAt = "reconcile.danm.io/requestedAt"
	// AnnotationRetry lifts the quarantine of the plan digest it names.
	AnnotationRetry = "danm.io/retry"
	// LabelBundle on objects made from a bundle names the NetworkBundle, hashed if it is longer than a label value may be.
	LabelBundle = "danm.io/bundle"
	// AnnotationOrigin is "file:line" of the document an object was made from.
	AnnotationOrigin = "danm.io/origin"
	// LabelSource on ConfigMaps names the NetworkBundle whose files they hold, as LabelValue writes it; danmctl pack sets it.
	LabelSource = "danm.io/source"
	// LabelSourceDigest on ConfigMaps is the beginning of the digest of all files that belong together.
	LabelSourceDigest = "danm.io/source-digest"
	// AnnotationParts on ConfigMaps says how many of them hold the bundle together: fewer are no bundle.
	AnnotationParts = "danm.io/source-parts"
	// Finalizer keeps a NetworkBundle until what it made is gone, or is left on purpose.
	Finalizer = "danm.io/bundle"
	// FieldManager owns the fields the controller applies.
	FieldManager = "danm-controller"
)

// LabelValue is a name as a label may hold it: itself if it has at most 63 bytes, else 16 hexadecimal digits of its digest.
func LabelValue(name string) string {
	if len(name) <= 63 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// ShortRevision is a revision for people: "main@3f2c9d1" of "main@sha1:3f2c9d1…".
func ShortRevision(revision string) string {
	name, id, ok := strings.Cut(revision, "@")
	if !ok {
		name, id = "", revision
	}
	if _, digits, ok := strings.Cut(id, ":"); ok {
		id = digits
	}
	if id = id[:min(7, len(id))]; name == "" {
		return id
	}
	return name + "@" + id
}

// ShortID is a revision without the name of what it is on: "3f2c9d1" of "main@sha1:3f2c9d1…".
func ShortID(revision string) string {
	short := ShortRevision(revision)
	if i := strings.LastIndex(short, "@"); i >= 0 {
		return short[i+1:]
	}
	return short
}
