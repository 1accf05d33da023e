package model

import (
	"testing"
	"time"
	"unsafe"
)

func TestRulesHold(t *testing.T) {
	debug = testing.Verbose() && false
	for _, sc := range Scenarios() {
		t.Run(sc.Name, func(t *testing.T) {
			t.Log(unsafe.Sizeof(State{}))
			start := time.Now()
			r := Explore(&sc, Options{Most: 300000})
			t.Logf("%d states, %d steps, depth %d, %v", r.States, r.Steps, r.Depth, time.Since(start).Round(time.Millisecond))
			if r.Violation != "" {
				t.Errorf("%s:\n%v\n%+v", r.Violation, Tell(&sc, Rules{}, r.Story), r.Last)
			}
		})
	}
}
