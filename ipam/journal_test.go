package ipam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func reopen(d *memDisk) (*Service, error) {
	opts := newClock().options()
	opts.extendBy = 4096
	return open(d, opts)
}

// journalOf makes a journal of a few transactions and returns its bytes and, after each transaction, its end and records.
func journalOf(t *testing.T) (image []byte, ends []int64, states [][]Record) {
	t.Helper()
	d := newMemDisk(1)
	s := must(reopen(d))
	defer s.Close()
	n := network("voice", "10.0.0.0/24", "fd00::/64")
	note := func() {
		ends = append(ends, s.j.cur.end)
		states = append(states, must(s.List()))
	}
	note()
	for i := range 4 {
		in := intent(fmt.Sprint("S", i), fmt.Sprint("U", i), want("eth0", n, dynamic, dynamic))
		if i == 2 { // over several sectors
			in.Record = func([]Grant) ([]byte, error) { return bytes.Repeat([]byte("record "), 300), nil }
		}
		must(s.Acquire(ctx, in))
		note()
	}
	if err := s.Release(ctx, "S1"); err != nil {
		t.Fatal(err)
	}
	note()
	return slices.Clone(d.names["journal.1"].now), ends, states
}

func diskWith(image []byte) *memDisk {
	d := newMemDisk(2)
	d.names["journal.1"] = &inode{now: image, durable: slices.Clone(image), dirty: map[int64]bool{}}
	d.durable = maps.Clone(d.names)
	return d
}

