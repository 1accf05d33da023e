package ipam

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
)

// verdict is what a start makes of journal and lease (R12, R18).
type verdict struct {
	raise   int64 // the epoch of this life
	lost    bool  // the journal does not tell what was given out
	suspect bool  // the API does not know what it knew before
	fenced  bool  // blocks may have been freed by the controller: one that is missing is no surprise
	foreign bool  // the journal is another machine's, or another node's: what it says of lease and API is not this node's
}

// judgeStart compares what journal and API say of the node. lease is nil if there is none.
func judgeStart(m Meta, node, identity string, lease *coordinationv1.Lease) verdict {
	v := verdict{raise: max(m.Epoch, m.Raising) + 1}
	v.foreign = m.Identity != "" && (machineOf(m.Identity) != machineOf(identity) || m.Node != node)
	renamed := m.Identity != "" && m.Identity != identity && !v.foreign // the Node object was made anew
	if lease == nil {
		v.lost, v.suspect = v.foreign, m.Epoch > 0 && m.Identity == identity
		v.fenced = !v.suspect
		return v
	}
	told := int64(deref(lease.Spec.LeaseTransitions))
	v.raise = max(v.raise, told+1)
	v.fenced = renamed || lease.Annotations[AnnotationOff] == m.Identity && m.Identity != ""
	switch {
	case v.foreign:
		v.lost = true
	case told > m.Epoch && told != m.Raising:
		v.lost = true
	case told < m.Epoch:
		v.suspect = true
	case renewedAt(lease) > max(m.Renewed, m.Renewing)/1000: // told in microseconds
		v.lost = true
	}
	return v
}

func renewedAt(l *coordinationv1.Lease) int64 {
	if l.Spec.RenewTime == nil {
		return 0
	}
	return l.Spec.RenewTime.UnixMicro()
}

