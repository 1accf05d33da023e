package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultCooldown is how long a freed address is not given out again by itself: neighbours' ARP and ND caches (Linux
// holds an entry reachable for at most 45 s after it was last confirmed, and usually 15 to 30 s) and late packets to the
// former holder have then passed, and a pool that is nearly full still survives a rolling restart.
const DefaultCooldown = 30 * time.Second

// Options of a Service; the zero value is ready for use.
type Options struct {
	// Cooldown is how long a freed address is not chosen dynamically. 0 = DefaultCooldown, below 0 = none.
	Cooldown time.Duration
	// Clock is the time; it must not go backwards while the Service is open. nil = the time of day at Open, running on
	// with the monotonic clock.
	Clock func() time.Time
	// HighWater remembers, as long as the machine is on, how far the journal has come: one that is behind was set back, and
	// is damaged. nil = nothing is remembered.
	HighWater HighWater
	// Log is told about what needs no answer, such as a file that could not be removed. nil = slog.Default().
	Log *slog.Logger

	segmentMin int64 // tests: size below which a segment is never replaced
	extendBy   int64 // tests: see extendBy
}

// HighWater is a number that outlives the process and not the boot. Store is called after each transaction.
type HighWater interface {
	Load() uint64
	Store(frames uint64)
}

func (o Options) logger() *slog.Logger {
	if o.Log == nil {
		return slog.Default()
	}
	return o.Log
}

// Service gives addresses and keeps the records of attachments. Its methods may be called concurrently. A request that
// was answered with success is on disk; one that was answered with an error has changed nothing, except that after
// ErrFailed the next Open may find it done (releasing it is then the caller's duty, as after a crash).
type Service struct {
	opts    Options
	reqs    chan *request
	closing chan struct{}
	stopped chan struct{}
	once    sync.Once
	unlock  func() error
	permit  atomic.Pointer[func() error] // see mayGive

	mu       sync.Mutex // guards what follows, and is held during a commit
	st       *state
	latest   int64 // the latest time in the journal: Unix time in nanoseconds
	j        *journal
	framed   []byte  // the frame being filled, with room for its header
	carry    uint32  // next place in st.recs to be looked at while j.old is there
	carried  []moved // by the frame being filled
	whole    bool    // everything is carried over and on disk
	rotateAt int64   // size of the current segment at which to think of a new one
}

// Open reads the journal in directory dir, which is made if it is missing. Errors: ErrLocked, ErrCorrupt, ErrVersion, or
// one of the operating system. A damaged journal is never taken for an empty one.
func Open(dir string, opts Options) (*Service, error) {
	d, unlock, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := open(d, opts)
	if err != nil {
		return nil, fmt.Errorf("open address journal %s: %w", dir, errors.Join(err, unlock()))
	}
	s.unlock = unlock
	if err := d.remember(); err != nil {
		return nil, fmt.Errorf("mark address journal %s: %w", dir, errors.Join(err, s.Close()))
	}
	return s, nil
}

func open(d disk, opts Options) (*Service, error) {
	if opts.Cooldown == 0 {
		opts.Cooldown = DefaultCooldown
	}
	opts.Cooldown = max(opts.Cooldown, 0)
	if opts.Clock == nil {
		start := time.Now()
		opts.Clock = func() time.Time { return start.Add(time.Since(start)) }
	}
	opts.Log = opts.logger()
	if opts.segmentMin == 0 {
		opts.segmentMin = 4 << 20
	}
	if opts.extendBy == 0 {
		opts.extendBy = extendBy
	}
	s := &Service{
		opts: opts, reqs: make(chan *request), closing: make(chan struct{}), stopped: make(chan struct{}),
		unlock: func() error { return nil }, st: newState(), framed: make([]byte, headerLen, 64<<10),
	}
	if err := s.load(d); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// Close lets the transaction in progress finish and releases the journal. Later requests fail with ErrClosed.
func (s *Service) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		<-s.stopped
		s.mu.Lock()
		defer s.mu.Unlock()
		err = s.j.close()
		if uerr := s.unlock(); err == nil {
			err = uerr
		}
	})
	return err
}

// Acquire makes the addresses of all wants and the attachment record durable in one transaction, or changes nothing.
// It returns one Grant a want.
//
// If the Pod has a record already, of an older sandbox or an earlier try, in.Evict takes its links down first; then the
// record moves: an interface keeps the address it had under the same key {space, Pod UID, ifname} unless the want says
// otherwise, what is not wanted any more is freed. A late Release of the older sandbox then finds nothing.
//
// Once the transaction has begun, it ends before Acquire returns, whatever ctx says: a caller is never left in doubt.
// Errors: ErrExhausted, ErrTaken, ErrOutside, ErrReserved, ErrNotOurs, ErrL2, ErrBlockGeometry, ErrIntent, those of
// Evict and Record, ErrFailed, ErrClosed, or the disk's.
func (s *Service) Acquire(ctx context.Context, in Intent) ([]Grant, error) {
	wanted, err := asks(in)
	if err != nil {
		return nil, err
	}
	req := &request{ctx: ctx, intent: &in, asks: wanted, evicted: map[string]uint32{}}
	for {
		res := s.submit(req)
		if res.err != nil || len(res.stale) == 0 {
			return res.grants, res.err
		}
		for _, old := range res.stale {
			if in.Evict != nil {
				if err := in.Evict(ctx, old.Record); err != nil {
					return nil, fmt.Errorf("take down sandbox %s of Pod %s/%s: %w", old.Sandbox, old.Namespace, old.Pod, err)
				}
			}
			req.evicted[old.Sandbox] = old.serial
		}
	}
}

// Release frees what a sandbox holds, in one transaction. It acts for exactly this sandbox, whatever Pod it belonged to,
// and succeeds without a write if there is no record of it.
func (s *Service) Release(ctx context.Context, sandbox string) error {
	return s.submit(&request{ctx: ctx, sandbox: sandbox}).err
}

// Lookup is the record of a sandbox, or ErrNotFound.
func (s *Service) Lookup(sandbox string) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ri, ok := s.st.bySandbox[s.st.digest(sandbox)]
	if !ok {
		return Record{}, fmt.Errorf("sandbox %s: %w", sandbox, ErrNotFound)
	}
	return s.readRecord(ri)
}

// LookupPod is the record of a Pod, or ErrNotFound.
func (s *Service) LookupPod(uid string) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ri, ok := s.st.byPod[s.st.digest(uid)]
	if !ok {
		return Record{}, fmt.Errorf("pod UID %s: %w", uid, ErrNotFound)
	}
	return s.readRecord(ri)
}

// Holder is the record that holds an address, or ErrNotFound.
func (s *Service) Holder(space Space, a netip.Addr) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ri, ok := s.st.holder(space, a.Unmap())
	if !ok {
		return Record{}, fmt.Errorf("address %s of %s: %w", a, space.CIDR, ErrNotFound)
	}
	return s.readRecord(ri)
}

// List is every record, in no order that means anything.
func (s *Service) List() ([]Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Record, 0, len(s.st.bySandbox))
	for ri, at := range s.st.recs {
		if at.n == 0 {
			continue
		}
		r, err := s.readRecord(uint32(ri))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}
