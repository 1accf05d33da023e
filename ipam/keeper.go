package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Defaults of KeeperOptions.
const (
	DefaultBlockLease = 12 * time.Hour
	DefaultAskWait    = 5 * time.Second
	DefaultIdle       = 10 * time.Minute
)

// KeeperOptions of a Keeper. Service, API, Node and Sandboxes are required.
type KeeperOptions struct {
	Service *Service
	API     API
	Node    string
	Machine string // the first half of the identity, "" = not compared with the journal's before the API answers
	// Sandboxes are what lives on this machine and may have addresses: the runtime's sandboxes, whatever their state, and
	// named network namespaces. An error means that nobody knows.
	Sandboxes func(context.Context) ([]string, error)
	// Wake is poked when an IPBlock of this node, or one that it is asked for, may have changed. nil: Poll alone.
	Wake <-chan struct{}
	// Boottime runs on while the machine sleeps (CLOCK_BOOTTIME). nil = time since NewKeeper.
	Boottime func() time.Duration
	// BlockLease is how long after a sign of life the controller leaves a node's blocks alone, at least.
	BlockLease time.Duration
	AskWait    time.Duration // for another node to cede an address
	Idle       time.Duration // how long a block is unused before it goes back
	Poll       time.Duration // 0 = BlockLease/72, as often as the lease is renewed
	BackWait   time.Duration // before blocks are claimed, when the API was just reached again; 0 = DefaultBackWait
	// Sleep waits, or until ctx ends. nil = time.After; simulations bring their own.
	Sleep func(ctx context.Context, d time.Duration) error
	// Random is in [0, 1), and spreads the rounds of many nodes. nil = math/rand; simulations bring their own.
	Random func() float64
	Log    *slog.Logger
}

func (o *KeeperOptions) defaults() {
	if o.BlockLease == 0 {
		o.BlockLease = DefaultBlockLease
	}
	if o.AskWait == 0 {
		o.AskWait = DefaultAskWait
	}
	if o.Idle == 0 {
		o.Idle = DefaultIdle
	}
	if o.BackWait == 0 {
		o.BackWait = DefaultBackWait
	}
	if o.Poll == 0 {
		o.Poll = o.BlockLease / 72
	}
	if o.Boottime == nil {
		start := time.Now()
		o.Boottime = func() time.Duration { return time.Since(start) }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.Float64 //nolint:gosec // a pause is no secret
	}
	if o.Sleep == nil {
		o.Sleep = func(ctx context.Context, d time.Duration) error {
			if d <= 0 {
				return ctx.Err()
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(d):
				return nil
			}
		}
	}
}

// Keeper owns a node's blocks in the cluster home: it claims what is needed, cedes what others ask for, gives back what is
// not, renews the lease, and holds still where it cannot be sure. Its Acquire takes the place of the Service's.
// docs/ipam.md has the rules, by the numbers that comments here name.
type Keeper struct {
	*Service

	o    KeeperOptions
	api  *versions
	born int64 // when this life began: what an earlier one asked for, nobody waits for any more

	mu        sync.Mutex // guards what follows
	started   bool       // this life's epoch stands in the API
	tried     bool       // to reach it
	stopped   error      // why this life gives nothing out any more
	until     time.Duration
	lease     *coordinationv1.Lease
	renewAt   time.Duration
	claimsAt  time.Duration // a new journal claims nothing before
	doubt     bool          // the API was away: it may be another than before
	leaseSeen time.Duration // when the API had this node's newest lease
	roots     map[Space]rootSeen
	places    map[Space]uint64 // where the last claim was made
	demands   map[Space]*demand
	taken     map[placed]time.Duration // when a block was last found to be another's
	busyAt    map[placed]int64         // when a block was seen in use last
	wanted    map[Space]subnetSeen
	unlisted  map[placed]bool           // Singles that were made again, and that no block lists yet
	fenced    bool                      // the start under way is of a life that may have been taken for dead
	unsure    map[attempt]time.Duration // since when a claim is looked for in vain
	stats     KeeperStats

	finishFrom int // which of many blocks that go comes next; of Round alone

	poke      chan struct{}
	answering chan struct{} // holds one while somebody answers what this node is asked for
}

// placed is a block by where it is.
type placed struct {
	space Space
	cidr  netip.Prefix
}