// The file ends at any byte: what was complete there is read, and writing goes on.
func TestJournalCutAtAnyByte(t *testing.T) {
	image, ends, states := journalOf(t)
	for cut := range ends[len(ends)-1] + 100 {
		s, err := reopen(diskWith(slices.Clone(image[:cut])))
		want := -1
		for i, end := range ends {
			// a frame is whole when its body is: padding carries nothing
			if padded := end - cut; padded <= 0 || padded < headerLen && allZero(image[cut:end]) {
				want = i
			}
		}
		if want < 0 {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("cut at %d, before the first frame is whole: %v", cut, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got := must(s.List()); !reflect.DeepEqual(got, states[want]) && len(got)+len(states[want]) > 0 {
			t.Fatalf("cut at %d: %v\nwant %v", cut, got, states[want])
		}
		if cut%37 == 0 {
			goesOn(t, s)
		}
		_ = s.Close()
	}
}

func goesOn(t *testing.T, s *Service) {
	t.Helper()
	n := network("voice", "10.0.0.0/24", "")
	must(s.Acquire(ctx, intent("next", "next", want("eth0", n, dynamic, noneMode))))
	before := must(s.List())
	again, err := reopen(s.j.disk.(*memDisk).reboot())
	if err != nil {
		t.Fatalf("opened again: %v", err)
	}
	defer again.Close()
	key := func(a, b Record) int { return strings.Compare(a.Sandbox, b.Sandbox) }
	after := must(again.List())
	slices.SortFunc(before, key)
	slices.SortFunc(after, key)
	if !reflect.DeepEqual(before, after) {
		t.Fatalf("opened again: %v\nwant %v", after, before)
	}
}

// Any damaged byte is found, or it was in padding and changed nothing. It is never taken for the end of the journal.
func TestDamagedByteIsNeverIgnored(t *testing.T) {
	image, ends, states := journalOf(t)
	last := states[len(states)-1]
	found := 0
	for i := range ends[len(ends)-1] + 64 {
		for _, flip := range []byte{0x01, 0x80} {
			damaged := slices.Clone(image)
			damaged[i] ^= flip
			s, err := reopen(diskWith(damaged))
			if err == nil {
				if got := must(s.List()); !reflect.DeepEqual(got, last) {
					t.Fatalf("byte %d ^ %#x: %v\nwant %v", i, flip, got, last)
				}
				_ = s.Close()
				continue
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("byte %d ^ %#x: %v", i, flip, err)
			}
			found++
		}
	}
	if found < int(ends[len(ends)-1])*3/2 {
		t.Errorf("only %d of %d damages were found", found, ends[len(ends)-1]*2)
	}
}

// A sector lost in the middle is damage, the same at the end a torn write.
func TestLostSector(t *testing.T) {
	image, ends, states := journalOf(t)
	big := ends[2] // the frame over several sectors follows
	lost := slices.Clone(image)
	clear(lost[(big/sectorLen+1)*sectorLen : (big/sectorLen+2)*sectorLen])
	if _, err := reopen(diskWith(lost)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("in the middle: %v", err)
	}
	clear(lost[ends[3]:])
	s, err := reopen(diskWith(lost))
	if err != nil {
		t.Fatalf("at the end: %v", err)
	}
	defer s.Close()
	if got := must(s.List()); !reflect.DeepEqual(got, states[2]) {
		t.Errorf("at the end: %v", got)
	}
	goesOn(t, s)
}

func TestNewerFormatIsRefused(t *testing.T) {
	d := newMemDisk(1)
	body := append(make([]byte, headerLen), tagHead, formatVersion+1, 0, 'X', tagEnd)
	seg, _, err := writeSegment(d, 1, 1, 4096, [][]byte{body})
	if err != nil || publish(d, seg) != nil {
		t.Fatal(err)
	}
	if _, err := reopen(d); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v", err)
	}
}

func TestLostJournalIsNotAnEmptyOne(t *testing.T) {
	dir := t.TempDir()
	s := must(Open(dir, Options{}))
	n := network("voice", "10.0.0.0/24", "")
	must(s.Acquire(ctx, intent("S", "U", want("eth0", n, dynamic, noneMode))))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(ctx, intent("S2", "U2")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	file := filepath.Join(dir, "journal.1")
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("emptied: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("removed: %v", err)
	}
}

// A full disk is an error that changes nothing, releases still fit for a while, and room makes it work again.
func TestFullDisk(t *testing.T) {
	d := newMemDisk(3)
	opts := newClock().options()
	opts.Cooldown = -1
	s := must(open(d, opts))
	defer s.Close()
	n := network("voice", "10.0.0.0/16", "")
	d.capacity = d.used() + 100
	full, i := error(nil), 0
	for ; full == nil; i++ {
		_, full = s.Acquire(ctx, intent(fmt.Sprint("S", i), fmt.Sprint("U", i), want("eth0", n, dynamic, noneMode)))
	}
	if i < 100 || !errors.Is(full, errFull) || errors.Is(full, ErrFailed) {
		t.Fatalf("the %d-th: %v", i, full)
	}
	if got := len(must(s.List())); got != i-1 {
		t.Errorf("%d records, want %d", got, i-1)
	}
	if _, err := s.Holder(Space{Domain: "edge", ID: 10, CIDR: n.IPv4.CIDR}, n.IPv4.CIDR.Addr().Next()); err != nil {
		t.Error(err)
	}
	if err := s.Release(ctx, "S0"); err != nil && !errors.Is(err, errFull) {
		t.Error(err)
	}
	d.capacity = 0
	must(s.Acquire(ctx, intent("S-last", "U-last", want("eth0", n, dynamic, noneMode))))
	goesOn(t, s)
}

// A failed sync leaves it open what is on disk: nothing is promised any more until the journal is opened again.
func TestFailedSyncStopsTheService(t *testing.T) {
	d := newMemDisk(4)
	s := must(reopen(d))
	n := network("voice", "10.0.0.0/24", "")
	must(s.Acquire(ctx, intent("S1", "U1", want("eth0", n, dynamic, noneMode))))
	d.failAt = d.calls + 2 // the write, then the sync
	_, err := s.Acquire(ctx, intent("S2", "U2", want("eth0", n, dynamic, noneMode)))
	if !errors.Is(err, ErrFailed) || !errors.Is(err, errInjected) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Acquire(ctx, intent("S3", "U3", want("eth0", n, dynamic, noneMode))); !errors.Is(err, ErrFailed) {
		t.Errorf("the next: %v", err)
	}
	if err := s.Err(); !errors.Is(err, ErrFailed) {
		t.Errorf("Err() is %v", err)
	}
	if err := s.Release(ctx, "S1"); !errors.Is(err, ErrFailed) {
		t.Errorf("a release: %v", err)
	}
	if r, err := s.Lookup("S1"); err != nil || len(r.Holds) != 1 {
		t.Errorf("what was there: %+v %v", r, err)
	}
	_ = s.Close()
	again := must(reopen(d))
	defer again.Close()
	goesOn(t, again)
}

// One ADD is one write and one sync, one DEL too, and a DEL of nothing is none.
func TestOneDurableWriteAnAdd(t *testing.T) {
	d := newMemDisk(5)
	s := must(reopen(d))
	defer s.Close()
	n := network("voice", "10.0.0.0/24", "fd00::/64")
	must(s.Acquire(ctx, intent("S0", "U0", want("eth0", n, dynamic, dynamic)))) // grows the file
	for what, f := range map[string]func() error{
		"ADD": func() error {
			_, err := s.Acquire(ctx, intent("S1", "U1", want("eth0", n, dynamic, dynamic), want("eth1", n, dynamic, dynamic)))
			return err
		},
		"move": func() error {
			_, err := s.Acquire(ctx, intent("S00", "U0", want("eth0", n, dynamic, dynamic)))
			return err
		},
	} {
		before := d.calls
		if err := f(); err != nil || d.calls-before != 2 {
			t.Errorf("%s: %d calls of the disk, want a write and a sync (%v)", what, d.calls-before, err)
		}
	}
	before := d.calls
	if err := s.Release(ctx, "S1"); err != nil || d.calls-before != 2 {
		t.Errorf("DEL: %d calls, %v", d.calls-before, err)
	}
	if err := s.Release(ctx, "S1"); err != nil || d.calls-before != 2 {
		t.Errorf("DEL of nothing: %d calls, %v", d.calls-before-2, err)
	}
}

// The cooldown outlives a restart, also when the journal was rewritten in between; a clock that was set back does not
// make an address cool for ever.
func TestCooldownOutlivesARestart(t *testing.T) {
	d, c := newMemDisk(6), newClock()
	opts := c.options()
	opts.segmentMin = 1
	s := must(open(d, opts))
	tiny, other := network("tiny", "10.0.0.0/30", ""), network("other", "10.1.0.0/16", "")
	for i := range 2 {
		must(s.Acquire(ctx, intent(fmt.Sprint("S", i), fmt.Sprint("U", i), want("eth0", tiny, dynamic, noneMode))))
	}
	for i := range 2 {
		if err := s.Release(ctx, fmt.Sprint("S", i)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.j.cur.gen
	for i := range 60 {
		must(s.Acquire(ctx, intent(fmt.Sprint("T", i), "one", want("eth0", other, dynamic, noneMode))))
	}
	if s.j.cur.gen < before+2 {
		t.Errorf("the journal was not rewritten")
	}
	add := func(s *Service) error {
		_, err := s.Acquire(ctx, intent("late", "late", want("eth0", tiny, dynamic, noneMode)))
		return err
	}
	_ = s.Close()
	c.advance(DefaultCooldown - 1)
	s = must(open(d, opts))
	if err := add(s); !errors.Is(err, ErrExhausted) {
		t.Errorf("just before the end: %v", err)
	}
	_ = s.Close()
	c.advance(-1000 * time.Hour)
	s = must(open(d, opts))
	if err := add(s); !errors.Is(err, ErrExhausted) {
		t.Errorf("with the clock set back: %v", err)
	}
	c.advance(DefaultCooldown)
	if err := add(s); err != nil {
		t.Errorf("a cooldown after the restart: %v", err)
	}
	_ = s.Close()
}

// Two processes: the second is told so, and gets in when the first is gone, however it went.
func TestTwoProcesses(t *testing.T) {
	if dir := os.Getenv("IPAM_TEST_HOLD"); dir != "" {
		if _, err := Open(dir, Options{}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("open")
		time.Sleep(time.Minute)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTwoProcesses$")
	cmd.Env = append(os.Environ(), "IPAM_TEST_HOLD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("while another has it: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("after kill -9: %v", err)
	}
	_ = s.Close()
}

func TestCancelledWhileWaiting(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/24", "")
	gone, cancel := context.WithCancel(ctx)
	in := intent("S1", "U1", want("eth0", n, dynamic, noneMode))
	in.Record = func([]Grant) ([]byte, error) { cancel(); return nil, nil } // in the middle of the transaction
	if _, err := s.Acquire(gone, in); err != nil {
		t.Errorf("a transaction that has begun ends: %v", err)
	}
	if _, err := s.Lookup("S1"); err != nil {
		t.Error(err)
	}
}