// machineOf is an identity's first half; the other is the Node object's UID.
func machineOf(identity string) string {
	machine, _, _ := strings.Cut(identity, "/")
	return machine
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// keepEpoch raises the epoch once a life, and renews the lease when it is time.
func (k *Keeper) keepEpoch(ctx context.Context) error {
	k.mu.Lock()
	started, due, stopped := k.started, k.o.Boottime() >= k.renewAt, k.stopped
	k.mu.Unlock()
	switch {
	case stopped != nil:
		return stopped
	case !started:
		err := k.start(ctx)
		k.mu.Lock()
		k.tried = true
		k.mu.Unlock()
		return err
	case due:
		return k.renew(ctx)
	}
	return nil
}

// readLease is nil if there is none.
func (k *Keeper) readLease(ctx context.Context) (*coordinationv1.Lease, error) {
	lease, err := k.api.Lease(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the lease of node %s: %w", k.o.Node, err)
	}
	return lease, nil
}

// firstTry is how long a new life waits for the API server before it goes by what its journal says.
const firstTry = 3 * time.Second

func (k *Keeper) start(ctx context.Context) error {
	brief, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	identity, err := k.api.Identity(brief)
	if err != nil {
		return fmt.Errorf("identity of node %s: %w", k.o.Node, err)
	}
	lease, err := k.readLease(brief)
	if err != nil {
		return err
	}
	v, first := judgeStart(k.Meta(), k.o.Node, identity, lease), k.Meta().Identity == "" && lease == nil
	k.mu.Lock()
	v.fenced = v.fenced || k.fenced // the lease of a try that failed says nothing of it any more
	k.fenced = v.fenced
	k.mu.Unlock()
	if v.lost {
		k.o.Log.Error("the address journal does not belong to what the API knows of this node: its blocks are frozen until every sandbox of now is gone")
		if err := k.freezeAll(ctx); err != nil {
			return err
		}
	}
	if v.foreign { // it may have been another API's
		k.api.forget()
	}
	err = k.change(func(e *edit) error {
		e.meta(func(m *Meta) {
			m.Node, m.Identity, m.Raising = k.o.Node, identity, v.raise
			if v.foreign {
				m.Version = 0
			}
			if m.Suspect == "" { // a journal that was lost while the node waited
				m.Suspect = waitsFor(lease)
			}
			if v.lost {
				m.Epoch = 0 // the loss stands until this life's lease is written: until then every start is one without memory
			}
			if v.suspect && m.Suspect == "" {
				m.Suspect, m.Version = nonce(), 0
			}
		})
		return nil
	})
	if err != nil {
		return err
	}
	if v.suspect {
		k.api.forget()
	}
	sent, err := k.putLease(ctx, lease, identity, v.raise)
	if err != nil {
		return err
	}
	if err := k.change(func(e *edit) error { e.meta(func(m *Meta) { m.Epoch = v.raise }); return nil }); err != nil {
		return err
	}
	if err := k.resync(ctx, v); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.started, k.fenced, k.until = true, false, sent+k.o.BlockLease/2
	if !first {
		k.claimsAt = sent + k.o.BackWait
	}
	return nil
}

// DefaultBackWait is how long a node leaves unclaimed blocks alone that has just reached the API again, after its start or after the
// API was away for outage: the API may have been restored from a backup, which this node need not see by what it knows itself, and
// others need a moment to make their blocks again. Each of them tries every retryMost.
const (
	DefaultBackWait = 20 * time.Second
	outage          = 10 * time.Second
	retryMost       = 10 * time.Second
)

func nonce() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// Annotations of a node's Lease.
const (
	AnnotationSuspect = "danm.io/ipam-suspect" // the node waits since an etcd restore
	AnnotationChecked = "danm.io/ipam-checked" // the value above, by `danmctl ipam check --accept`
	// AnnotationSuspectFrom is the lease's version when the node began to wait: leases with a later one were written since the restore.
	AnnotationSuspectFrom = "danm.io/ipam-suspect-from"
	AnnotationOff         = "danm.io/powered-off" // the identity that a person says is off
)

// leaseWith is the lease as this node writes it.
func leaseWith(old *coordinationv1.Lease, node, identity string, epoch int64, now time.Time, lease time.Duration, suspect string) *coordinationv1.Lease {
	out := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: LeaseName(node)}}
	if old != nil {
		out = old.DeepCopy()
	}
	at, seconds, transitions := metav1.NewMicroTime(now), int32(lease/time.Second), int32(epoch)
	if out.Spec.AcquireTime == nil || deref(out.Spec.HolderIdentity) != identity {
		out.Spec.AcquireTime = &at
	}
	if deref(out.Spec.LeaseTransitions) != transitions { // a new life: nobody has switched this one off
		delete(out.Annotations, AnnotationOff)
	}
	out.Spec.HolderIdentity, out.Spec.LeaseDurationSeconds, out.Spec.LeaseTransitions, out.Spec.RenewTime = &identity, &seconds, &transitions, &at
	out.Annotations = maps.Clone(out.Annotations)
	if suspect == "" {
		delete(out.Annotations, AnnotationSuspect)
		delete(out.Annotations, AnnotationSuspectFrom)
		delete(out.Annotations, AnnotationChecked)
	} else {
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[AnnotationSuspect] = suspect
	}
	return out
}

// LeaseName is the name of a node's Lease.
func LeaseName(node string) string { return "danm-node-" + node }

