package devplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const fast = "danm.io/fast"

// TestLife: a resource is registered and told of, its list follows each change and is sorted, and a resource that is taken back is told to
// be empty before its server ends.
func TestLife(t *testing.T) {
	k := newKubelet(t)
	k.start()
	p := k.run(t.TempDir(), nil)
	unhealthy := vf(1, 1, -1)
	unhealthy.Problem = "no carrier"
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 2, 1), vf(1, 0, 0), unhealthy}}, {Name: "danm.io/slow"}})
	eventually(t, "both lists", func() bool {
		return k.last(fast) == "1:[0000:01:02.0@0 0000:01:02.1! 0000:01:02.2@1]" && k.last("danm.io/slow") == "1:[]"
	})
	eventually(t, "what is offered", func() bool {
		return fmt.Sprint(p.Offered()) == "[{danm.io/fast 2 1 true} {danm.io/slow 0 0 true}]"
	})
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}, {Name: "danm.io/slow"}})
	eventually(t, "the change", func() bool { return k.last(fast) == "1:[0000:01:02.0@0]" })
	p.Set([]Resource{{Name: "danm.io/slow"}})
	eventually(t, "its end", func() bool { return k.last(fast) == "1:end" })
	if all := k.heard(fast); all[len(all)-2] != "1:[]" {
		t.Errorf("the kubelet heard %q", all)
	}
	eventually(t, "one socket", func() bool { return len(k.sockets()) == 1 })
	if n := len(k.registrations()); n != 2 {
		t.Errorf("%d registrations", n)
	}
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 3, 0)}}, {Name: "danm.io/slow"}})
	eventually(t, "it back", func() bool { return k.last(fast) == "1:[0000:01:02.3@0]" })
	p.end()
	eventually(t, "no socket", func() bool { return len(k.sockets()) == 0 })
	eventually(t, "the end of the other", func() bool { return k.last("danm.io/slow") == "1:end" }) // a connection's end takes its time
	if all := k.heard("danm.io/slow"); fmt.Sprint(all) != "[1:[] 1:end]" {
		t.Errorf("of the other the kubelet heard %q", all)
	}
}

// TestBackAtOnce: of a resource that is taken back and offered again, the kubelet hears the new list last.
func TestBackAtOnce(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	for i := range 20 {
		want := fmt.Sprintf("1:[0000:01:02.%d@0]", i%8)
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, i%8, 0)}}})
		eventually(t, want, func() bool { return k.last(fast) == want })
		p.Set(nil)
		if i%2 == 0 {
			eventually(t, "nothing under way", func() bool { return len(p.Offered()) == 0 })
		}
	}
	eventually(t, "the end", func() bool { return k.last(fast) == "1:end" })
	all := k.heard(fast)
	for i, what := range all {
		if what == "1:end" && all[i-1] != "1:[]" {
			t.Fatalf("a server ended before the kubelet heard that nothing is offered: %q", all)
		}
	}
}

// TestOneAfterTheOther: a resource that is offered again is registered when its old server has ended, and somebody who connects to that and
// says nothing does not hold it up for long.
func TestOneAfterTheOther(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	for n := 1; n <= 2; n++ {
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, n, 0)}}})
		eventually(t, "the list", func() bool { return k.last(fast) == fmt.Sprintf("1:[0000:01:02.%d@0]", n) })
		began := time.Now()
		silent, err := net.Dial("unix", filepath.Join(k.dir, k.registrations()[n-1].Endpoint))
		must(t, err)
		defer silent.Close()
		_, err = silent.Read(make([]byte, 1)) // a server greets whom it has accepted
		must(t, err)
		p.Set(nil)
		eventually(t, "nothing offered", func() bool { return len(p.Offered()) == 0 && k.last(fast) == "1:end" })
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, n+1, 0)}}})
		eventually(t, "another registration", func() bool { return len(k.registrations()) == n+1 })
		if took := time.Since(began); took < endWithin { // for so long the silent one keeps the old server
			t.Fatalf("another registration after %s, while the old server ended", took)
		}
	}
	began := time.Now()
	if p.end(); time.Since(began) > 2*endWithin {
		t.Errorf("it took %s to end", time.Since(began))
	}
}

