package tenancy

import (
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestFailuresAreTriedAgainWithinAMinute(t *testing.T) {
	l := limiter()
	for range 100 {
		if d := l.When(reconcile.Request{}); d > time.Minute {
			t.Fatalf("a pause of %s", d)
		}
	}
}
