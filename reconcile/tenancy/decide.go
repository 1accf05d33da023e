package tenancy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/tenancy"
)

// MaxReserved is how many reservations a TenantConfig's status holds.
const MaxReserved = 16384

// Input is what the API has. Networks must have been read before the rest: a network's version then stands for a state that is
// not newer than the registries.
type Input struct {
	Networks []danmv1.TenantNetwork
	Configs  []danmv1.TenantConfig
	Bundles  []v1alpha1.NetworkBundle
	Cluster  []danmv1.ClusterNetwork
	Danm     []danmv1.DanmNet
	// Links are the numbers of links in the api layers of node plans; nil if nobody looked, and then nothing is freed.
	Links map[tenancy.Number]bool
}

// Decision is the next step. Marks come before Reserved; each write is guarded by the version that was read.
type Decision struct {
	Marks    []Verdict                          // say on the network that its reservation is about to go, or that it may have another
	Reserved map[string][]danmv1.ReservedNumber // by TenantConfig: its reservations from now on
	Holds    []Verdict                          // say on the network that its reservation was held against everything, with nobody else there
	Writes   []Write                            // for networks that say so
	Verdicts []Verdict                          // of networks where nothing else is to be done
	Configs  []ConfigVerdict
	Orphans  bool // there are reservations of networks that are gone
	Yielded  int
}

// Write is what goes into the spec of a network.
type Write struct {
	Network     *danmv1.TenantNetwork
	Device      string // host_device; empty: stays as it is
	VLAN, VXLAN int
}

// Verdict is the condition Assigned of a network.
type Verdict struct {
	Network *danmv1.TenantNetwork
	Status  metav1.ConditionStatus
	Reason  diag.Code
	Message string
}

// Steps says whether there is something to do before verdicts are final.
func (d Decision) Steps() bool { return len(d.Marks)+len(d.Reserved)+len(d.Holds)+len(d.Writes) > 0 }

// entry is a network of ours on its way.
type entry struct {
	*danmv1.TenantNetwork
	key     string
	records []record
	over    string // the quota it is beyond
}

// record is a reservation and where it stands.
type record struct {
	config string
	danmv1.ReservedNumber
}

func (r record) number() (tenancy.Number, bool) {
	return tenancy.NumberOf(r.VniType, r.Device, r.ID), r.ID != 0
}

type state struct {
	in       Input
	made     tenancy.Made
	entries  []*entry
	claims   claims
	reserved map[string][]danmv1.ReservedNumber // by config, as it will be
	changed  map[string]bool                    // configs whose reservations change
	counts   map[string]int                     // reservations by device and kind
	waiting  map[string]bool                    // networks whose name still stands in a reservation of a predecessor
	speakers map[string][]*danmv1.TenantConfig  // by namespace
	profiles map[string][]*profile              // by TenantConfig
	out      Decision
}

// Decide says what to do next. It is pure; equal inputs give equal decisions, so that two controllers mostly agree.
func Decide(in Input) Decision {
	s := &state{
		in: in, made: tenancy.MadeBy(in.Bundles), reserved: map[string][]danmv1.ReservedNumber{}, changed: map[string]bool{}, counts: map[string]int{}, waiting: map[string]bool{},
		speakers: map[string][]*danmv1.TenantConfig{}, profiles: map[string][]*profile{},
	}
	s.entries = ours(in, s.made)
	s.free()
	s.claims = s.collect()
	for _, e := range s.entries {
		s.held(e)
	}
	s.quotas()
	for _, adopt := range s.passes() {
		for _, e := range s.entries {
			if len(e.records) == 0 && adopt == (len(tenancy.Numbers(e.Spec.Options)) > 0) {
				s.assign(e)
			}
		}
	}
	for name := range s.changed {
		if s.out.Reserved == nil {
			s.out.Reserved = map[string][]danmv1.ReservedNumber{}
		}
		list := s.reserved[name]
		slices.SortFunc(list, func(a, b danmv1.ReservedNumber) int { return cmp.Compare(a.Network, b.Network) })
		s.out.Reserved[name] = list
	}
	s.out.Configs = s.judgeConfigs()
	return s.out
}

// passes over the networks without a reservation: who brings a number comes before who needs one. None while reservations go: their
// numbers are free in the next step, and would be passed over in this one.
func (s *state) passes() []bool {
	if len(s.changed) > 0 {
		return nil
	}
	return []bool{true, false}
}

// ours are the networks that no bundle made, the oldest first.
func ours(in Input, made tenancy.Made) []*entry {
	var out []*entry
	for i := range in.Networks {
		n := &in.Networks[i]
		if !made.Has(n) {
			out = append(out, &entry{TenantNetwork: n, key: n.Namespace + "/" + n.Name})
		}
	}
	slices.SortFunc(out, func(a, b *entry) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.key, b.key))
	})
	return out
}

// free drops the reservations of networks that are gone, once no node is told to have their link.
func (s *state) free() {
	live := map[string]*entry{}
	for _, e := range s.entries {
		live[string(e.UID)+" "+e.key] = e
	}
	for i := range s.in.Configs {
		c := &s.in.Configs[i]
		kept := []danmv1.ReservedNumber{}
		for _, r := range c.Status.Reserved {
			at := record{c.Name, r}
			number, numbered := at.number()
			if e := live[r.UID+" "+r.Network]; e != nil {
				e.records = append(e.records, at)
			} else {
				s.out.Orphans = true
				if s.in.Links != nil && !(numbered && s.in.Links[number]) {
					s.changed[c.Name] = true
					continue
				}
				s.waiting[r.Network] = true
			}
			kept = append(kept, r)
			s.counts[r.Device+" "+r.VniType]++
		}
		s.reserved[c.Name] = kept
	}
}

