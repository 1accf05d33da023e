package argocd

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Same is what Argo CD calls each verdict of kstatus.
var Same = map[status.Status]string{
	status.CurrentStatus: "Healthy", status.InProgressStatus: "Progressing", status.FailedStatus: "Degraded", status.TerminatingStatus: "Progressing",
}

// Judge is kstatus's verdict on an object, in Argo CD's words. kstatus is the library that Flux and kubectl plugins judge with; it
// shares no code with the scripts.
func Judge(object any) (string, error) {
	b, err := json.Marshal(object)
	if err != nil {
		return "", err
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(b); err != nil { // whole numbers stay whole
		return "", err
	}
	r, err := status.Compute(u)
	if err != nil {
		return "", err
	}
	return Same[r.Status], nil
}
