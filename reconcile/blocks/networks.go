package blocks

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam/alloc"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
)

// The conditions of a network that are this loop's.
const (
	ConditionAddresses = "Addresses" // there are enough
	ConditionBlockSize = "BlockSize" // False: the wished one is not the space's; else it is not there
	ConditionImported  = "Imported"  // False: addresses in use came too late; else it is not there
	ConditionAttached  = "Attached"  // True: it is being deleted and Pods are attached; else it is not there
)

var conditionTypes = []string{ConditionAddresses, ConditionBlockSize, ConditionImported, ConditionAttached}

// network keeps a network's finalizer and this loop's part of its status.
func (x *decider) network(n *Network) {
	key := n.Key()
	finalized := slices.Contains(n.Object.GetFinalizers(), Finalizer)
	var holders string
	known := true
	switch {
	case n.Deleted.IsZero() && x.served[key] && !finalized:
		x.act(Action{Verb: Finalize, Network: n, Keep: true, Why: "served"})
		return // its status follows, upon the new version
	case !n.Deleted.IsZero() && finalized:
		if holders, known = x.users(n); known && holders == "" {
			x.act(Action{Verb: Finalize, Network: n, Why: "detached"})
			return
		}
	case !n.Deleted.IsZero():
		return
	}
	x.tell(n, holders, known)
}

// users says what still uses a network that is being deleted; known is false where that has to be looked for or waited for.
func (x *decider) users(n *Network) (text string, known bool) {
	if nodes := x.attached[n.Key()]; len(nodes) > 0 {
		return "interfaces of Pods on " + some(nodes), true
	}
	since := n.Deleted
	if since.Before(x.w.Lost) {
		since = x.w.Lost
	}
	if at := since.Add(x.o.Linger); at.After(x.w.Now) { // nodes report every half a minute
		x.wake(at)
		return "", false
	}
	if x.w.Endpoints == nil {
		x.d.Needs.Users = true
		return "", false
	}
	var pods []string
	for i := range x.w.Endpoints {
		if e := &x.w.Endpoints[i]; endpointNetwork(e) == n.Key() {
			pods = append(pods, e.Namespace+"/"+e.Spec.Pod)
		}
	}
	if len(pods) == 0 {
		return "", true
	}
	slices.Sort(pods)
	return "DanmEps of " + some(slices.Compact(pods)), true
}

