package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IPBlock is a range of addresses that one node hands out from, or a single address that one node has from another's range,
// or the root of a space, which says how the space is cut. Its name says space and range, so making it is claiming it. Only
// its owner writes it; an owner "" is the controller. It outlives the networks on its space.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=ipblocks,shortName=ipb
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=CIDR,type=string,JSONPath=`.spec.cidr`
// +kubebuilder:printcolumn:name=Role,type=string,JSONPath=`.spec.role`
// +kubebuilder:printcolumn:name=Owner,type=string,JSONPath=`.spec.owner`
// +kubebuilder:printcolumn:name=Domain,type=string,JSONPath=`.spec.space.domain`
// +kubebuilder:printcolumn:name=ID,type=integer,JSONPath=`.spec.space.id`
// +kubebuilder:printcolumn:name=Used,type=integer,JSONPath=`.status.used`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.endsWith('-' + self.spec.cidr.replace('/', '-').replace(':', 'x')) || self.spec.role == 'Root'",message="an IPBlock is named by its space and range"
type IPBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is the range and whose it is.
	// +required
	Spec IPBlockSpec `json:"spec"`
	// Status is what is said of it.
	// +optional
	Status IPBlockStatus `json:"status,omitzero"`
}

// IPBlockList is a list of them.
//
// +kubebuilder:object:root=true
type IPBlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IPBlock `json:"items"`
}

// The roles of an IPBlock.
const (
	// RoleRoot is the root of a space, made by the controller before anybody claims: how the space is cut, hints, counts.
	RoleRoot = "Root"
	// RoleBlock is a block of a space's grid. Its owner hands its addresses out.
	RoleBlock = "Block"
	// RoleSingle is one address that lies in a block of another owner: asked for, then ceded.
	RoleSingle = "Single"
)

// What an IPBlock carries beside its spec.
const (
	// IPFinalizer keeps an IPBlock until its owner has no use for any address of it.
	IPFinalizer = "danm.io/addresses"
	// LabelSpace is the hash of the space.
	LabelSpace = "danm.io/space"
	// LabelOwner is the owner's name as LabelValue writes it, "" for the controller.
	LabelOwner = "danm.io/owner"
	// LabelAsked on a Single is the owner of the block it lies in, as LabelValue writes it: who has to answer.
	LabelAsked = "danm.io/asked"
	// AnnotationClosing on a root says since when (RFC 3339) it is about to go: it was deleted, and its space is empty. Nodes claim
	// nothing by it.
	AnnotationClosing = "danm.io/closing"
	// AnnotationWaiting on a root says since when (RFC 3339) nodes wait for a check after the API went back in time. Nodes that know
	// nothing of that themselves, because they have no memory of before, claim nothing either.
	AnnotationWaiting = "danm.io/waiting"
	// LabelReservation on a Single is the hash of its reservation.
	LabelReservation = "danm.io/reservation"
)