// drop takes reservations away from the next state; their numbers stay taken in this step.
func (s *state) drop(records ...record) {
	for _, r := range records {
		s.changed[r.config] = true
		s.reserved[r.config] = slices.DeleteFunc(s.reserved[r.config], func(o danmv1.ReservedNumber) bool { return o == r.ReservedNumber })
	}
}

// settled: it was held against everything once, with nobody else there, so whoever came later has yielded or will. Only its
// status can say so: what stands in the spec may be a tenant's hand.
func (e *entry) settled() bool {
	c := e.condition()
	return c != nil && slices.Contains([]string{string(diag.Assigned), string(diag.AssignmentChanged), string(diag.ObjectRefused)}, c.Reason)
}

// yielding: somebody has said that the reservation is about to go.
func (e *entry) yielding() bool {
	c := e.condition()
	return c != nil && c.Status == metav1.ConditionFalse && c.Reason == string(diag.NumberTaken)
}

func (e *entry) condition() *metav1.Condition { return conditionOf(e.TenantNetwork) }

func conditionOf(n *danmv1.TenantNetwork) *metav1.Condition {
	i := slices.IndexFunc(n.Status.Conditions, func(c metav1.Condition) bool { return c.Type == tenancy.ConditionAssigned })
	if i < 0 {
		return nil
	}
	return &n.Status.Conditions[i]
}

// held decides about a network that has a reservation.
func (s *state) held(e *entry) {
	if len(e.records) == 0 {
		return
	}
	if len(e.records) > 1 && !s.single(e) {
		return
	}
	r := e.records[0]
	number, numbered := r.number()
	var others []string
	if numbered {
		others = s.claims.others(number, e.key, string(e.UID))
	}
	if !e.settled() && (e.yielding() || len(others) > 0) {
		s.yield(e, fmt.Sprintf("%s is also that of %s; another one is chosen", describe(r.ReservedNumber), cmp.Or(strings.Join(others, ", "), "somebody else")))
		return
	}
	switch write, same, differs := compare(e.TenantNetwork, r.ReservedNumber); {
	case differs != "":
		s.verdict(e, metav1.ConditionFalse, diag.AssignmentChanged, fmt.Sprintf("%s was given %s, which stays; %s. Write it back, or make the network anew", e.key, describe(r.ReservedNumber), differs))
	case same:
		message := describe(r.ReservedNumber) + ", reserved in TenantConfig " + r.config
		if len(others) > 0 {
			message += "; also written in " + strings.Join(others, ", ")
		}
		s.verdict(e, metav1.ConditionTrue, diag.Assigned, message)
	case !e.settled():
		s.out.Holds = append(s.out.Holds, Verdict{e.TenantNetwork, metav1.ConditionUnknown, diag.Assigned, describe(r.ReservedNumber) + " is reserved and about to be written"})
	default:
		s.out.Writes = append(s.out.Writes, write)
	}
}

// single leaves a network one of its several reservations, which two processes made. What is written and settled decides;
// otherwise all go, since another process may be about to write either.
func (s *state) single(e *entry) bool {
	if e.settled() {
		for i, r := range e.records {
			if _, same, _ := compare(e.TenantNetwork, r.ReservedNumber); same {
				s.drop(slices.Delete(slices.Clone(e.records), i, i+1)...)
				e.records = []record{r}
				return true
			}
		}
	}
	s.yield(e, fmt.Sprintf("%s has %d reservations; one is chosen anew", e.key, len(e.records)))
	return false
}

func (s *state) yield(e *entry, message string) {
	s.out.Yielded++
	s.out.Marks = append(s.out.Marks, Verdict{e.TenantNetwork, metav1.ConditionFalse, diag.NumberTaken, short(message)})
	s.drop(e.records...)
}

func (s *state) verdict(e *entry, status metav1.ConditionStatus, reason diag.Code, message string) {
	s.out.Verdicts = append(s.out.Verdicts, Verdict{e.TenantNetwork, status, reason, short(message)})
}

// compare holds a network's parameters against its reservation: what is to be written, or that all is, or what differs.
func compare(n *danmv1.TenantNetwork, r danmv1.ReservedNumber) (w Write, same bool, differs string) {
	o := n.Spec.Options
	w, same = Write{Network: n}, true
	text := func(field, have, want string) {
		if have != "" && have != want {
			differs = fmt.Sprintf("%s says %q", field, have)
		}
	}
	number := func(field string, have, want int) (missing int) {
		switch {
		case have != 0 && have != want:
			differs = fmt.Sprintf("%s says %d", field, have)
		case have == 0 && want != 0:
			same = false
			return want
		}
		return 0
	}
	if strings.Contains(r.Device, "/") {
		text("host_device", o.Device, "")
		text("device_pool", cmp.Or(o.DevicePool, "(nothing)"), r.Device)
	} else {
		text("device_pool", o.DevicePool, "")
		text("host_device", o.Device, r.Device)
		if o.Device == "" {
			w.Device, same = r.Device, false
		}
	}
	vlan, vxlan := 0, 0
	switch r.VniType {
	case tenancy.VLAN:
		vlan = int(r.ID)
	case tenancy.VXLAN:
		vxlan = int(r.ID)
	}
	w.VLAN, w.VXLAN = number("vlan", o.Vlan, vlan), number("vxlan", o.Vxlan, vxlan)
	return w, same && differs == "", differs
}

// describe is "vlan 100 on ens4".
func describe(r danmv1.ReservedNumber) string {
	if r.ID == 0 {
		return "device " + r.Device
	}
	return fmt.Sprintf("%s %d on %s", r.VniType, r.ID, r.Device)
}
