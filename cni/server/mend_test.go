package server

import (
	"context"
	"errors"
	"testing"
)

// TestMend: interfaces are looked at when the host link under them is another one, and only then; what fails is looked at
// again, and so is a sandbox in the middle of a call.
func TestMend(t *testing.T) {
	n := newNode(t, nil)
	for _, c := range []string{"a", "b"} {
		if _, e := n.call(request("ADD", c, "acme", "u-"+c, oneData)); e != nil {
			t.Fatal(e)
		}
	}
	lose := func(index int) {
		n.fake.set(func(f *fakeAttacher) {
			f.index, f.lost, f.looked = map[string]int{"eth0": index}, map[string]bool{}, 0
			for sandbox, in := range f.live {
				f.lost[sandbox+"/"+in[0].IfName] = true
			}
		})
	}
	mend := func(what string, want, looked int) {
		t.Helper()
		got, err := n.server.Mend(context.Background())
		n.fake.set(func(f *fakeAttacher) {
			if err != nil || got != want || f.looked != looked {
				t.Errorf("%s: mended %d of %d, looked %d times, %v", what, got, want, f.looked, err)
			}
			f.looked = 0
		})
	}
	lose(0)
	mend("without its host link", 0, 0)
	lose(7)
	mend("the link is another one", 2, 2)
	mend("the same link", 0, 0)
	lose(8)
	unlock, free := n.server.locks.tryLock("sandbox/a")
	if !free {
		t.Fatal("the lock is held")
	}
	if _, free := n.server.locks.tryLock("sandbox/a"); free {
		t.Error("a lock was given twice")
	}
	mend("one is busy", 1, 1)
	unlock()
	mend("free again", 1, 2)
	lose(9)
	n.fake.set(func(f *fakeAttacher) { f.mend = errors.New("no") })
	if _, err := n.server.Mend(context.Background()); err == nil {
		t.Error("the failure is not told")
	}
	n.fake.set(func(f *fakeAttacher) { f.mend, f.looked = nil, 0 })
	mend("after a failure", 2, 2)
	for _, c := range []string{"a", "b"} {
		if _, e := n.call(request("DEL", c, "acme", "u-"+c, oneData)); e != nil {
			t.Fatal(e)
		}
	}
	lose(10)
	mend("nobody is attached", 0, 0)
}
