package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Snapshot is what a journal says at one moment, for those who only look.
type Snapshot struct {
	Records []Record // by sandbox
	Blocks  []BlockView
	Cooling []Cooling // by space and address

	Epoch        int64
	Identity     string    // "" = the node never had one: the local home, or an agent that never reached the API
	LeaseRenewed time.Time // the zero time = never
	Suspect      string    // not "": the API went back in time, and claims wait for a check
	LostSince    time.Time // the zero time = no journal was lost
}

// BlockView is a block of a Snapshot.
type BlockView struct {
	Space Space
	CIDR  netip.Prefix
	Role  string // Block or Single, as in the API
	State BlockState
	UID   string
	Ceded []Cession
	Since time.Time // of the state
	// Kept says that it is a Single kept for one Pod of a StatefulSet.
	Kept bool
}

// Cooling is an address that was freed and is not given out by itself yet, or has been freed the longest.
type Cooling struct {
	Space Space
	Addr  netip.Addr
	Since time.Time
}

// readTries bounds how often a journal is read again that its agent rewrote meanwhile.
const readTries = 5

// Read reads the journal in a directory beside the agent that writes it: it takes no lock, writes nothing, and leaves out
// a last transaction that is not whole. Errors: fs.ErrNotExist (there is no journal), ErrCorrupt, ErrVersion, or one of the
// operating system.
func Read(dir string) (Snapshot, error) {
	for try := 1; ; try++ {
		snap, err := readOnce(readOnly(dir))
		if err == nil || try == readTries || !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				err = fmt.Errorf("read address journal %s: %w", dir, err)
			}
			return snap, err
		}
		time.Sleep(20 * time.Millisecond) // a frame half written, or a segment that just went
	}
}

func readOnce(d readOnly) (Snapshot, error) {
	gens, err := d.generations()
	if err != nil {
		return Snapshot{}, err
	}
	if len(gens) == 0 {
		return Snapshot{}, fs.ErrNotExist
	}
	last := gens[len(gens)-1]
	s := &Service{opts: Options{Clock: time.Now}, st: newState(), j: &journal{disk: d}}
	if s.j.cur, err = openSegment(d, last, extendBy); err != nil {
		return Snapshot{}, err
	}
	s.j.cur.end = math.MaxInt64 // it may grow while it is read: no record stands anywhere else
	defer s.closeFiles()        //nolint:errcheck // nothing was written
	needsOld, err := survey(s.j.cur)
	if err != nil {
		return Snapshot{}, err
	}
	var first uint64
	if needsOld {
		if s.j.old, err = openSegment(d, last-1, extendBy); err != nil {
			return Snapshot{}, err
		}
		r, err := s.replay(s.j.old, 0)
		if err != nil {
			return Snapshot{}, err
		}
		first = r.next
	}
	if _, err := s.replay(s.j.cur, first); err != nil {
		return Snapshot{}, err
	}
	return s.snapshot()
}

func (s *Service) snapshot() (Snapshot, error) {
	records, err := s.List()
	if err != nil {
		return Snapshot{}, err
	}
	slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.Sandbox, b.Sandbox) })
	m := s.st.meta
	out := Snapshot{Records: records, Epoch: m.Epoch, Identity: m.Identity, LeaseRenewed: timeOf(m.Renewed), Suspect: m.Suspect, LostSince: timeOf(m.LostSince)}
	for _, b := range s.Blocks() {
		role := "Block"
		if b.Single {
			role = "Single"
		}
		out.Blocks = append(out.Blocks, BlockView{b.Space, b.CIDR, role, b.State, b.UID, b.Ceded, timeOf(b.Since), b.Reservation != ""})
	}
	for key, ss := range s.st.spaces {
		ss.space.EachFreed(func(a netip.Addr, at int64) { out.Cooling = append(out.Cooling, Cooling{key, a, timeOf(at)}) })
	}
	slices.SortFunc(out.Cooling, func(a, b Cooling) int {
		return cmp.Or(strings.Compare(a.Space.object().Hash(), b.Space.object().Hash()), a.Addr.Compare(b.Addr))
	})
	return out, nil
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// readOnly is a directory that nothing is written to.
type readOnly string

var errReadOnly = errors.New("the journal was opened for reading")

func (d readOnly) Open(name string) (file, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d readOnly) List() ([]string, error)   { return dirDisk(d).List() }
func (readOnly) Create(string) (file, error) { return nil, errReadOnly }
func (readOnly) Rename(string, string) error { return errReadOnly }
func (readOnly) Remove(string) error         { return errReadOnly }
func (readOnly) Sync() error                 { return errReadOnly }

// generations are the segments there are. What an interrupted rotation left is not looked at.
func (d readOnly) generations() ([]uint64, error) {
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, segmentPrefix)
		if !ok {
			continue
		}
		if gen, err := strconv.ParseUint(rest, 10, 64); err == nil && gen > 0 {
			gens = append(gens, gen)
		}
	}
	slices.Sort(gens)
	return gens, nil
}
