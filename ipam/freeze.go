package ipam

import (
	"context"
	"fmt"
	"slices"
)

// suspect makes claims wait until somebody has checked (R18), unless they wait already.
func (k *Keeper) suspect(why string) error {
	if k.Meta().Suspect != "" {
		return nil
	}
	return k.suspectAnew(why)
}

// suspectAnew is suspect for what shows that the API went back just now. Where claims wait already it did so again, and what
// anybody has checked since the first time says nothing of the second. Versions begin anew with what is seen from now on.
func (k *Keeper) suspectAnew(why string) error {
	k.o.Log.Error("the API server went back in time; no claims until `danmctl ipam check --accept`", "reason", why)
	k.mu.Lock()
	k.renewAt = 0 // the lease is to tell of it
	k.mu.Unlock()
	k.api.forget()
	return k.change(func(e *edit) error { e.meta(func(m *Meta) { m.Suspect, m.Version = nonce(), 0 }); return nil })
}

// freezeAll remembers what lives on the machine and freezes every block (R6).
func (k *Keeper) freezeAll(ctx context.Context) error {
	seen, err := k.o.Sandboxes(ctx)
	if err != nil {
		return fmt.Errorf("list the sandboxes of this machine: %w", err)
	}
	return k.change(func(e *edit) error {
		for _, b := range e.s.st.allBlocks() {
			switch b.State {
			case Owned, Asked, Claiming:
				b.State = Frozen
				if err := e.set(b); err != nil {
					return err
				}
			case Frozen, Releasing, Parking:
			}
		}
		e.lose(seen)
		return nil
	})
}

// lose notes that unknown addresses may be live in the given sandboxes.
func (e *edit) lose(seen []string) {
	e.meta(func(m *Meta) {
		m.Lost = append(m.Lost, seen...)
		slices.Sort(m.Lost)
		m.Lost = slices.Compact(m.Lost)
		m.LostSince = e.now
	})
}
