package devplugin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKubeletRestarts: each new kubelet hears of all resources, long before anybody looks by the clock.
func TestKubeletRestarts(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}, {Name: "danm.io/slow", Devices: []Device{vf(1, 1, 0)}}})
	for n := 1; n <= 4; n++ {
		eventually(t, fmt.Sprintf("kubelet %d", n), func() bool {
			return k.last(fast) == fmt.Sprintf("%d:[0000:01:02.0@0]", n) && k.last("danm.io/slow") == fmt.Sprintf("%d:[0000:01:02.1@0]", n)
		})
		k.stop()
		if n%2 == 0 {
			time.Sleep(300 * time.Millisecond) // away for some tries
		}
		k.start()
	}
}

// TestKubeletStartsBeside: one that starts while another still listens removes sockets, and it is the new one that counts.
func TestKubeletStartsBeside(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" })
	old := k.server
	t.Cleanup(old.Stop)
	k.start()
	eventually(t, "the list at the new one", func() bool { return slices.Contains(k.heard(fast), "2:[0000:01:02.0@0]") })
	eventually(t, "one socket", func() bool { return len(k.sockets()) == 1 })
}

// TestKubeletsSocketIsAnother: a kubelet that listens anew is registered at, though nothing else has changed.
func TestKubeletsSocketIsAnother(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" })
	old := k.server
	t.Cleanup(old.Stop)
	k.listenAnew()
	eventually(t, "the list at the new one", func() bool { return slices.Contains(k.heard(fast), "2:[0000:01:02.0@0]") })
}

// TestKubeletAway: one that comes later is registered at, soon after it has come, and one that refuses is asked again.
func TestKubeletAway(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	socketsMade := k.creations()
	var failed, worked atomic.Int32
	k.setRefuse(true)
	p := k.run("", func(o *Options) {
		o.Registered = func(resource string, err error) {
			if resource != fast {
				t.Errorf("registered %q", resource)
			}
			if err != nil {
				failed.Add(1)
			} else {
				worked.Add(1)
			}
		}
	})
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	time.Sleep(7 * time.Second) // by now the pauses are longer than six seconds
	made := socketsMade()
	k.start()
	came := time.Now()
	if made != 0 {
		t.Errorf("%d sockets were made for a kubelet that may remove them when it starts", made)
	}
	eventually(t, "a try", func() bool { return failed.Load() > 0 })
	if took := time.Since(came); took > 4*time.Second {
		t.Errorf("it was tried %s after the kubelet came", took)
	}
	if fmt.Sprint(p.Offered()) != "[{danm.io/fast 1 0 false}]" {
		t.Errorf("offered %v", p.Offered())
	}
	k.setRefuse(false)
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" })
	eventually(t, "what is said", func() bool { return worked.Load() == 1 && p.log.count(`msg="registered at the kubelet"`) == 1 })
	if n := p.log.count("not registered at the kubelet"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestNoEvents: where the directory appears later, and so nothing tells of it, it is found by looking.
func TestNoEvents(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	must(t, os.Remove(k.dir))
	p := k.run("", func(o *Options) { o.Look = 50 * time.Millisecond })
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	time.Sleep(200 * time.Millisecond)
	must(t, os.Mkdir(k.dir, 0o700))
	k.start()
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" })
}

// TestConnectionBreaks: a kubelet that no longer listens, though nothing else has changed, is registered at again.
func TestConnectionBreaks(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	for n := 1; n <= 3; n++ {
		eventually(t, "the list", func() bool { return len(k.registrations()) == n && k.last(fast) == "1:[0000:01:02.0@0]" })
		eventually(t, "that it is known", func() bool { return p.Offered()[0].Connected })
		k.mu.Lock()
		k.hangUp[fast+k.requests[n-1].Endpoint]()
		k.mu.Unlock()
	}
}

// TestWatch: what happens to sockets is told, also in a directory that appears later; other files there are nobody's concern.
func TestWatch(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "later")
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told := watch(ctx, &running, Options{Dir: dir, Look: 10 * time.Millisecond}, slog.New(slog.DiscardHandler))
	hears := func(within time.Duration) bool {
		select {
		case <-told:
			return true
		case <-time.After(within):
			return false
		}
	}
	must(t, os.Mkdir(dir, 0o700))
	if !hears(5 * time.Second) {
		t.Fatal("the directory was not found")
	}
	for _, name := range []string{"kubelet.sock", "danm-fast-01234567.sock"} {
		put(t, dir, name, "")
		if !hears(5 * time.Second) {
			t.Errorf("%s was not seen", name)
		}
		must(t, os.Remove(filepath.Join(dir, name)))
		if !hears(5 * time.Second) {
			t.Errorf("the end of %s was not seen", name)
		}
	}
	put(t, dir, "kubelet_internal_checkpoint", "x") // the kubelet writes it each time a container gets a device
	if hears(200 * time.Millisecond) {
		t.Error("the kubelet's own files wake it")
	}
}

// TestSocketGone: a socket that somebody removes is replaced, under another name.
func TestSocketGone(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	eventually(t, "the list", func() bool { return k.last(fast) != "" })
	must(t, os.Remove(filepath.Join(k.dir, k.sockets()[0])))
	eventually(t, "another registration", func() bool { return len(k.registrations()) == 2 })
	eventually(t, "the list again", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" && len(k.heard(fast)) == 3 })
	if r := k.registrations(); r[0].Endpoint == r[1].Endpoint {
		t.Errorf("the name %s is used twice", r[0].Endpoint)
	}
}

// TestLeftOver: what a killed process left is removed; what others have, and what somebody listens on, is not.
func TestLeftOver(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	left := func(name string, live bool) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(k.dir, name), Net: "unix"})
		must(t, err)
		l.SetUnlinkOnClose(false)
		if live {
			t.Cleanup(func() { _ = l.Close() })
			return
		}
		must(t, l.Close())
	}
	left("danm-fast-0123abcd.sock", false)
	left("danm-slow-ffffffff.sock", false)
	left("danm-fast-00000000.sock", true)
	left("intel.com_fast.sock", false)
	must(t, os.WriteFile(filepath.Join(k.dir, "danm-file-00000001.sock"), nil, 0o600))
	p := k.run("", nil)
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" })
	mine := k.registrations()[0].Endpoint
	want := []string{"danm-fast-00000000.sock", mine, "intel.com_fast.sock"}
	if slices.Sort(want); !slices.Equal(k.sockets(), want) {
		t.Errorf("there are %q, not %q", k.sockets(), want)
	}
	if _, err := os.Stat(filepath.Join(k.dir, "danm-file-00000001.sock")); err != nil {
		t.Error(err)
	}
}

// TestRestart: another process takes over at once from one that ended, at the same kubelet.
func TestRestart(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	info := t.TempDir()
	for i := range 5 {
		want := fmt.Sprintf("1:[0000:01:02.%d@0]", i)
		p := k.run(info, nil)
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, i, 0)}}})
		eventually(t, want, func() bool { return k.last(fast) == want })
		p.end()
		if files := infoNames(t, info); fmt.Sprint(files) != fmt.Sprintf("[danm.io-fast-0000:01:02.%d-device.json]", i) {
			t.Errorf("files %q", files)
		}
	}
}