// putLease writes the lease. What is granted is reckoned from before it was sent, and begins when the blocks were compared.
func (k *Keeper) putLease(ctx context.Context, old *coordinationv1.Lease, identity string, epoch int64) (sent time.Duration, err error) {
	before, wall := k.o.Boottime(), k.opts.Clock()
	if err := k.change(func(e *edit) error { e.meta(func(m *Meta) { m.Renewing = wall.UnixNano() }); return nil }); err != nil {
		return 0, err
	}
	next := leaseWith(old, k.o.Node, identity, epoch, wall, k.o.BlockLease, k.Meta().Suspect)
	begins := beginsToWait(old, next)
	if begins { // what the version is by now only an answer tells
		delete(next.Annotations, AnnotationSuspectFrom)
	}
	got, err := k.api.PutLease(ctx, next)
	if err == nil && begins {
		got.Annotations[AnnotationSuspectFrom] = got.ResourceVersion
		got, err = k.api.PutLease(ctx, got)
	}
	if err != nil {
		return 0, fmt.Errorf("write the lease of node %s: %w", k.o.Node, err)
	}
	err = k.change(func(e *edit) error {
		e.meta(func(m *Meta) {
			m.Renewed = wall.UnixNano()
			m.Version = max(m.Version, k.api.seen.Load())
		})
		return nil
	})
	if err != nil {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lease, k.renewAt, k.leaseSeen = got, before+k.o.BlockLease/72, before
	k.stats.Renewals++
	return before, nil
}

// waitsFor is the check that a node's lease says it waits for, "" if it does not, or was let go on.
func waitsFor(l *coordinationv1.Lease) string {
	if l == nil || l.Annotations[AnnotationSuspect] == l.Annotations[AnnotationChecked] {
		return ""
	}
	return l.Annotations[AnnotationSuspect]
}

// beginsToWait says whether the node waits for a check that the lease does not tell of, or not since when.
func beginsToWait(old, next *coordinationv1.Lease) bool {
	s := next.Annotations[AnnotationSuspect]
	return s != "" && (old == nil || old.Annotations[AnnotationSuspect] != s || old.Annotations[AnnotationSuspectFrom] == "")
}

// renew writes a sign of life. A lease that another life has written ends this one (R12).
func (k *Keeper) renew(ctx context.Context) error {
	m := k.Meta()
	identity, err := k.api.Identity(ctx)
	if err != nil {
		return fmt.Errorf("identity of node %s: %w", k.o.Node, err)
	}
	if identity != m.Identity {
		return k.startAnew(ctx) // the Node object was made anew
	}
	lease, err := k.readLease(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	mine := k.lease
	k.mu.Unlock()
	switch {
	case lease == nil || int64(deref(lease.Spec.LeaseTransitions)) < m.Epoch || older(lease, mine):
		if err := k.suspectAnew("its lease is older than what this node wrote"); err != nil {
			return err
		}
		return k.startAnew(ctx)
	case int64(deref(lease.Spec.LeaseTransitions)) > m.Epoch:
		return k.stop(fmt.Errorf("another agent of node %s has started (epoch %d, this one has %d): %w", k.o.Node, deref(lease.Spec.LeaseTransitions), m.Epoch, ErrLease))
	case lease.Annotations[AnnotationOff] == m.Identity:
		return k.stop(fmt.Errorf("node %s was declared powered off, its blocks may be another's; start the agent again: %w", k.o.Node, ErrLease))
	}
	if m.Suspect != "" && lease.Annotations[AnnotationChecked] == m.Suspect {
		err := k.change(func(e *edit) error {
			e.meta(func(m *Meta) {
				m.Suspect = ""
				if m.LostSince != 0 { // what others had of the frozen blocks until the check is cooling
					m.LostSince = e.now
				}
			})
			return nil
		})
		if err != nil {
			return err
		}
		k.o.Log.Info("checked: claims go on")
	}
	sent, err := k.putLease(ctx, lease, identity, m.Epoch)
	if err != nil {
		return err
	}
	if err := k.resync(ctx, verdict{}); err != nil {
		k.mu.Lock()
		k.renewAt = 0 // the comparison belongs to it: tried again
		k.mu.Unlock()
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = sent + k.o.BlockLease/2
	return nil
}

// startAnew begins as a new life does, before anything more is given out.
func (k *Keeper) startAnew(ctx context.Context) error {
	k.mu.Lock()
	k.started, k.until = false, 0
	k.mu.Unlock()
	return k.start(ctx)
}

// stop ends giving out for this life.
func (k *Keeper) stop(why error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = why
	return why
}

// versionOf reads a resourceVersion, which Kubernetes lets compare as a number since 1.35; 0 if it is none.
func versionOf(s string) uint64 {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return v
}

// labelsOf is what an IPBlock of this node carries.
func (k *Keeper) labelsOf(s v1alpha1.IPSpace) map[string]string {
	return map[string]string{v1alpha1.LabelSpace: s.Hash(), v1alpha1.LabelOwner: v1alpha1.LabelValue(k.o.Node)}
}
