package server

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/cni/attach"
)

// holding is the record of a key, as the sweeper sees it.
func (n *node) holding(key string) Holding {
	n.t.Helper()
	list, err := n.server.Holdings()
	must(n.t, err)
	i := slices.IndexFunc(list, func(h Holding) bool { return h.Key == key })
	if i < 0 {
		n.t.Fatalf("no record %s among %v", key, n.records())
	}
	return list[i]
}

func TestGCFreesWhatIsNotValid(t *testing.T) {
	n := newNode(t, nil)
	var counted []string // by GC, which runs in this goroutine
	n.restart(func(o *Options) { o.Reclaimed = func(reason string) { counted = append(counted, reason) } })
	for _, c := range []string{"keep", "gone", "stuck"} {
		if _, e := n.call(request("ADD", c, "acme", "u"+c, oneData)); e != nil {
			t.Fatal(e)
		}
	}
	other := request("ADD", "other", "acme", "uother", oneData)
	other.Stdin = []byte(strings.Replace(string(other.Stdin), `"name":"danm"`, `"name":"second"`, 1))
	if _, e := n.call(other); e != nil {
		t.Fatal(e)
	}
	for _, ifName := range []string{"net1", "net2"} {
		for _, c := range []string{"keep", "gone"} {
			if _, e := n.call(asIPAM("ADD", c, ifName, "u"+c, ofData)); e != nil {
				t.Fatal(e)
			}
		}
	}
	n.fake.onDetach(func() error { return fmt.Errorf("of all: %w", errInjected) })
	if err := n.server.GC(t.Context(), "danm", []string{"keep", "unheard of"}); err == nil || strings.Count(err.Error(), "injected") != 2 || len(n.records()) != 8 {
		t.Errorf("links that stay: %v, records %v", err, n.records())
	}
	n.fake.onDetach(nil)
	unlock, _ := n.server.locks.tryLock(lockOf("stuck")) // an ADD of it is in progress
	must(t, n.server.GC(t.Context(), "danm", []string{"keep", "unheard of"}))
	if want := []string{"gone/net1", "gone/net2", "keep", "keep/net1", "keep/net2", "other", "stuck"}; !slices.Equal(n.records(), want) {
		t.Errorf("records %v, want %v", n.records(), want)
	}
	if !slices.Equal(n.fake.sandboxes(), []string{"keep", "other", "stuck"}) || !slices.Equal(counted, []string{"gc"}) {
		t.Errorf("links of %v, counted %v", n.fake.sandboxes(), counted)
	}
	unlock()
	// Of another plugin's interfaces each has a lock of its own, and the container's counts too.
	unlock, _ = n.server.locks.tryLock(lockOf("gone/net1"))
	unlockKeep, _ := n.server.locks.tryLock(lockOf("keep"))
	must(t, n.server.GC(t.Context(), "plain", nil))
	if want := []string{"gone/net1", "keep", "keep/net1", "keep/net2", "other", "stuck"}; !slices.Equal(n.records(), want) {
		t.Errorf("records %v, want %v", n.records(), want)
	}
	unlock()
	unlockKeep()
	must(t, n.server.GC(t.Context(), "plain", nil))
	must(t, n.server.GC(t.Context(), "danm", nil))
	if !slices.Equal(n.records(), []string{"other"}) {
		t.Errorf("records %v", n.records())
	}
	if len(n.server.locks.held) != 0 {
		t.Errorf("locks are held: %v", n.server.locks.held)
	}
}

// What was seen may have been replaced by the time that it is acted on.
func TestReclaimWantsTheSameRecord(t *testing.T) {
	n := newNode(t, nil)
	add := func() {
		if _, e := n.call(request("ADD", "c", "acme", "u", oneData)); e != nil {
			t.Fatal(e)
		}
	}
	add()
	seen := n.holding("c")
	if seen.PodUID != "u" || seen.Container != "c" || seen.Foreign || seen.Conf != "danm" || seen.Pod != "pod-c" {
		t.Errorf("%+v", seen)
	}
	if _, e := n.call(request("DEL", "c", "acme", "u", oneData)); e != nil {
		t.Fatal(e)
	}
	if done, err := n.server.Reclaim(t.Context(), seen); done || err != nil {
		t.Errorf("gone: %v, %v", done, err)
	}
	add() // with another MAC
	if done, err := n.server.Reclaim(t.Context(), seen); done || err != nil || len(n.records()) != 1 || seen.Same(n.holding("c")) {
		t.Errorf("another: %v, %v, records %v", done, err, n.records())
	}
	if done, err := n.server.Reclaim(t.Context(), n.holding("c")); !done || err != nil || len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 {
		t.Errorf("%v, %v, records %v", done, err, n.records())
	}
	if _, e := n.call(asIPAM("ADD", "c", "net1", "", `{"type":"danm","network":"data"}`)); e != nil {
		t.Fatal(e)
	}
	if h := n.holding("c/net1"); h.PodUID != "" || h.Container != "c" || !h.Foreign || h.Conf != "plain" {
		t.Errorf("without a Pod: %+v", h)
	}
}

