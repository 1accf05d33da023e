package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

var errLost = errors.New("connection lost")

// web has an address for Pod 0 of a StatefulSet.
func web(m *machine, n model.Network, uid string) (string, error) {
	in := intent("s-"+uid, uid, want("eth0", n, dynamic, noneMode))
	in.Claimed, in.Wants[0].Sticky = true, Sticky{Namespace: "acme", StatefulSet: "web", UID: "sts", Ordinal: 0}
	g, err := m.k.Acquire(ctx, in)
	if err != nil {
		return "", err
	}
	return g[0].Addresses[0].Addr().String(), nil
}

// parked is a world in which the address of web's Pod 0 is kept, and nobody's.
func parked(t *testing.T) (*clock, *fakeAPI, model.Network, []*machine, string) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	first := must(web(ms[0], n, "u1"))
	if err := ms[0].k.Release(ctx, "s-u1"); err != nil {
		t.Fatal(err)
	}
	ms[0].mustRound()
	c.advance(time.Minute)
	return c, api, n, ms, first
}

func single(t *testing.T, api *fakeAPI) *v1alpha1.IPBlock {
	t.Helper()
	for _, o := range api.blocks {
		if o.Spec.Role == v1alpha1.RoleSingle {
			return o
		}
	}
	t.Fatal("no Single")
	return nil
}

// A takeover without an answer (R5, R20) may land late: the journal speaks of it until no request can be on its way any more.
func TestATakeoverWithoutAnAnswer(t *testing.T) {
	for _, landed := range []string{"late", "never", "at once"} {
		t.Run(landed, func(t *testing.T) {
			c, api, n, ms, first := parked(t)
			b := ms[1]
			var onItsWay *v1alpha1.IPBlock
			fault := func(call, name string) error {
				if call == "update" && name == single(t, api).Name {
					onItsWay = single(t, api).DeepCopy()
					return errLost
				}
				return nil
			}
			if landed == "at once" {
				api.after = fault
			} else {
				api.before = fault
			}
			if got, err := web(b, n, "u2"); err == nil {
				t.Fatal(got)
			}
			if onItsWay == nil {
				t.Fatal("nothing was asked")
			}
			api.before, api.after = nil, nil
			b.mustRound() // sees nobody's name on it
			if list := b.k.Blocks(); landed != "at once" && (len(list) != 1 || list[0].State != Claiming) {
				t.Fatalf("it is forgotten: %v", list)
			}
			if landed == "late" {
				onItsWay.Spec.Owner, onItsWay.Spec.Identity, onItsWay.Spec.Epoch = "b", b.k.Meta().Identity, b.k.Meta().Epoch
				onItsWay.Labels[v1alpha1.LabelOwner] = "b"
				must(api.Update(ctx, onItsWay))
				c.advance(DefaultBlockLease / 72)
				b.mustRound()
			}
			if got, err := web(b, n, "u3"); err != nil || got != first {
				t.Fatalf("%s, %v, first %s", got, err, first)
			}
			if m := b.k.Meta(); m.LostSince != 0 {
				t.Fatal("a loss where nothing was lost")
			}
		})
	}
}

// A takeover that never lands is forgotten when no request lasts so long, and another node gets the address.
func TestATakeoverThatNeverLandsIsForgotten(t *testing.T) {
	c, api, n, ms, first := parked(t)
	api.before = func(call, _ string) error {
		if call == "update" {
			return errLost
		}
		return nil
	}
	if got, err := web(ms[1], n, "u2"); err == nil {
		t.Fatal(got)
	}
	api.before = nil
	ms[1].mustRound()
	c.advance(unsureFor + time.Second)
	ms[1].mustRound()
	if list := ms[1].k.Blocks(); len(list) != 0 || len(ms[1].k.unsure) > 1 {
		t.Fatal(list, ms[1].k.unsure)
	}
	ms[1].mustRound()
	if len(ms[1].k.unsure) != 0 {
		t.Fatal("remembered for ever", ms[1].k.unsure)
	}
	if got, err := web(ms[0], n, "u3"); err != nil || got != first {
		t.Fatal(got, err)
	}
}

