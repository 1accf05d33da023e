package ipamsim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is what an operation does.
type Kind uint8

// The operations.
const (
	Churn         Kind = iota // a Pod comes, or goes when there are enough
	Restart                   // a Pod's sandbox dies
	LateDel                   // DEL of some sandbox of before
	KillNow                   // kill -9
	KillWriting               // kill -9 at one of the next writes
	DiskError                 // one of the next writes fails
	Freeze                    // the process stands still for a while
	PowerCut                  // and boot after a while
	DiskFull                  // for a while
	Audit                     // kernel against journal
	Image                     // a snapshot of the disk
	OldDisk                   // power off, the snapshot is restored, boot
	BlankDisk                 // power off, the journal is gone, boot
	LoseJournal               // while Pods live
	CutAPI                    // one node
	CutAll                    // every node
	FreezeAPI                 // it takes requests and does not answer
	EtcdBackup                //
	EtcdRestore               //
	ControllerOff             // for a while
	DeleteNode                // the machine is off, and its Node deleted; both come back
	Clone                     // a machine becomes a copy of another
	Step                      // the wall clock is set
	Move                      // a Pod of a StatefulSet starts on another node, perhaps before the old one is gone
	kindsEnd
)

var kindNames = [...]string{"churn", "restart", "late DEL", "kill", "kill while writing", "disk error", "freeze", "power cut", "disk full", "audit", "image",
	"old disk", "new disk", "lose journal", "cut API", "cut all", "freeze API", "etcd backup", "etcd restore", "controller off", "delete node",
	"clone", "clock step", "move"}

func (k Kind) String() string { return kindNames[k] }

// Op is one operation: so long after the one before it, and numbers from which it chooses what it is about.
type Op struct {
	Gap     time.Duration
	Kind    Kind
	A, B, C uint32
	N       int // place in the plan
}

func (o Op) String() string {
	return fmt.Sprintf("%d: %s after %s (%d %d %d)", o.N, o.Kind, o.Gap, o.A, o.B, o.C)
}

// weights say how often each kind is done, in 10,000.
func weights(f Faults) [kindsEnd]int {
	w := [kindsEnd]int{Churn: 8200, Restart: 900, LateDel: 150, KillNow: 60, KillWriting: 120, DiskError: 40, Freeze: 40, PowerCut: 15, DiskFull: 10,
		Audit: 400, Image: 10, OldDisk: 3, BlankDisk: 3}
	if f.API {
		w[CutAPI], w[CutAll], w[FreezeAPI], w[EtcdBackup], w[EtcdRestore], w[ControllerOff] = 20, 4, 8, 4, 1, 4
	}
	if f.LiveJournal {
		w[LoseJournal] = 8
	}
	if f.OtherMachine {
		w[DeleteNode], w[Clone] = 4, 3
	}
	if f.Sticky {
		w[Move] = 300
	}
	if f.ClockSteps {
		w[Step] = 5
	}
	return w
}

// Plan makes the operations of a seed.
func Plan(cfg Config, ops int) []Op {
	rng := rand.New(rand.NewPCG(cfg.Seed, 77))
	w := weights(cfg.Home.Faults())
	if cfg.Mild {
		for _, k := range []Kind{Image, OldDisk, BlankDisk, LoseJournal, EtcdBackup, EtcdRestore, DeleteNode, Clone, Step} {
			w[k] = 0
		}
	}
	total := 0
	for _, n := range w {
		total += n
	}
	out := make([]Op, ops)
	for i := range out {
		r := rng.IntN(total)
		k := Kind(0)
		for ; r >= w[k]; k++ {
			r -= w[k]
		}
		out[i] = Op{Gap: gap(rng, cfg), Kind: k, A: rng.Uint32(), B: rng.Uint32(), C: rng.Uint32(), N: i}
	}
	return out
}

// gap is bursts, pauses between them, and now and then a long one.
func gap(rng *rand.Rand, cfg Config) time.Duration {
	scale := int64(time.Millisecond)
	switch {
	case cfg.Busy:
		scale /= 10
	case cfg.Slow:
		scale *= 10
	}
	switch r := rng.IntN(1000); {
	case r < 700:
		return time.Duration(rng.Int64N(10 * scale))
	case r < 995:
		return time.Duration(rng.Int64N(1000 * scale))
	}
	return time.Duration(rng.Int64N(120_000 * scale))
}