// compare orders places by space and address.
func (p placed) compare(q placed) int {
	a, b := p.space, q.space
	return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.ID, b.ID), compareBools(a.VXLAN, b.VXLAN), a.CIDR.Compare(b.CIDR), p.cidr.Compare(q.cidr))
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// KeeperStats count since the start.
type KeeperStats struct {
	Claims, Conflicts uint64 // blocks got, blocks that another was faster with
	Asked, Refused    uint64 // addresses asked of others, and not had
	Ceded             uint64 // to others
	GivenBack, Thawed uint64 // blocks
	Renewals          uint64 // of the lease
	Errors            uint64 // rounds that failed
}

// NewKeeper makes a Keeper. Until its Run has reached the API it gives out what the journal says it may.
func NewKeeper(o KeeperOptions) *Keeper {
	o.defaults()
	k := &Keeper{
		Service: o.Service, o: o, api: &versions{API: o.API}, roots: map[Space]rootSeen{}, places: map[Space]uint64{}, demands: map[Space]*demand{}, taken: map[placed]time.Duration{},
		busyAt: map[placed]int64{}, wanted: map[Space]subnetSeen{}, unsure: map[attempt]time.Duration{}, poke: make(chan struct{}, 1), answering: make(chan struct{}, 1),
	}
	k.born = k.now()
	k.api.seen.Store(k.Meta().Version)
	if m := k.Meta(); m.Node == o.Node && (o.Machine == "" || o.Machine == machineOf(m.Identity)) { // not a clone's
		k.until = k.o.Boottime() + leaseLeft(m, k.now(), k.latest, k.o.BlockLease/2)
	}
	permit := k.mayGiveNow
	k.permit.Store(&permit)
	return k
}

func (k *Keeper) now() int64 { return k.opts.Clock().UnixNano() }

// leaseLeft is for how long a node may go on by what its journal says (R13). A clock that is behind the journal says nothing.
func leaseLeft(m Meta, now, latest int64, bound time.Duration) time.Duration {
	age := time.Duration(now - m.Renewed)
	if m.Renewed == 0 || now < latest || age < 0 {
		return 0
	}
	return max(0, bound-age)
}

// mayGiveNow says why no new address may be given out. It is called inside transactions.
func (k *Keeper) mayGiveNow() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.stopped != nil:
		return k.stopped
	case !k.tried: // a journal from a backup shows when the API is asked
		return fmt.Errorf("the agent has just started and is asking the API server: %w", ErrLease)
	case k.fenced:
		return fmt.Errorf("the node was taken for dead, or its Node object was made anew, and its blocks are not compared with the API's yet: %w", ErrLease)
	case k.o.Boottime() >= k.until:
		return fmt.Errorf("the API server was not reached for %s: %w", k.o.BlockLease/2, ErrLease)
	}
	return nil
}

// maxTries bounds how often an acquisition is tried again after a claim of its own, and maxRounds after one that it waited for:
// others may take what was claimed.
const (
	maxTries  = 16
	maxRounds = 1000
)

// Acquire is the Service's, and claims what is missing.
func (k *Keeper) Acquire(ctx context.Context, in Intent) ([]Grant, error) {
	for try, round := 1, 1; ; round++ {
		grants, err := k.Service.Acquire(ctx, in)
		if err == nil {
			k.remember(in)
			return grants, nil
		}
		var need *NeedError
		if !errors.As(err, &need) || try == maxTries || round == maxRounds {
			return nil, err
		}
		if cerr := k.obtain(ctx, need); cerr != nil {
			if errors.Is(cerr, ErrExhausted) { // but perhaps not what others of this node just got
				if grants, again := k.Service.Acquire(ctx, in); again == nil {
					k.remember(in)
					return grants, nil
				}
			}
			return nil, inObtaining(err, cerr)
		}
		if !need.waited { // for another's claim, which gave to others
			try++
		}
		if serr := k.o.Sleep(ctx, 0); serr != nil { // in a simulation, those who waited for one another go on one by one
			return nil, serr
		}
	}
}

