package state

import (
	"encoding/json"
	"strings"
	"testing"

	"danm.io/danm/spec/model"
)

// TestPoolsOfTheReleaseBefore: a state that has its pools beside the plan is read, so that a node boots from it after an upgrade; they are
// not written any more.
func TestPoolsOfTheReleaseBefore(t *testing.T) {
	st := sample("r", 1500)
	raw, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(raw), `"confirmTimeout"`, `"pools":[{"name":"fast","pfs":{"names":["ens1"]},"numVFs":8,"resourceName":"danm.io/fast"}],"confirmTimeout"`, 1)
	b, err := Encode(json.RawMessage(old))
	if err != nil {
		t.Fatal(err)
	}
	var got model.NodeState
	if err := Decode("x", b, &got); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(got)
	if err != nil || string(again) != string(raw) {
		t.Errorf("%s %v", again, err)
	}
}
