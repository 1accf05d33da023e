package devplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func infoNames(t testing.TB, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func put(t testing.TB, dir, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

// TestInfoFiles: each device of ours has its file, what an earlier process left of our resources goes, and others' files stay.
func TestInfoFiles(t *testing.T) {
	dir := t.TempDir()
	others := []string{"intel.com-fast-0000:01:02.0-device.json", "danm.io-fast-mlx5_0-device.json", "danm.io-faster-0000:01:02.5-device.json",
		"danm.io-fast-0000:01:02.5-device.json.bak", "danm.io-fast-0000:01:02.5", "danm.io-slow-0000:01:02.5-device.json"}
	for _, name := range others {
		put(t, dir, name, "theirs")
	}
	put(t, dir, "danm.io-fast-0000:01:02.7-device.json", "left over")
	put(t, dir, ".danm-device-123", "cut off")
	put(t, dir, "danm.io-fast-0000:01:02.0-device.json", "cut off")
	// A pipe where a file is to be would hold up whoever opened it.
	must(t, syscall.Mkfifo(filepath.Join(dir, "danm.io-fast-0000:01:02.1-device.json"), 0o600))
	plain, rdma := vf(1, 0, 0), vf(1, 1, 0)
	plain.PF, rdma.RDMA = "ens1f0", []string{"mlx5_2", "mlx5_3"}
	f := infoFiles{dir: dir}
	r := []Resource{{Name: fast, Devices: []Device{plain, rdma}}}
	must(t, f.sync(r))
	want := append([]string{"danm.io-fast-0000:01:02.0-device.json", "danm.io-fast-0000:01:02.1-device.json"}, others...)
	if slices.Sort(want); !slices.Equal(infoNames(t, dir), want) {
		t.Errorf("there are %q", infoNames(t, dir))
	}
	for name, text := range map[string]string{"danm.io-fast-0000:01:02.0-device.json": `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:02.0"}}`,
		"danm.io-fast-0000:01:02.1-device.json": `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:01:02.1","pf-pci-address":"0000:01:00.0","rdma-device":"mlx5_2"}}`} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		is, _ := os.Stat(filepath.Join(dir, name))
		if err != nil || string(b) != text || is.Mode() != 0o644 {
			t.Errorf("%s: %s %v %v", name, b, is.Mode(), err)
		}
	}
	before, err := os.Stat(filepath.Join(dir, "danm.io-fast-0000:01:02.0-device.json"))
	must(t, err)
	must(t, f.sync(r))
	if after, err := os.Stat(filepath.Join(dir, "danm.io-fast-0000:01:02.0-device.json")); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that is right was written again: %v", err)
	}
	must(t, f.sync([]Resource{{Name: fast, Devices: []Device{rdma}}}))
	must(t, f.sync(nil))
	if !slices.Equal(infoNames(t, dir), slices.Sorted(slices.Values(others))) {
		t.Errorf("left are %q", infoNames(t, dir))
	}
}

// TestInfoIsWhole: whoever reads while a file is replaced sees the one text or the other.
func TestInfoIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "danm.io-fast-0000:01:02.0-device.json")
	a, b := vf(1, 0, 0), vf(1, 0, 0)
	b.PF = "0000:0f:00.0" // as long
	f := infoFiles{dir: dir}
	must(t, f.sync([]Resource{{Name: fast, Devices: []Device{a}}}))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		torn := 0
		for !closed(stop) {
			if text, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(text), `:00.0"}}`) {
				torn++
			}
		}
		done <- torn
	}()
	for range 500 {
		must(t, f.sync([]Resource{{Name: fast, Devices: []Device{b}}}))
		must(t, f.sync([]Resource{{Name: fast, Devices: []Device{a}}}))
	}
	close(stop)
	if n := <-done; n > 0 {
		t.Errorf("%d times the file was not whole", n)
	}
	if names := infoNames(t, dir); len(names) != 1 {
		t.Errorf("there are %q", names)
	}
}

// TestInfoBeforeOffer: when the kubelet hears of a device, its file is there; one that somebody removes comes back.
func TestInfoBeforeOffer(t *testing.T) {
	k := newKubelet(t)
	k.start()
	info := filepath.Join(t.TempDir(), "run", "dp")
	p := k.run(info, func(o *Options) { o.Look, o.LookInfo = 20*time.Millisecond, 50*time.Millisecond })
	for n := range 8 {
		p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, n, -1)}}})
		list, file := "1:["+vf(1, n, -1).ID+"]", filepath.Join(info, "danm.io-fast-"+vf(1, n, -1).ID+"-device.json")
		for k.last(fast) != list { // not a moment is lost
			time.Sleep(50 * time.Microsecond)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("offered without a file: %v", err)
		}
	}
	file := filepath.Join(info, infoNames(t, info)[0])
	must(t, os.Remove(file))
	eventually(t, "the file again", func() bool { _, err := os.Stat(file); return err == nil })
}

// TestInfoIsLookedAtRarely: neither by the clock nor when a device's health changes, which files do not tell; a list that needs another file
// is looked at as a whole.
func TestInfoIsLookedAtRarely(t *testing.T) {
	k := newKubelet(t)
	k.start()
	info := t.TempDir()
	p := k.run(info, func(o *Options) { o.Look = 10 * time.Millisecond })
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, -1)}}})
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0]" })
	must(t, os.Remove(filepath.Join(info, infoNames(t, info)[0])))
	time.Sleep(200 * time.Millisecond)
	ill := vf(1, 0, -1)
	ill.Problem = "x"
	p.Set([]Resource{{Name: fast, Devices: []Device{ill}}})
	eventually(t, "its illness", func() bool { return k.last(fast) == "1:[0000:01:02.0!]" })
	if names := infoNames(t, info); len(names) != 0 {
		t.Errorf("there are %q", names)
	}
	file := filepath.Join(info, "danm.io-fast-0000:01:02.0-device.json") // by its name: while it is written, it has another
	for n, change := range []func(*Device){func(d *Device) { d.PF = "0000:0f:00.0" }, func(d *Device) { d.RDMA = []string{"mlx5_2"} }} {
		change(&ill)
		p.Set([]Resource{{Name: fast, Devices: []Device{ill}}})
		eventually(t, fmt.Sprint("the file ", n), func() bool { _, err := os.Stat(file); return err == nil })
		must(t, os.Remove(file))
	}
	p.Set([]Resource{{Name: fast, Devices: []Device{ill, vf(1, 1, -1)}}})
	eventually(t, "both files", func() bool { return len(infoNames(t, info)) == 2 })
}

// TestInfoCannotBe: where nothing can be written, the devices are offered all the same, and it is said once.
func TestInfoCannotBe(t *testing.T) {
	t.Parallel()
	k := newKubelet(t)
	k.start()
	notADir := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(notADir, nil, 0o600))
	p := k.run(filepath.Join(notADir, "dp"), func(o *Options) { o.Look = 20 * time.Millisecond })
	p.Set([]Resource{{Name: fast, Devices: []Device{vf(1, 0, -1)}}})
	eventually(t, "the list", func() bool { return k.last(fast) == "1:[0000:01:02.0]" })
	time.Sleep(200 * time.Millisecond)
	if n := p.log.count("may not find out about their devices"); n != 1 {
		t.Errorf("said %d times:\n%s", n, p.log.text.String())
	}
}
