package tenancy

import (
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/status"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/tenancy"
)

// ConditionOverlapping on a TenantConfig is there while another one may give out the same number on the same device.
const ConditionOverlapping = "Overlapping"

// maxMessage keeps a condition readable.
const maxMessage = 1024

func short(message string) string {
	if len(message) > maxMessage {
		return message[:maxMessage-3] + "..."
	}
	return message
}

// set makes the condition Assigned what the verdict says.
func (v Verdict) set(conditions *[]metav1.Condition) metav1.Condition {
	meta.SetStatusCondition(conditions, metav1.Condition{Type: tenancy.ConditionAssigned, Status: v.Status, Reason: string(v.Reason), Message: v.Message, ObservedGeneration: v.Network.Generation})
	return *meta.FindStatusCondition(*conditions, tenancy.ConditionAssigned)
}

// apply puts a verdict into a TenantConfig's status and says whether that changed it.
func (v ConfigVerdict) apply(c *danmv1.TenantConfig) bool {
	old := c.Status.DeepCopy()
	outcome := status.Outcome{Reason: string(diag.TenantServed), Message: v.Message}
	if v.Problem != "" {
		outcome = status.Outcome{Failure: &fail.Failure{Reason: string(v.Problem), Terminal: true, Err: errors.New(v.Message)}}
	}
	status.Conclude(&c.Status.Conditions, c.Generation, outcome)
	if v.Overlaps == "" {
		meta.RemoveStatusCondition(&c.Status.Conditions, ConditionOverlapping)
	} else {
		status.Set(&c.Status.Conditions, c.Generation, ConditionOverlapping, true, string(diag.RangeOverlap), "numbers in common with "+v.Overlaps)
	}
	c.Status.ObservedGeneration = c.Generation
	return !equality.Semantic.DeepEqual(*old, c.Status)
}
