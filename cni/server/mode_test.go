package server

import (
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// A network whose ipvlan mode has changed is not attached while Pods have the device in the other mode: the kernel would change theirs.
func TestOneModeOfIPVLANOnADevice(t *testing.T) {
	n := newNode(t, nil)
	mode := func(kind model.NetworkType, mode string) {
		n.networks(func(list []model.Network) []model.Network {
			for i := range list {
				if list[i].Name == "data" {
					list[i].Type, list[i].Mode = kind, mode
				}
			}
			return list
		})
	}
	add := func(c string) string {
		if _, e := n.call(request("ADD", c, "acme", "u"+c, oneData)); e != nil {
			return e.Details + " " + e.Msg
		}
		return ""
	}
	mode(model.IPVLAN, "")
	if got := add("a"); got != "" {
		t.Fatal(got)
	}
	mode(model.IPVLAN, model.L3)
	for _, restarted := range []bool{false, true} {
		if restarted {
			n.restart(func(*Options) {})
		}
		if got := add("b"); !strings.HasPrefix(got, string(diag.PodModeBusy)) || !strings.Contains(got, "in mode l3") || !strings.Contains(got, "in mode l2") || len(n.records()) != 1 {
			t.Fatalf("restarted %v: %q, records %v", restarted, got, n.records())
		}
	}
	mode(model.MACVLAN, model.VEPA) // the kernel's own word against it; not this rule's
	if got := add("c"); got != "" {
		t.Fatal(got)
	}
	mode(model.IPVLAN, model.L3)
	for _, c := range []string{"a", "c"} {
		if _, e := n.call(request("DEL", c, "acme", "u"+c, oneData)); e != nil {
			t.Fatal(e)
		}
	}
	if got := add("b"); got != "" {
		t.Fatalf("when they have gone: %s", got)
	}
}