func TestNetnsGone(t *testing.T) {
	n := newNode(t, nil)
	dir := t.TempDir()
	f, err := os.Open("/proc/self/ns/net")
	must(t, err)
	defer f.Close()
	id, err := attach.Identity(f)
	must(t, err)
	plain := filepath.Join(dir, "plain")
	must(t, os.WriteFile(plain, nil, 0o600))
	n.server.opts.BootID, n.server.opts.SysRoot = "now", "/"
	for _, r := range []struct {
		what string
		h    Holding
		gone bool
	}{
		{"there", Holding{netns: "/proc/self/ns/net", netnsID: id}, false},
		{"there, of this boot", Holding{netns: "/proc/self/ns/net", netnsID: id, Boot: "now"}, false},
		{"there again after a reboot", Holding{netns: "/proc/self/ns/net", netnsID: id, Boot: "before"}, true},
		{"another one", Holding{netns: "/proc/self/ns/net", netnsID: "1:2"}, true},
		{"the file that one was mounted on", Holding{netns: plain, netnsID: id}, true},
		{"removed", Holding{netns: filepath.Join(dir, "none"), netnsID: id}, true},
		{"where we do not see", Holding{netns: filepath.Join(dir, "no", "such", "directory"), netnsID: id}, false},
		{"a process that ended", Holding{netns: "/proc/4194999/ns/net", netnsID: id}, true}, // beyond pid_max
		{"not known", Holding{netnsID: id}, false},
		{"not known which", Holding{netns: plain}, false},
	} {
		if got := n.server.NetnsGone(r.h); got != r.gone {
			t.Errorf("%s: %v", r.what, got)
		}
	}
	// In a container the host's processes are found below the host's root alone.
	n.server.opts.SysRoot = filepath.Join(dir, "host")
	if n.server.NetnsGone(Holding{netns: "/proc/4194999/ns/net", netnsID: id}) {
		t.Error("a process is gone in a /proc that is not there")
	}
	must(t, os.MkdirAll(filepath.Join(dir, "host/proc/self"), 0o700))
	if !n.server.NetnsGone(Holding{netns: "/proc/1/ns/net", netnsID: id}) {
		t.Error("a process of this /proc counts for the host's")
	}
	n.server.opts.BootID = ""
	if n.server.Rebooted(Holding{Boot: "before"}) {
		t.Error("rebooted, and nobody knows which boot this is")
	}
}

// Calls, GC and the sweeper at once: whoever has an answer keeps it, and in the end all is free.
func TestReclaimBesideCalls(t *testing.T) {
	n := newNode(t, nil)
	stop := make(chan struct{})
	var sweeping, calling sync.WaitGroup
	sweeping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := n.server.GC(t.Context(), "danm", []string{"c0", "c1"}); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	})
	for i := range 6 {
		calling.Go(func() {
			c := fmt.Sprintf("c%d", i)
			for range 20 {
				if _, e := n.call(request("ADD", c, "acme", "u"+c, oneData)); e != nil {
					t.Error(e)
				}
				if _, e := n.call(request("CHECK", c, "acme", "u"+c, oneData)); e != nil && i < 2 {
					t.Errorf("a valid container lost its record: %v", e)
				}
				if _, e := n.call(request("DEL", c, "acme", "u"+c, oneData)); e != nil {
					t.Error(e)
				}
			}
		})
	}
	calling.Wait()
	close(stop)
	sweeping.Wait()
	if _, clashes := n.fake.log(); len(clashes) > 0 || len(n.records()) != 0 || len(n.fake.sandboxes()) != 0 {
		t.Errorf("clashes %v, records %v, links of %v", clashes, n.records(), n.fake.sandboxes())
	}
}

// A real namespace ends without a DEL: its record is known for an orphan's, the host's end of its cable goes, the address is free.
func TestKernelReclaim(t *testing.T) {
	n := newRuntimeNode(t)
	in := `[{"tenantNetwork":"port","ip":"10.4.0.9"}]`
	ns, rt := n.pod("gone")
	_, rtKeep := n.pod("keep")
	_, err := n.cni.AddNetworkList(t.Context(), n.conf("1.0.0", in), rt)
	must(t, err)
	_, err = n.cni.AddNetworkList(t.Context(), n.conf("1.0.0", oneData), rtKeep)
	must(t, err)
	if n.server.NetnsGone(n.holding("gone")) || n.server.NetnsGone(n.holding("keep")) {
		t.Error("gone while they live")
	}
	must(t, n.world.Remove(ns))
	h := n.holding("gone")
	if !n.server.NetnsGone(h) || n.server.NetnsGone(n.holding("keep")) {
		t.Error("the end of a namespace is not seen, or another's is")
	}
	done, err := n.server.Reclaim(t.Context(), h)
	must(t, err)
	if !done || !slices.Equal(n.records(), []string{"keep"}) {
		t.Errorf("done %v, records %v", done, n.records())
	}
	dump, err := n.host.Dump()
	must(t, err)
	if strings.Contains(dump, "link "+attach.HostLinkName("gone", "eth0")) {
		t.Errorf("the host's end is left:\n%s", dump)
	}
	_, rtNew := n.pod("new")
	_, err = n.cni.AddNetworkList(t.Context(), n.conf("1.0.0", in), rtNew)
	must(t, err)
	// A namespace that lives is left by DEL's way: links first.
	live := n.holding("new")
	done, err = n.server.Reclaim(t.Context(), live)
	must(t, err)
	if dump, err = n.host.Dump(); err != nil || !done || strings.Contains(dump, attach.HostLinkName("new", "eth0")) {
		t.Errorf("%v %v\n%s", done, err, dump)
	}
}
