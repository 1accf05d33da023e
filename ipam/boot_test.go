package ipam

import (
	"errors"
	"testing"
	"time"
)

// boots is a HighWater in memory.
type boots uint64

func (m *boots) Load() uint64   { return uint64(*m) }
func (m *boots) Store(v uint64) { *m = boots(v) }

// R3: a clock that was set forward while the machine was off does not make a freed address cool. Within a boot the clock is
// the boot's own, and a restart of the agent begins no cooldown again.
func TestACooldownOutlivesABootWithAnotherClock(t *testing.T) {
	c, dir, boot := newClock(), t.TempDir(), new(boots)
	n := network("net", "10.0.0.0/30", "")
	opts := c.options()
	opts.HighWater = boot
	open := func() *Service {
		t.Helper()
		s, err := Open(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	free := func(s *Service, sandbox string) error {
		_, err := s.Acquire(ctx, intent(sandbox, sandbox, want("eth0", n, dynamic, noneMode)))
		return err
	}
	s := open()
	for _, sandbox := range []string{"a", "b"} {
		if err := free(s, sandbox); err != nil {
			t.Fatal(err)
		}
		if err := s.Release(ctx, sandbox); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	*boot = 0
	c.advance(6 * time.Hour) // set, not passed
	for range 3 {            // the agent's restarts after the boot
		s = open()
		if err := free(s, "c"); !errors.Is(err, ErrExhausted) {
			t.Fatalf("a hot address after a boot: %v", err)
		}
		_ = s.Close()
		c.advance(DefaultCooldown / 4)
	}
	c.advance(DefaultCooldown / 4)
	s = open()
	defer s.Close()
	if err := free(s, "c"); err != nil {
		t.Fatal("restarts of the agent begin the cooldown again: ", err)
	}
}

// A journal that was set back, or taken away, while the machine was on is damaged.
func TestAJournalThatWasSetBackIsDamaged(t *testing.T) {
	d, c := newMemDisk(1), newClock()
	opts := c.options()
	opts.HighWater = new(boots)
	n := network("net", "10.0.0.0/28", "")
	s, err := open(d, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(ctx, intent("a", "a", want("eth0", n, dynamic, noneMode))); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	old := d.reboot()
	s, err = open(d, opts)
	if err != nil {
		t.Fatal("an honest restart: ", err)
	}
	if _, err := s.Acquire(ctx, intent("b", "b", want("eth0", n, dynamic, noneMode))); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := open(old, opts); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("set back: %v", err)
	}
	if _, err := open(newMemDisk(2), opts); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("gone: %v", err)
	}
	opts.HighWater = new(boots) // after a reboot nobody knows
	s, err = open(old, opts)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
}