// TestSetAgain: a list that is the same is told to nobody.
func TestSetAgain(t *testing.T) {
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	for range 50 {
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	}
	eventually(t, "the list", func() bool { return k.last(fast) != "" })
	for range 50 {
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}})
	}
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 1, 0)}}})
	eventually(t, "the change", func() bool { return k.last(fast) == "1:[0000:01:02.1@0]" })
	if n := len(k.heard(fast)); n != 2 {
		t.Errorf("the kubelet heard %q", k.heard(fast))
	}
}

// TestTold: who waits until a list was told finds the kubelet to have it, a listener that does not take it holds up nobody for longer than it
// is waited, and where nobody listens nobody is waited for.
func TestTold(t *testing.T) {
	k := newKubelet(t)
	p := k.run("", nil)
	told := func(within time.Duration) error {
		ctx, end := context.WithTimeout(t.Context(), within)
		defer end()
		return p.Told(ctx)
	}
	must(t, told(time.Second)) // nothing was said
	list := func(n int) (Resource, string) {
		r, text := Resource{Name: fast}, ""
		for i := range n {
			d := vf(1, 0, -1)
			d.ID = fmt.Sprintf("0000:01:%02x.%d", i/8, i%8)
			r.Devices, text = append(r.Devices, d), text+" "+d.ID
		}
		return r, "1:[" + strings.TrimSpace(text) + "]"
	}
	r, want := list(1)
	p.Set([]Resource{r, {Name: "danm.io/slow"}})
	must(t, told(10*time.Second)) // nobody listens
	k.start()
	eventually(t, "the list", func() bool { return k.last(fast) == want && k.last("danm.io/slow") != "" })
	for n := range 50 {
		r, want = list(n + 2)
		p.Set([]Resource{r, {Name: "danm.io/slow"}})
		must(t, told(10*time.Second))
		eventually(t, fmt.Sprintf("that the kubelet hears of %d devices", n+2), func() bool { return k.last(fast) == want }) // what is sent is on its way
	}
	// One that listens and reads nothing: what is on its way to it fills up.
	stream, err := k.client(fast).ListAndWatch(t.Context(), &deviceplugin.Empty{})
	must(t, err)
	var stuck error
	for n := 0; n < 400 && stuck == nil; n++ {
		r, _ = list(200 + n%2)
		p.Set([]Resource{r, {Name: "danm.io/slow"}})
		stuck = told(100 * time.Millisecond)
	}
	if !errors.Is(stuck, context.DeadlineExceeded) {
		t.Errorf("a listener that takes nothing: %v", stuck)
	}
	must(t, stream.CloseSend())
	k.stop()
	p.end()
	p.Set(nil)
	if err := told(10 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("when nothing runs any more: %v", err)
	}
}

// TestNothingToDo: without a resource nothing is touched, and after Run nothing runs.
func TestNothingToDo(t *testing.T) {
	k := newKubelet(t)
	before := ours()
	p := k.run(filepath.Join(k.dir, "info"), func(o *Options) { o.Look = time.Millisecond })
	p.Set(nil)
	p.Set([]Resource{})
	eventually(t, "that it runs", func() bool { return ours() > before })
	time.Sleep(50 * time.Millisecond)
	if entries, err := os.ReadDir(k.dir); err != nil || len(entries) != 0 {
		t.Errorf("%v %v", entries, err)
	}
	if n := ours() - before; n != 1 {
		t.Errorf("%d goroutines of ours", n)
	}
	k.start()
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0)}}, {Name: "danm.io/slow"}})
	eventually(t, "the list", func() bool { return k.last(fast) != "" && k.last("danm.io/slow") != "" })
	if n := ours() - before; n < 4 {
		t.Errorf("control: %d goroutines of ours", n)
	}
	p.end()
	if n := ours() - before; n != 0 {
		t.Errorf("%d goroutines of ours are left", n)
	}
}

