package ipamsim

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"danm.io/danm/ipam"
)

func file(t *testing.T, p *process, name string, content []byte, sync bool) {
	t.Helper()
	f, err := p.Create(name)
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil && sync {
		err = errors.Join(f.Sync(), p.Sync())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, p *process, name string) []byte {
	t.Helper()
	f, err := p.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	n, _ := f.Size()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && n > 0 {
		t.Fatal(err)
	}
	return b
}

// What is synced survives everything; what is not, survives a process, and a power cut now and then, in part.
func TestDiskPowerCut(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(300) {
		d := NewDisk()
		p := d.Process(0, nil, nil)
		file(t, p, "a", bytes.Repeat([]byte{1}, 2000), true)
		f, _ := p.Open("a")
		_, _ = f.WriteAt(bytes.Repeat([]byte{2}, 2000), 0)
		file(t, p, "b", []byte("new"), false)
		_ = p.Rename("a", "c")
		p.Kill()
		if q := d.Process(0, nil, nil); content(t, q, "c")[0] != 2 || string(content(t, q, "b")) != "new" {
			t.Fatal("a killed process took its writes along")
		}
		d.PowerCut(rand.New(rand.NewPCG(seed, 1)))
		q := d.Process(0, nil, nil)
		a, b, c := content(t, q, "a"), content(t, q, "b"), content(t, q, "c")
		if (a == nil) == (c == nil) || b == nil && c != nil {
			t.Fatalf("names a %v, b %v, c %v: not in the order of the changes", a != nil, b != nil, c != nil)
		}
		old := append(a, c...)
		if len(old) != 2000 || bytes.Count(old, []byte{1})+bytes.Count(old, []byte{2}) != 2000 {
			t.Fatalf("%d bytes, of which some were never written", len(old))
		}
		switch n := bytes.Count(old, []byte{2}); {
		case n == 0:
			outcomes["nothing"]++
		case n == 2000:
			outcomes["everything"]++
		default:
			outcomes["some sectors"]++
		}
		if c != nil {
			outcomes["renamed"]++
		}
	}
	if len(outcomes) != 4 {
		t.Errorf("of the outcomes only %v", outcomes)
	}
}

func TestDiskFaults(t *testing.T) {
	d := NewDisk()
	died := 0
	p := d.Process(3, func() bool { return false }, func() { died++ })
	f, err := p.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("two"), 3); !errors.Is(err, ErrKilled) || died != 1 {
		t.Errorf("the last write: %v, died %d times", err, died)
	}
	if _, err := f.WriteAt([]byte("three"), 6); !errors.Is(err, ErrKilled) {
		t.Errorf("after it: %v", err)
	}
	p = d.Process(0, func() bool { return true }, nil)
	if got := content(t, p, "a"); string(got) != "onetwo" {
		t.Errorf("%q, want what was written up to the end", got)
	}
	d.Limit(2)
	f, _ = p.Open("a")
	if n, err := f.WriteAt([]byte("abcdef"), 6); !errors.Is(err, ErrFull) || n >= 6 {
		t.Errorf("on a full disk: %d bytes, %v", n, err)
	}
	d.Limit(-1)
	p.FailAfter(1)
	if _, err := f.WriteAt([]byte("abcdef"), 6); !errors.Is(err, ErrIO) {
		t.Errorf("the failing write: %v", err)
	}
	if _, err := f.WriteAt([]byte("abcdef"), 6); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// A snapshot is what was durable; a lost journal is known to be lost unless the mark is gone too.
func TestDiskImages(t *testing.T) {
	d := NewDisk()
	open := func() error {
		s, err := ipam.OpenOn(d.Process(0, nil, nil), ipam.Options{}, journalSizes)
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	image := d.Image()
	d.Lose(false)
	if err := open(); !errors.Is(err, ipam.ErrCorrupt) {
		t.Errorf("without its journal: %v", err)
	}
	d.Become(image)
	if err := open(); err != nil {
		t.Errorf("restored: %v", err)
	}
	d.Lose(true)
	if err := open(); err != nil {
		t.Errorf("as new: %v", err)
	}
}