// Since when one claim is looked for says nothing of the next one of the same block.
func TestAnOldSearchIsNotTheNextClaims(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	at := placed{spaceOfNetwork(n), netip.MustParsePrefix("10.0.0.0/28")}
	ms[0].k.unsure[attempt{at, 1}] = time.Duration(c.now().Add(-time.Hour).UnixNano())
	api.before = func(call, _ string) error {
		if call == "create" {
			return errLost
		}
		return nil
	}
	if _, _, err := ms[0].pod(n, dynamic); err == nil {
		t.Fatal("no error")
	}
	ms[0].mustRound()
	if list := ms[0].k.Blocks(); len(list) != 1 || list[0].State != Claiming {
		t.Fatal(list)
	}
}

// A block that another has, seen while the own request may still land, is no answer either: the other may give it back before.
func TestAnothersBlockIsNoAnswer(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	var name string
	api.before = func(call, what string) error {
		if call == "create" {
			name = what
			return errLost
		}
		return nil
	}
	if _, _, err := ms[0].pod(n, dynamic); err == nil {
		t.Fatal("no error")
	}
	api.before = nil
	o := ms[1].k.object(Block{Space: spaceOfNetwork(n), CIDR: netip.MustParsePrefix("10.0.0.0/28")})
	must(api.Create(ctx, o))
	ms[0].mustRound()
	if list := ms[0].k.Blocks(); len(list) != 1 || list[0].State != Claiming {
		t.Fatal(list)
	}
	delete(api.blocks, name) // b gives it back, and the request of a lands
	must(api.Create(ctx, ms[0].k.object(Block{Space: spaceOfNetwork(n), CIDR: netip.MustParsePrefix("10.0.0.0/28")})))
	c.advance(time.Second)
	ms[0].mustRound()
	if list := ms[0].k.Blocks(); len(list) != 1 || list[0].State != Owned || ms[0].k.Meta().LostSince != 0 {
		t.Fatal(list, ms[0].k.Meta())
	}
}

// A static address in a block that is being claimed waits for the end of the claim, and says what it waited for.
func TestAStaticAddressWaitsForTheClaim(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	api.before = func(call, _ string) error {
		if call == "create" {
			return errLost
		}
		return nil
	}
	if _, _, err := ms[0].pod(n, dynamic); err == nil {
		t.Fatal("no error")
	}
	calls := 0
	api.before = func(string, string) error { calls++; return nil }
	_, _, err := ms[0].pod(n, static("10.0.0.5"))
	if !errors.Is(err, ErrClaim) || !strings.Contains(err.Error(), "10.0.0.0/28 is being claimed") || calls > 5 {
		t.Fatalf("%v after %d calls", err, calls)
	}
}

// What the API lists as ceded is compared with the journal by address and Single, not by number.
func TestCessionsAreCompared(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	ms[0].mustPod(n, static("10.0.0.1"))
	stop := answering(ms)
	ms[1].mustPod(n, static("10.0.0.2"))
	stop()
	var around *v1alpha1.IPBlock
	for _, o := range api.blocks {
		if o.Spec.Role == v1alpha1.RoleBlock {
			around = o
		}
	}
	want := around.Spec.Ceded[0].UID
	around.Spec.Ceded[0].UID = "uid-of-before"
	c.advance(DefaultBlockLease / 72)
	ms[0].mustRound()
	if got := api.blocks[around.Name].Spec.Ceded; len(got) != 1 || got[0].UID != want {
		t.Fatalf("%+v, want %s", got, want)
	}
}

// A comparison that failed is tried again at once, not at the next renewal: what is given out hangs on it.
func TestAFailedComparisonIsTriedAgain(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	ms[0].mustPod(n, dynamic)
	c.advance(DefaultBlockLease / 72)
	api.before = func(call, _ string) error {
		if call == "list" {
			return errLost
		}
		return nil
	}
	if err := ms[0].round(); !errors.Is(err, errLost) {
		t.Fatal(err)
	}
	api.before = nil
	c.advance(time.Second)
	ms[0].mustRound()
	c.advance(DefaultBlockLease/2 - 2*time.Second)
	ms[0].mustPod(n, dynamic)
}

// Two Singles may have been made for one Pod; when one goes, the other is still kept for it.
func TestTheOtherSingleIsStillKept(t *testing.T) {
	ss := &spaceState{}
	first, second := Block{CIDR: netip.MustParsePrefix("10.0.0.1/32"), Single: true, Reservation: "r"}, Block{CIDR: netip.MustParsePrefix("10.0.0.2/32"), Single: true, Reservation: "r"}
	ss.putBlock(first)
	ss.putBlock(second)
	ss.putBlock(first) // its state changes
	ss.dropBlock(first.CIDR)
	ss.putBlock(second)
	if got := ss.reserved["r"]; got != second.CIDR {
		t.Fatalf("kept: %v", got)
	}
	ss.dropBlock(second.CIDR)
	if len(ss.reserved) != 0 {
		t.Fatal(ss.reserved)
	}
}