// TestRefusedNames: what no kubelet takes is never asked of one, and said.
func TestRefusedNames(t *testing.T) {
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	p.Set([]Resource{{Name: "cpu"}, {Name: "a/../../b"}, {Name: fast}})
	eventually(t, "the good one", func() bool { return k.last(fast) == "1:[]" })
	if n := len(k.registrations()); n != 1 || p.log.count("not all can be offered") != 2 {
		t.Errorf("%d registrations; the log says\n%s", n, p.log.text.String())
	}
}

// TestLongDirectory: a directory in which no socket can be is said to be one, and a long one has sockets with short names.
func TestLongDirectory(t *testing.T) {
	for _, length := range []int{maxPath - len("/danm--01234567.sock"), maxPath - len("/danm--01234567.sock") + 1} {
		dir := "/" + strings.Repeat("d", length-1)
		name, err := socketName(dir, "danm.io/"+strings.Repeat("n", 63))
		if fits := length+len("/danm--01234567.sock") <= maxPath; fits != (err == nil) || fits && (len(filepath.Join(dir, name)) > maxPath || !ourSocket.MatchString(name)) {
			t.Errorf("%d: %q %v", length, name, err)
		}
	}
	name, err := socketName("/var/lib/kubelet/device-plugins", fast)
	if err != nil || !strings.HasPrefix(name, "danm-fast-") {
		t.Errorf("%q %v", name, err)
	}
}

// TestCalls: what the kubelet asks is answered by what is offered now.
func TestCalls(t *testing.T) {
	k := newKubelet(t)
	k.start()
	p := k.run("", nil)
	bad := vf(1, 1, 0)
	bad.Problem = "its physical function ens1f0 is down"
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, 0), bad, vf(2, 0, 1)}}})
	eventually(t, "the list", func() bool { return k.last(fast) != "" })
	c, ctx := k.client(fast), context.Background()
	ask := func(ids ...string) (*deviceplugin.AllocateResponse, error) {
		return c.Allocate(ctx, &deviceplugin.AllocateRequest{ContainerRequests: []*deviceplugin.ContainerAllocateRequest{{DevicesIds: ids}, {DevicesIds: []string{"0000:01:02.0"}}}})
	}
	got, err := ask("0000:02:02.0", "0000:01:02.0")
	if err != nil || len(got.ContainerResponses) != 2 || got.ContainerResponses[0].Envs["PCIDEVICE_DANM_IO_FAST"] != "0000:01:02.0,0000:02:02.0" || got.ContainerResponses[1].Envs["PCIDEVICE_DANM_IO_FAST"] != "0000:01:02.0" {
		t.Errorf("%v %v", got, err)
	}
	for id, why := range map[string]string{"0000:01:02.1": "0000:01:02.1 of danm.io/fast: the device cannot be had: its physical function ens1f0 is down", "0000:09:02.0": `"0000:09:02.0" of danm.io/fast: no such device`} {
		if _, err := ask("0000:01:02.0", id); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", id, err)
		}
	}
	preferred, err := c.GetPreferredAllocation(ctx, &deviceplugin.PreferredAllocationRequest{ContainerRequests: []*deviceplugin.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: []string{"0000:02:02.0", "0000:01:02.0"}, MustIncludeDeviceIDs: []string{"0000:02:02.0"}, AllocationSize: 1},
		{AvailableDeviceIDs: []string{"0000:02:02.0", "0000:01:02.0"}, AllocationSize: 2}}})
	if r := preferred.GetContainerResponses(); err != nil || len(r) != 2 || fmt.Sprint(r[0].DeviceIDs, r[1].DeviceIDs) != "[0000:02:02.0] [0000:01:02.0 0000:02:02.0]" {
		t.Errorf("%v %v", preferred, err)
	}
	if _, err := c.GetPreferredAllocation(ctx, &deviceplugin.PreferredAllocationRequest{ContainerRequests: []*deviceplugin.ContainerPreferredAllocationRequest{{MustIncludeDeviceIDs: []string{"0000:02:02.0"}}}}); err == nil {
		t.Error("more must be than may")
	}
	if _, err := ask(strings.Repeat("x", maxRequest)); err == nil || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a request without bounds: %.200v", err)
	}
}
