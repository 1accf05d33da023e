package agent

import (
	"testing"

	"danm.io/danm/spec/model"
)

// Pods stand on what the kernel calls a device, not on what the bundle does.
func TestDevicesHaveTheKernelsNames(t *testing.T) {
	st := model.NodeState{
		Plan: model.NodePlan{Links: []model.Link{{Name: "fab0", Kind: model.Physical, Match: &model.Match{MAC: "02:00:00:00:00:01"}}, {Name: "eth1", Kind: model.Physical},
			{Name: "gone", Kind: model.Physical, Match: &model.Match{Name: "x"}}, {Name: "voice.7", Kind: model.VLAN, Parent: "fab0"}}},
		Networks: []model.Network{{Name: "a", Device: "fab0"}, {Name: "b", Device: "eth1"}, {Name: "c", Device: "gone"}, {Name: "d", Device: "voice.7"}},
	}
	if _, ok := named(st, nil); ok {
		t.Error("ready before the kernel was seen")
	}
	a := &Agent{}
	for _, seen := range []map[string]string{{"fab0": "ens1", "gone": "ens5"}, {}, {"fab0": "ens2"}} {
		a.learnNames(seen)
	}
	a.confirmed.Store(&st)
	got, ok := a.Confirmed()
	for i, want := range []string{"ens2", "eth1", "ens5", "voice.7"} {
		if !ok || got.Networks[i].Device != want {
			t.Errorf("%s: %q, want %q", got.Networks[i].Name, got.Networks[i].Device, want)
		}
	}
	if st.Networks[0].Device != "fab0" {
		t.Error("the shared state was changed")
	}
	st.Networks = st.Networks[1:2]
	if _, ok := named(st, nil); !ok {
		t.Error("not ready although no device is matched")
	}
	b := &Agent{}
	b.learnNames(nil)
	if names := b.names.Load(); names == nil || len(*names) != 0 {
		t.Error("what was seen without any match is not remembered as seen")
	}
}