// A kept address that somebody has deleted is kept for nobody, whether its Pod still lives or not.
func TestADeletedReservationGoes(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	must(web(ms[0], n, "u1"))
	single(t, api).DeletionTimestamp = &metav1.Time{Time: c.now()}
	if err := ms[0].k.Release(ctx, "s-u1"); err != nil {
		t.Fatal(err)
	}
	ms[0].mustRound()
	for _, o := range api.blocks {
		if o.Spec.Role == v1alpha1.RoleSingle {
			t.Fatalf("it is left: %+v", o.Spec)
		}
	}
}

// A space that is cut into single addresses can keep none, and says so.
func TestNothingIsKeptInASpaceOfSingles(t *testing.T) {
	_, _, n, ms := world(t, "10.0.0.0/28", 32, "a")
	if got, err := web(ms[0], n, "u1"); !errors.Is(err, ErrUnkept) || !strings.Contains(err.Error(), "10.0.0.0/28") || !strings.Contains(err.Error(), "acme/web") {
		t.Fatal(got, err)
	}
}

// A root that is about to go is claimed by nobody, and who owns nothing of a space does not go by what it read before (R16).
func TestAClosingRootIsNotClaimedBy(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	ms[0].mustPod(n, dynamic)
	ms[1].mustPod(n, dynamic) // both have read it
	sandbox, _ := ms[1].mustPod(n, dynamic)
	_ = sandbox
	root := api.blocks[spaceOfNetwork(n).object().RootName()]
	for i := range 2 {
		if err := ms[1].k.Release(ctx, fmt.Sprintf("b-s%d", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	c.advance(DefaultIdle*lastIdle + time.Hour)
	ms[1].mustRound()
	c.advance(DefaultIdle * lastIdle)
	ms[1].mustRound()
	if len(ms[1].k.Blocks()) != 0 {
		t.Fatal(ms[1].k.Blocks())
	}
	root.Annotations = map[string]string{v1alpha1.AnnotationClosing: "2000-01-01T00:00:00Z"}
	if _, _, err := ms[1].pod(n, dynamic); !errors.Is(err, ErrNoRoot) || !strings.Contains(err.Error(), "made anew") {
		t.Fatal(err)
	}
	root.Annotations = map[string]string{v1alpha1.AnnotationWaiting: "2000-01-01T00:00:00Z"}
	c.advance(time.Minute)
	if _, _, err := ms[1].pod(n, dynamic); !errors.Is(err, ErrSuspect) || !strings.Contains(err.Error(), "check --accept") {
		t.Fatal(err)
	}
	root.Annotations = nil
	c.advance(time.Minute)
	ms[1].mustPod(n, dynamic)
}

// A life that may have been taken for dead writes its epoch on its blocks before it gives anything out: a controller that has read one
// before cannot free it any more (R14).
func TestWhoWasCalledOffClaimsItsBlocksAnew(t *testing.T) {
	for _, failing := range []bool{false, true} {
		c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
		a := ms[0]
		a.mustPod(n, dynamic)
		var block *v1alpha1.IPBlock
		for _, o := range api.blocks {
			if o.Spec.Role == v1alpha1.RoleBlock {
				block = o.DeepCopy()
			}
		}
		a.kill()
		l := must(apiOf{api, "a"}.Lease(ctx))
		l.Annotations = map[string]string{AnnotationOff: a.k.Meta().Identity}
		must(apiOf{api, "a"}.PutLease(ctx, l))
		a.boot()
		if failing { // the lease is written, the blocks are not
			api.before = func(call, _ string) error {
				if call == "update" {
					return errLost
				}
				return nil
			}
			if err := a.round(); !errors.Is(err, errLost) {
				t.Fatal(err)
			}
			if _, _, err := a.pod(n, dynamic); err == nil {
				t.Fatal("an address before the blocks are this life's")
			}
			api.before = nil
			c.advance(time.Second)
		}
		a.mustRound()
		block.Spec.Owner = "" // as the controller frees it
		if _, err := api.Update(ctx, block); !apierrors.IsConflict(err) {
			t.Fatalf("failing %v: %v", failing, err)
		}
		a.mustPod(n, dynamic)
		before := api.writes
		a.mustRound()
		if api.writes != before {
			t.Error("it goes on writing")
		}
	}
}