// IPBlockSpec is a range of addresses and whose it is.
//
// +kubebuilder:validation:XValidation:rule="isCIDR(self.cidr) && isCIDR(self.space.cidr) && cidr(self.cidr).masked() == cidr(self.cidr) && cidr(self.space.cidr).masked() == cidr(self.space.cidr) && cidr(self.space.cidr).containsCIDR(self.cidr)",message="cidr and space.cidr are masked, and cidr lies in the space"
// +kubebuilder:validation:XValidation:rule="!isCIDR(self.cidr) || self.role != 'Single' || cidr(self.cidr).prefixLength() == (cidr(self.cidr).ip().family() == 4 ? 32 : 128)",message="a Single is one address"
// +kubebuilder:validation:XValidation:rule="self.role != 'Root' || self.cidr == self.space.cidr",message="a Root is the whole space"
// +kubebuilder:validation:XValidation:rule="self.space == oldSelf.space && self.cidr == oldSelf.cidr && self.role == oldSelf.role",message="space, cidr and role never change"
type IPBlockSpec struct {
	// Role is Root, Block or Single.
	// +required
	// +kubebuilder:validation:Enum=Root;Block;Single
	Role string `json:"role"`
	// Space in which the addresses are unique.
	// +required
	Space IPSpace `json:"space"`
	// CIDR of the range, masked.
	// +required
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr"`
	// Owner is the node that writes this object and hands the addresses out; "" is the controller.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Owner string `json:"owner,omitempty"`
	// Identity of the owner when it claimed: machine and Node object.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Identity string `json:"identity,omitempty"`
	// Epoch of the owner when it claimed.
	// +optional
	Epoch int64 `json:"epoch,omitempty"`
	// BlockBits in a root: the prefix length of the space's blocks. It never changes while the root is there.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=128
	BlockBits int32 `json:"blockBits,omitempty"`
	// Asked in a Single: the node that owned the block around the address when it was asked for, "" for the controller.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Asked string `json:"asked,omitempty"`
	// Before is the UID of the object whose place this one takes: its node made it again when etcd had been set back.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Before string `json:"before,omitempty"`
	// Ceded are the addresses of a Block that others have, each as a Single.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=256
	Ceded []IPCession `json:"ceded,omitempty"`
	// Held are the addresses of a controller's Block that Pods have from before: imported ones.
	// +optional
	// +listType=map
	// +listMapKey=address
	// +kubebuilder:validation:MaxItems=256
	Held []IPHolder `json:"held,omitempty"`
	// Reservation of a Single: for whom it is kept while no Pod has it.
	// +optional
	Reservation *IPReservation `json:"reservation,omitempty"`
}

// IPSpace is where an address is unique: a broadcast domain and a CIDR.
type IPSpace struct {
	// Domain is the fabric or host device.
	// +required
	// +kubebuilder:validation:MaxLength=512
	Domain string `json:"domain"`
	// ID is the VLAN id or VNI, 0 = untagged.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16777215
	ID int64 `json:"id"`
	// VXLAN says that ID is a VNI.
	// +optional
	VXLAN bool `json:"vxlan,omitempty"`
	// CIDR of the space, masked.
	// +required
	// +kubebuilder:validation:MaxLength=43
	CIDR string `json:"cidr"`
}

// IPCession is an address that another node has.
type IPCession struct {
	// Address without prefix length.
	// +required
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address"`
	// UID of the Single that asked for it.
	// +required
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`
	// Node that asked.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
}

// IPHolder is a Pod that has an address from before DANM's blocks.
type IPHolder struct {
	// Address without prefix length.
	// +required
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address"`
	// Namespace of the Pod, "" if unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Namespace string `json:"namespace,omitempty"`
	// Pod by name, "" if unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Pod string `json:"pod,omitempty"`
	// UID of the Pod, "" if unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
	// Node of the Pod, "" if unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`
}

// IPReservation says for which Pod of a StatefulSet an address is kept.
type IPReservation struct {
	// Namespace of the StatefulSet.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Namespace string `json:"namespace"`
	// StatefulSet by name, for people.
	// +required
	// +kubebuilder:validation:MaxLength=253
	StatefulSet string `json:"statefulSet"`
	// UID of the StatefulSet.
	// +required
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid"`
	// Ordinal of the Pod.
	// +required
	Ordinal int32 `json:"ordinal"`
	// IfName is the interface.
	// +required
	// +kubebuilder:validation:MaxLength=15
	IfName string `json:"ifName"`
}

// The answers to a Single.
const (
	AnswerCeded   = "Ceded"   // the owner's block lists it: the address is the asker's
	AnswerRefused = "Refused" // the address is not to be had now
)