// inObtaining is what a caller is told: the wish that could not be fulfilled, and why. An exhausted pool is a condition of the
// network; an API that is away is not.
func inObtaining(wish, cause error) error {
	switch {
	case errors.Is(cause, ErrExhausted):
		return fmt.Errorf("%w; %w", wish, cause)
	case errors.Is(cause, ErrOwner), errors.Is(cause, ErrNoRoot), errors.Is(cause, ErrLease), errors.Is(cause, ErrSuspect), errors.Is(cause, ErrFrozen), errors.Is(cause, ErrBack):
		return cause
	}
	return fmt.Errorf("%w: %w (%v)", ErrClaim, cause, wish) //nolint:errorlint // the wish must not be taken for the cause
}

// remember notes which pools a space is used through, and that its blocks are in use.
func (k *Keeper) remember(in Intent) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range in.Wants {
		for _, sub := range []*subnetSeen{w.Network.IPv4, w.Network.IPv6} {
			if sub != nil {
				k.wanted[Space{Domain: w.Network.SpaceDomain, ID: w.Network.ID(), VXLAN: w.Network.VXLAN, CIDR: sub.CIDR}] = *sub
			}
		}
	}
}

// Release is the Service's. What was kept for a Pod of a StatefulSet is handed on at once, and what was borrowed goes back.
func (k *Keeper) Release(ctx context.Context, sandbox string) error {
	err := k.Service.Release(ctx, sandbox)
	if err == nil && k.hasSingles() {
		k.Poke()
	}
	return err
}

// Doubt has the next round, which begins now, compare blocks and lease with the API: it was away, and may have been restored from
// a backup. A block that it does not know any more is made again before others claim it (R18).
func (k *Keeper) Doubt(away time.Duration) {
	k.mu.Lock()
	k.doubt, k.leaseSeen = true, 0
	if away >= outage {
		k.claimsAt = k.o.Boottime() + k.o.BackWait
	}
	k.mu.Unlock()
	k.Poke()
}

// lookAgain does what Doubt asked for.
func (k *Keeper) lookAgain(ctx context.Context) error {
	k.mu.Lock()
	doubt := k.doubt
	k.doubt = false
	k.mu.Unlock()
	if !doubt {
		return nil
	}
	err := k.leaseStands(ctx)
	if err == nil {
		err = k.resync(ctx, verdict{})
	}
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.doubt = true
	}
	return err
}

// Reached says whether this life has compared its journal with the API, since the API was away last.
func (k *Keeper) Reached() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.started && !k.doubt
}

// Poke makes the next round begin now.
func (k *Keeper) Poke() {
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// Run keeps the blocks until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	pause := time.Duration(0)
	for failures := 0; ctx.Err() == nil; {
		var err error
		if pause, err = k.Round(ctx); err != nil {
			failures++
			k.count(func(s *KeeperStats) { s.Errors++ })
			k.o.Log.Warn("address blocks", "reason", err)
			pause = min(pause, backoff(failures))
		} else {
			failures = 0
		}
		k.rest(ctx, pause*3/4+time.Duration(k.o.Random()*float64(pause/2)))
	}
}

// Round does what is to be done now, and says when to look again. An error is of the API; everything it did not hinder was done.
func (k *Keeper) Round(ctx context.Context) (time.Duration, error) {
	if err := k.keepEpoch(ctx); err != nil {
		return backoff(5), err
	}
	if err := k.lookAgain(ctx); err != nil {
		return backoff(5), err
	}
	work := []error{k.answerAsked(ctx)}
	if k.Meta().Suspect == "" { // what an API from a backup says to be gone or mine may be another's (R18)
		work = append(work, k.takeBack(ctx), k.settleClaims(ctx), k.thaw(ctx))
		k.giveBack()
		work = append(work, k.finish(ctx))
	} else { // who is gone is gone all the same
		_, err := k.Recheck(ctx, k.o.Sandboxes)
		work = append(work, err)
	}
	k.forgetOld()
	pause := k.o.Poll
	if k.pending() {
		pause = min(pause, 10*time.Second)
	}
	k.mu.Lock()
	pause = max(0, min(pause, k.renewAt-k.o.Boottime()))
	k.mu.Unlock()
	return pause, errors.Join(work...)
}

func (k *Keeper) count(f func(*KeeperStats)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.stats)
}

// Stats are the counts so far.
func (k *Keeper) Stats() KeeperStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stats
}
