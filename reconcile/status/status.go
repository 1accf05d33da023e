// Package status is the one way from an outcome to conditions: Ready, Reconciling and Stalled as kstatus reads them
// (sigs.k8s.io/cli-utils/pkg/kstatus), so that Argo CD, Flux and kubectl wait judge our objects rightly.
package status

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/reconcile/fail"
)

// The condition types that every object of ours has.
const (
	Ready       = "Ready"
	Reconciling = "Reconciling"
	Stalled     = "Stalled"
)

// maxMessage keeps a condition readable and the object small (the API's bound is 32 KiB).
const maxMessage = 1024

// Outcome of one round. Failure nil and Progress "" is success.
type Outcome struct {
	Reason   string // of Ready, when it is true
	Message  string
	Progress string        // a reason: work goes on, nothing is wrong
	Failure  *fail.Failure // why it did not come to its end
}

// Conclude sets the three conditions. Stalled is only there when true, and Reconciling only when work goes on, as kstatus asks.
func Conclude(conditions *[]metav1.Condition, generation int64, o Outcome) {
	switch {
	case o.Failure != nil && o.Failure.Terminal:
		set(conditions, generation, Ready, metav1.ConditionFalse, o.Failure.Reason, o.Failure.Error())
		set(conditions, generation, Stalled, metav1.ConditionTrue, o.Failure.Reason, o.Failure.Error())
		meta.RemoveStatusCondition(conditions, Reconciling)
	case o.Failure != nil:
		set(conditions, generation, Ready, metav1.ConditionFalse, o.Failure.Reason, o.Failure.Error())
		set(conditions, generation, Reconciling, metav1.ConditionTrue, o.Failure.Reason, o.Failure.Error())
		meta.RemoveStatusCondition(conditions, Stalled)
	case o.Progress != "":
		set(conditions, generation, Ready, metav1.ConditionFalse, o.Progress, o.Message)
		set(conditions, generation, Reconciling, metav1.ConditionTrue, o.Progress, o.Message)
		meta.RemoveStatusCondition(conditions, Stalled)
	default:
		set(conditions, generation, Ready, metav1.ConditionTrue, o.Reason, o.Message)
		meta.RemoveStatusCondition(conditions, Reconciling)
		meta.RemoveStatusCondition(conditions, Stalled)
	}
}

// Set is a condition of an object's own, beside the three.
func Set(conditions *[]metav1.Condition, generation int64, name string, is bool, reason, message string) {
	value := metav1.ConditionFalse
	if is {
		value = metav1.ConditionTrue
	}
	set(conditions, generation, name, value, reason, message)
}

func set(conditions *[]metav1.Condition, generation int64, name string, value metav1.ConditionStatus, reason, message string) {
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	meta.SetStatusCondition(conditions, metav1.Condition{Type: name, Status: value, ObservedGeneration: generation, Reason: reason, Message: message})
}