// IPBlockStatus is what is said of an IPBlock: answers by who was asked, hints and counts by the controller.
type IPBlockStatus struct {
	// Answer to a Single: Ceded or Refused. What counts is the list in the owner's block.
	// +optional
	// +kubebuilder:validation:Enum=Ceded;Refused
	Answer string `json:"answer,omitempty"`
	// Reason of a refusal, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason,omitempty"`
	// Free in a root: ranges ("first-last") in which blocks are unclaimed, at most 16: where to look first.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=96
	Free []string `json:"free,omitempty"`
	// FreeBlocks in a root: how many blocks are unclaimed, saturating at 2^53.
	// +optional
	FreeBlocks int64 `json:"freeBlocks,omitempty"`
	// Offers in a root: addresses that other nodes could cede, told when hardly any block is unclaimed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Offers []IPOffer `json:"offers,omitempty"`
	// Used in a root: addresses that Pods have.
	// +optional
	Used int64 `json:"used,omitempty"`
	// Capacity in a root: addresses in the pools of the space's networks, saturating at 2^53.
	// +optional
	Capacity int64 `json:"capacity,omitempty"`
	// UnusedSince in a root: since when no network is on the space.
	// +optional
	UnusedSince *metav1.Time `json:"unusedSince,omitempty"`
}

// IPOffer is an address that its owner could cede.
type IPOffer struct {
	// Address without prefix length.
	// +required
	// +kubebuilder:validation:MaxLength=39
	Address string `json:"address"`
	// Owner of the block around it, "" for the controller.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Owner string `json:"owner,omitempty"`
}

// Hash of the space as names and labels of its IPBlocks have it: 16 hexadecimal digits.
func (s IPSpace) Hash() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{s.Domain, strconv.FormatInt(s.ID, 10), strconv.FormatBool(s.VXLAN), s.CIDR}, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// BlockName is the name of the IPBlock of a range of the space.
func (s IPSpace) BlockName(p netip.Prefix) string {
	return s.Hash() + "-" + strings.NewReplacer("/", "-", ":", "x").Replace(p.Masked().String())
}

// RootName is the name of the space's root.
func (s IPSpace) RootName() string { return s.Hash() + "-root" }

// Range is the object's range and its space's CIDR, if it says what an IPBlock can say: both are masked and of one family, the range
// lies in the space, a Single is one address and a Root the whole space, cut into blocks that it can have; and its name is that of
// its space and range. What any other object says means nothing: whoever writes one may be compromised, and by a name that is not
// its own it could speak of what is another's.
func (b *IPBlock) Range() (space, r netip.Prefix, err error) {
	s := b.Spec.Space
	space, err = netip.ParsePrefix(s.CIDR)
	if err != nil {
		return space, r, fmt.Errorf("IPBlock %q: its space: %w", b.Name, err)
	}
	if r, err = netip.ParsePrefix(b.Spec.CIDR); err != nil {
		return space, r, fmt.Errorf("IPBlock %q: %w", b.Name, err)
	}
	name, fits := s.BlockName(r), false
	switch b.Spec.Role {
	case RoleRoot:
		bits := int(b.Spec.BlockBits)
		name, fits = s.RootName(), r == space && bits >= space.Bits() && bits <= space.Addr().BitLen()
	case RoleBlock:
		fits = true
	case RoleSingle:
		fits = r.IsSingleIP()
	}
	canonical := space == space.Masked() && s.CIDR == space.String() && r == r.Masked() && b.Spec.CIDR == r.String()
	if !fits || !canonical || b.Name != name || r.Bits() < space.Bits() || !space.Contains(r.Addr()) {
		return space, r, fmt.Errorf("IPBlock %q is not what %s %s of space %q is called, or says", b.Name, b.Spec.Role, r, s)
	}
	return space, r, nil
}

// String is the space for people: "edge vlan 310 10.40.0.0/22".
func (s IPSpace) String() string {
	switch {
	case s.VXLAN:
		return fmt.Sprintf("%s vxlan %d %s", s.Domain, s.ID, s.CIDR)
	case s.ID != 0:
		return fmt.Sprintf("%s vlan %d %s", s.Domain, s.ID, s.CIDR)
	}
	return s.Domain + " " + s.CIDR
}

// Hash of a reservation as LabelReservation has it, with the space's: 16 hexadecimal digits.
func (r IPReservation) Hash(s IPSpace) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{s.Hash(), r.Namespace, r.UID, strconv.Itoa(int(r.Ordinal)), r.IfName}, "\x00")))
	return hex.EncodeToString(sum[:8])
}
