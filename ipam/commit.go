package ipam

import (
	"context"
	"fmt"
)

const (
	maxBatch  = 4 << 20  // bytes after which a transaction takes no further request
	maxData   = 1 << 20  // bytes of an attachment record
	carryStep = 64 << 10 // bytes of old records that go along with a transaction at least
)

// request is an acquisition (intent), a change of blocks, or a release (sandbox).
type request struct {
	ctx     context.Context
	intent  *Intent
	asks    []ask
	evicted map[string]uint32 // sandboxes whose links are down, and their records' serials
	sandbox string
	change  func(*edit) error // of blocks and meta
	done    chan result
}

// result has stale records instead of grants when their links must be taken down first.
type result struct {
	grants []Grant
	stale  []staleRecord
	err    error
}

type staleRecord struct {
	Record
	serial uint32
}

// submit hands a request to the committer. Once accepted, it is answered, and the answer is waited for.
func (s *Service) submit(r *request) result {
	r.done = make(chan result, 1)
	if err := r.ctx.Err(); err != nil {
		return result{err: err}
	}
	select {
	case s.reqs <- r:
		return <-r.done
	case <-s.closing:
		return result{err: ErrClosed}
	case <-r.ctx.Done():
		return result{err: r.ctx.Err()}
	}
}

// run is the committer: whoever waits while a transaction is being written is in the next one.
func (s *Service) run() {
	defer close(s.stopped)
	var batch []*request
	for {
		batch = batch[:0]
		select {
		case r := <-s.reqs:
			batch = append(batch, r)
		case <-s.closing:
			return
		}
		for more := true; more; {
			select {
			case r := <-s.reqs:
				batch = append(batch, r)
			default:
				more = false
			}
		}
		for rest := batch; len(rest) > 0; {
			rest = rest[s.commit(rest):]
		}
	}
}

// commit decides as many requests as fit into a transaction, makes it durable, and answers them. It returns how many.
func (s *Service) commit(batch []*request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Clock().UnixNano()
	ready := now - int64(s.opts.Cooldown)
	s.framed = s.framed[:headerLen]
	var results []result
	for _, r := range batch {
		if len(s.framed) > maxBatch {
			break
		}
		results = append(results, s.decide(r, now, ready))
	}
	if err := s.write(ready); err != nil {
		for i := range results {
			if results[i].err == nil && len(results[i].stale) == 0 {
				results[i] = result{err: err}
			}
		}
	}
	for i, r := range results {
		batch[i].done <- r
	}
	return len(results)
}

// decide answers one request and adds its entries to the frame; if it fails, it leaves nothing behind.
func (s *Service) decide(r *request, now, ready int64) (res result) {
	if s.j.failed != nil {
		return result{err: s.j.failed}
	}
	m, n := s.st.mark(), len(s.framed)
	if err := r.ctx.Err(); err != nil {
		res.err = err
	} else if r.change != nil {
		res.err = r.change(&edit{s: s, now: now, ready: ready})
	} else if r.intent != nil {
		res = s.decideAcquire(r, now, ready)
	} else {
		res.err = s.decideRelease(r.sandbox, now)
	}
	if res.err != nil || len(res.stale) > 0 {
		s.st.rollback(m)
		s.framed = s.framed[:n]
	}
	return res
}

func (s *Service) decideRelease(sandbox string, now int64) error {
	ri, ok := s.st.bySandbox[s.st.digest(sandbox)]
	if !ok {
		return nil
	}
	r, err := s.readRecord(ri)
	if err != nil {
		return err
	}
	if r.Sandbox != sandbox {
		return nil
	}
	return s.delete(ri, r, now)
}

// delete frees a record's addresses. A record that stands in the old segment alone is stated again first: a segment must
// not speak of records it does not know once the old one is gone, or their addresses would not cool down.
func (s *Service) delete(ri uint32, r Record, now int64) error {
	if at := s.st.recs[ri]; at.gen != uint32(s.j.cur.gen) {
		p, err := s.payload(at)
		if err != nil {
			return err
		}
		s.framed, _ = appendPayload(s.framed, p)
	}
	s.st.remove(ri, r, now)
	s.framed = appendDelete(s.framed, r.Sandbox, now)
	return nil
}

