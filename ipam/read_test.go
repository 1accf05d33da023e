package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReadBesideTheAgent: a look at the journal sees what was answered, and neither needs nor takes the lock, while the
// journal is written, rotated and read again.
func TestReadBesideTheAgent(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	opts := c.options()
	opts.segmentMin, opts.extendBy = 4<<10, 1<<10 // many rotations
	s := must(Open(dir, opts))
	defer s.Close() //nolint:errcheck // the test is over
	n := network("a", "10.0.0.0/16", "")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			box := fmt.Sprint("churn", i)
			if _, err := s.Acquire(ctx, intent(box, "u"+box, want("eth0", n, dynamic, noneMode))); err != nil {
				done <- err
				return
			}
			if err := s.Release(ctx, box); err != nil {
				done <- err
				return
			}
		}
	}()
	rotated := func() bool {
		g, err := readOnly(dir).generations()
		return err == nil && len(g) > 0 && g[len(g)-1] >= 4
	}
	for i := 0; i < 30 || !rotated() && i < 2000; i++ {
		box := fmt.Sprint("stays", i)
		g, err := s.Acquire(ctx, intent(box, "u"+box, want("eth0", n, dynamic, noneMode)))
		addr := only(t, g, err)
		snap, err := Read(dir)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(snap.Records, func(r Record) bool { return r.Sandbox == box })
		if at < 0 || snap.Records[at].Holds[0].Addr.String() != addr {
			t.Fatalf("read %d: %s is not there with %s", i, box, addr)
		}
		stays := 0
		for _, r := range snap.Records {
			if strings.HasPrefix(r.Sandbox, "stays") {
				stays++
			}
		}
		if stays != i+1 {
			t.Fatalf("read %d: %d of those that stay", i, stays)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !rotated() {
		t.Error("nothing was rotated, so nothing was tried")
	}
}

// TestReadSaysWhatTheJournalSays compares with the service itself, after blocks, cessions, a lost journal and a free.
func TestReadSaysWhatTheJournalSays(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	s := must(Open(dir, c.options()))
	g, err := s.Acquire(ctx, intent("s1", "u1", want("eth0", network("a", "10.0.0.0/24", ""), dynamic, noneMode)))
	addr := only(t, g, err)
	if err := s.Release(ctx, "s1"); err != nil {
		t.Fatal(err)
	}
	if err := s.change(func(e *edit) error {
		e.lose([]string{"x"})
		e.meta(func(m *Meta) { m.Identity, m.Epoch, m.Suspect, m.Renewed = "m/n", 7, "nonce", c.t.UnixNano() })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	snap := must(Read(dir))
	if snap.Epoch != 7 || snap.Identity != "m/n" || snap.Suspect != "nonce" || !snap.LeaseRenewed.Equal(c.t) || !snap.LostSince.Equal(c.t) {
		t.Errorf("%+v", snap)
	}
	if len(snap.Records) != 0 || len(snap.Cooling) != 1 || snap.Cooling[0].Addr.String() != addr || !snap.Cooling[0].Since.Equal(c.t) {
		t.Errorf("records %v, cooling %v, want %s", snap.Records, snap.Cooling, addr)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if after := files(t, dir); before != after {
		t.Errorf("reading changed the directory:\n%s\n%s", before, after)
	}
}

func files(t *testing.T, dir string) string {
	t.Helper()
	out := ""
	for _, e := range must(os.ReadDir(dir)) {
		out += fmt.Sprintf("%s %x\n", e.Name(), checksum(must(os.ReadFile(filepath.Join(dir, e.Name())))))
	}
	return out
}

// TestReadTornAndDamaged: a last write cut short is left out; damage is an error, and so is no journal.
func TestReadTornAndDamaged(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
	s := must(Open(dir, newClock().options()))
	n := network("a", "10.0.0.0/24", "")
	for _, box := range []string{"s1", "s2"} {
		if _, err := s.Acquire(ctx, intent(box, "u"+box, want("eth0", n, dynamic, noneMode))); err != nil {
			t.Fatal(err)
		}
	}
	end := s.j.cur.end
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "journal.1")
	whole := must(os.ReadFile(path))
	if snap := must(Read(dir)); len(snap.Records) != 2 {
		t.Fatalf("%d records", len(snap.Records))
	}
	cut := slices.Clone(whole[:end-20])
	must(0, os.WriteFile(path, cut, 0o600))
	if snap, err := Read(dir); err != nil || len(snap.Records) != 1 || len(must(os.ReadFile(path))) != len(cut) {
		t.Errorf("torn: %d records, %v", len(snap.Records), err)
	}
	bad := slices.Clone(whole)
	bad[33] ^= 1
	must(0, os.WriteFile(path, bad, 0o600))
	if _, err := Read(dir); !errors.Is(err, ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}