func some(names []string) string {
	const shown = 3
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

// tell writes what is this loop's of a network's status, where it is news: changes of conditions at once, counts now and then. Where it
// is not known who holds the network, what was said of it stays.
func (x *decider) tell(n *Network, holders string, known bool) {
	want := &danmv1.NetworkStatus{}
	var events []Event
	condition := func(kind string, status metav1.ConditionStatus, reason diag.Code, text string) {
		c := metav1.Condition{Type: kind, Status: status, Reason: string(reason), Message: text, ObservedGeneration: n.Object.GetGeneration(), LastTransitionTime: metav1.NewTime(x.w.Now.UTC().Truncate(1e9))}
		old := meta.FindStatusCondition(n.Status.Conditions, kind)
		if old != nil && old.Status == status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		if good := reason == diag.AddressesEnough; (old == nil || old.Reason != c.Reason) && (!good || old != nil) {
			events = append(events, Event{Warning: !good, Reason: c.Reason, Text: text})
		}
		want.Conditions = append(want.Conditions, c)
	}
	if x.served[n.Key()] && !x.blind {
		x.counts(n, want, condition)
		x.cutting(n, condition)
	} else if x.blind {
		x.leave(n, want)
	}
	if old := meta.FindStatusCondition(n.Status.Conditions, ConditionAttached); !known && old != nil {
		want.Conditions = append(want.Conditions, *old)
	}
	if holders != "" {
		condition(ConditionAttached, metav1.ConditionTrue, diag.NetworkAttached, "it is being deleted and waits for "+holders)
	}
	said, counted := sameConditions(n.Status.Conditions, want.Conditions), equality.Semantic.DeepEqual(n.Status.Addresses, want.Addresses)
	key := "network " + n.Key()
	if said && (counted || !x.due(key, x.o.CountEvery)) {
		return
	}
	x.act(Action{Verb: Tell, Network: n, Status: want, Events: events, Why: "counts", Key: key})
}

// leave keeps what was said.
func (x *decider) leave(n *Network, want *danmv1.NetworkStatus) {
	want.Addresses = n.Status.Addresses
	for _, c := range n.Status.Conditions {
		if slices.Contains(conditionTypes, c.Type) && c.Type != ConditionAttached {
			want.Conditions = append(want.Conditions, c)
		}
	}
}

func sameConditions(have, want []metav1.Condition) bool {
	for _, kind := range conditionTypes {
		a, b := meta.FindStatusCondition(have, kind), meta.FindStatusCondition(want, kind)
		if (a == nil) != (b == nil) || a != nil && (a.Status != b.Status || a.Reason != b.Reason || a.Message != b.Message || a.ObservedGeneration != b.ObservedGeneration) {
			return false
		}
	}
	return true
}

type conditioner func(kind string, status metav1.ConditionStatus, reason diag.Code, text string)

// counts says how full the network's spaces are, of both families.
func (x *decider) counts(n *Network, want *danmv1.NetworkStatus, condition conditioner) {
	level, text := diag.AddressesEnough, ""
	before := diag.AddressesEnough
	if c := meta.FindStatusCondition(n.Status.Conditions, ConditionAddresses); c != nil {
		before, text = diag.Code(c.Reason), c.Message
	}
	for _, s := range x.spacesOf[n.Key()] {
		if s.unclear {
			condition(ConditionAddresses, metav1.ConditionFalse, diag.AddressGridUnclear, fmt.Sprintf("blocks of several sizes stand in %s, and no root says how it is cut", s.id.CIDR))
			return
		}
		if s.crowded {
			condition(ConditionAddresses, metav1.ConditionFalse, diag.ImportTooLarge, fmt.Sprintf("more than %d addresses of %s are in use from before", maxImported, s.id.CIDR))
			return
		}
		if s.status == nil {
			continue
		}
		st := s.status
		if want.Addresses == nil {
			want.Addresses = &danmv1.NetworkAddresses{}
		}
		c := &danmv1.AddressCount{Used: st.Used, Capacity: st.Capacity}
		if s.cidr.Addr().Is4() {
			want.Addresses.IPv4 = c
		} else {
			want.Addresses.IPv6 = c
		}
		if l := fullness(before, st.Used, st.Capacity); rank(l) > rank(level) {
			level = l
			if level != before { // the text stays while the reason does: counts stand beside it
				text = fmt.Sprintf("%d of %d addresses of %s are used", st.Used, st.Capacity, s.id.CIDR)
			}
		}
	}
	if want.Addresses == nil {
		return
	}
	if level == diag.AddressesEnough {
		text = "less than four fifths of the addresses are used"
	}
	status := metav1.ConditionTrue
	if level != diag.AddressesEnough {
		status = metav1.ConditionFalse
	}
	condition(ConditionAddresses, status, level, text)
}

var levels = []diag.Code{diag.AddressesEnough, diag.AddressesLow, diag.AddressesScarce, diag.AddressesExhausted}

func rank(c diag.Code) int { return max(0, slices.Index(levels, c)) }

// fullness is how full a space is: from four fifths, from nineteen twentieths, and wholly. A level is left only well below its
// border, so that one Pod more or less does not tell people again.
func fullness(before diag.Code, used, capacity int64) diag.Code {
	if capacity <= 0 {
		return diag.AddressesEnough
	}
	percent := float64(used) / float64(capacity) * 100
	for level := len(levels) - 1; level > 0; level-- {
		border := []float64{0, 80, 95, 100}[level]
		if rank(before) >= level {
			border -= []float64{0, 5, 5, 2}[level]
		}
		if percent >= border {
			return levels[level]
		}
	}
	return diag.AddressesEnough
}

// cutting says where a network came too late: for its block size, or for its addresses in use.
func (x *decider) cutting(n *Network, condition conditioner) {
	tooLate := slices.ContainsFunc(x.spacesOf[n.Key()], func(s *space) bool { return late(n, s.root) })
	for _, s := range x.spacesOf[n.Key()] {
		if s.root == nil {
			continue
		}
		wish := 0
		if e := n.Spec.Extension; e != nil {
			wish = e.BlockSize
		}
		if is := int(s.root.Spec.BlockBits); wish > 0 && alloc.CutBits(s.cidr, nil, wish, 0) != is {
			condition(ConditionBlockSize, metav1.ConditionFalse, diag.BlockSizeKept, fmt.Sprintf("%s is cut into blocks of %d addresses, and stays so", s.id.CIDR, size(s, is)))
			break
		}
	}
	if tooLate {
		condition(ConditionImported, metav1.ConditionFalse, diag.AddressesNotImported, "its alloc has addresses in use, which were not imported: the space was opened before the network came")
	}
}

func size(s *space, bits int) int { return 1 << min(s.cidr.Addr().BitLen()-bits, 30) }