func (s *Service) decideAcquire(r *request, now, ready int64) result {
	in := r.intent
	olds, stale, err := s.olds(r)
	if err != nil || len(stale) > 0 {
		return result{stale: stale, err: err}
	}
	kept := map[Hold]bool{}
	for ri, old := range olds {
		if err := s.delete(ri, old, now); err != nil {
			return result{err: err}
		}
		if old.PodUID != in.PodUID {
			continue
		}
		for _, h := range old.Holds {
			kept[h] = true
		}
	}
	ri := s.st.reserve()
	chosen, err := s.choose(r.asks, kept, ri, ready, in.Namespace)
	if err != nil {
		return result{err: err}
	}
	grants := make([]Grant, len(in.Wants))
	rec := Record{Sandbox: in.Sandbox, PodUID: in.PodUID, Namespace: in.Namespace, Pod: in.Pod}
	for _, a := range chosen {
		grants[a.want].Addresses = append(grants[a.want].Addresses, a.grant())
		rec.Holds = append(rec.Holds, Hold{Space: a.space, IfName: a.ifName, Addr: a.got})
	}
	if in.Record != nil {
		if rec.Data, err = in.Record(grants); err != nil {
			return result{err: fmt.Errorf("make attachment record of sandbox %s: %w", in.Sandbox, err)}
		}
		if len(rec.Data) > maxData {
			return result{err: fmt.Errorf("attachment record of %d bytes, at most %d: %w", len(rec.Data), maxData, ErrIntent)}
		}
	}
	s.put(ri, rec)
	return result{grants: grants}
}

// olds are the records that the new one replaces: the Pod's, and the sandbox's. Those whose links were not taken down
// yet are stale.
func (s *Service) olds(r *request) (map[uint32]Record, []staleRecord, error) {
	var olds map[uint32]Record
	var stale []staleRecord
	byPod, ok1 := s.st.byPod[s.st.digest(r.intent.PodUID)]
	bySandbox, ok2 := s.st.bySandbox[s.st.digest(r.intent.Sandbox)]
	for _, c := range []struct {
		ri uint32
		ok bool
	}{{byPod, ok1}, {bySandbox, ok2 && !(ok1 && byPod == bySandbox)}} {
		if !c.ok {
			continue
		}
		old, err := s.readRecord(c.ri)
		if err != nil {
			return nil, nil, err
		}
		serial := s.st.recs[c.ri].serial
		if got, evicted := r.evicted[old.Sandbox]; !evicted || got != serial {
			stale = append(stale, staleRecord{old, serial})
		}
		if olds == nil {
			olds = map[uint32]Record{}
		}
		olds[c.ri] = old
	}
	return olds, stale, nil
}

func (s *Service) put(ri uint32, r Record) {
	framed, start := appendRecord(s.framed, r, func(sp Space) uint32 { return s.st.spaces[sp].id })
	s.framed = framed
	s.st.put(ri, r.Sandbox, r.PodUID, rec{off: s.j.cur.end + int64(start), gen: uint32(s.j.cur.gen), n: uint32(len(framed) - start)})
}

// readRecord reads a record from disk, or from the frame that is being filled.
func (s *Service) readRecord(ri uint32) (Record, error) {
	p, err := s.payload(s.st.recs[ri])
	if err != nil {
		return Record{}, err
	}
	return decodeRecord(p, s.st.spaceByID)
}

func (s *Service) payload(at rec) ([]byte, error) {
	if at.gen == uint32(s.j.cur.gen) && at.off >= s.j.cur.end {
		start := at.off - s.j.cur.end
		return s.framed[start : start+int64(at.n)], nil
	}
	return s.j.read(at.gen, at.off, int(at.n))
}
