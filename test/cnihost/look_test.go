//go:build linux

package cnihost

import (
	"fmt"
	"os"
	"testing"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// What is seen is what ip(8) was told to make, and what it was not is not there.
func TestKernelSeen(t *testing.T) {
	h := New(t, Options{State: model.NodeState{Node: "n", Slots: 1}})
	ns, err := h.World.Add("looked-at")
	must(t, err)
	_, err = h.Run(ns, `ip link add e0 mtu 1400 type veth peer name e1
ip link add m0 link e0 address 02:00:00:00:00:09 type macvlan mode vepa
ip address add fd00::9/64 dev m0 nodad
ip address add 10.0.0.9/24 dev m0
ip address add 10.0.1.1 peer 10.0.1.2/32 dev e1
ip link set e0 up && ip link set m0 up
ip route add 10.9.0.0/16 via 10.0.0.1
ip route add 10.8.0.0/16 via 10.0.0.1 table 9
ip route add default via 10.0.0.2
ip -6 route add default via fd00::2`)
	must(t, err)
	seen := h.See(ns)
	if got, want := fmt.Sprint(seen.Link("m0")), "{m0 02:00:00:00:00:09 macvlan vepa 0 1400 true [10.0.0.9/24 fd00::9/64]}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if e1 := seen.Link("e1"); e1.Up || e1.Kind != "veth" || fmt.Sprint(e1.Addresses) != "[10.0.1.1/32]" {
		t.Errorf("%+v", e1)
	}
	if got, want := fmt.Sprint(seen.Routes), "[0.0.0.0/0 via 10.0.0.2 dev m0 10.9.0.0/16 via 10.0.0.1 dev m0 ::/0 via fd00::2 dev m0]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if len(h.Records()) != 0 {
		t.Errorf("records %v", h.Records())
	}
}
