package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/diag"
)

func open(t *testing.T, dir string, fault state.Fault) *Ledger {
	t.Helper()
	l, err := Open(dir, fault)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFirstPriorStays(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, nil)
	for _, prior := range []string{"1500", "1400"} {
		if err := l.Claim([]plan.Record{{ID: "property/eth0/mtu", Prior: prior}, {ID: "link/br0"}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []plan.Record{{ID: "link/br0"}, {ID: "property/eth0/mtu", Prior: "1500"}}
	if got := open(t, dir, nil).Records(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOneSyncAPlan(t *testing.T) {
	syncs := 0
	l := open(t, t.TempDir(), func(act, _ string) error {
		if act == "sync" {
			syncs++
		}
		return nil
	})
	var many []plan.Record
	for i := range 1000 {
		many = append(many, plan.Record{ID: plan.ObjectID(fmt.Sprintf("link/l%d", i))})
	}
	for range 2 {
		if err := l.Claim(many); err != nil {
			t.Fatal(err)
		}
	}
	if syncs != 1 {
		t.Errorf("%d syncs for 1,000 claims made twice, want 1", syncs)
	}
}

func TestDamageIsRefused(t *testing.T) {
	for name, b := range map[string]string{"empty": "", "junk": "{", "sum": `{"format":1,"checksum":"sha256:0","state":[]}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		r := (*state.Refused)(nil)
		if _, err := Open(dir, nil); !errors.As(err, &r) || r.Diagnostic.Code != diag.StateCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Random calls with a failure at a random act: memory and disk agree with a plain map afterwards, except that a failed
// last fsync leaves the new records on disk.
func TestDiskLeadsMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		dir, failAt, seen, failed := t.TempDir(), rng.IntN(12), 0, ""
		boom := errors.New("boom")
		l := open(t, dir, func(act, _ string) error {
			if seen++; seen-1 == failAt {
				failed = act
				return boom
			}
			return nil
		})
		want := map[plan.ObjectID]string{}
		for range 4 {
			id := plan.ObjectID(fmt.Sprintf("link/%d", rng.IntN(4)))
			r := plan.Record{ID: id, Prior: fmt.Sprint(rng.IntN(3))}
			next := map[plan.ObjectID]string{}
			for k, v := range want {
				next[k] = v
			}
			var err error
			switch rng.IntN(3) {
			case 0:
				if _, ok := next[id]; !ok {
					next[id] = r.Prior
				}
				err = l.Claim([]plan.Record{r})
			case 1:
				delete(next, id)
				err = l.Release([]plan.ObjectID{id})
			case 2:
				next = map[plan.ObjectID]string{id: r.Prior}
				err = l.Replace([]plan.Record{r})
			}
			if err == nil {
				want = next
			} else if !errors.Is(err, boom) {
				t.Fatal(err)
			}
			if got := asMap(l.Records()); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("memory %v, want %v", got, want)
			}
			onDisk, lerr := Load(dir)
			if lerr != nil {
				t.Fatal(lerr)
			}
			if got := fmt.Sprint(asMap(onDisk)); got != fmt.Sprint(want) && !(err != nil && failed == "syncdir" && got == fmt.Sprint(next)) {
				t.Fatalf("disk %v, want %v (failed %q)", got, want, failed)
			}
			if err != nil {
				break
			}
		}
	}
}

func asMap(records []plan.Record) map[plan.ObjectID]string {
	m := map[plan.ObjectID]string{}
	for _, r := range records {
		m[r.ID] = r.Prior
	}
	return m
}

// After a failed last fsync the new records may be on disk: taking them back must write, though memory never had them.
func TestTakingBackAfterAFailedSyncWrites(t *testing.T) {
	dir, fail := t.TempDir(), true
	l := open(t, dir, func(act, _ string) error {
		if act == "syncdir" && fail {
			fail = false
			return errors.New("boom")
		}
		return nil
	})
	if err := l.Claim([]plan.Record{{ID: "link/a"}}); err == nil {
		t.Fatal("the fault did not strike")
	}
	if err := l.Replace(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := Load(dir); err != nil || len(got) > 0 {
		t.Errorf("on disk: %v, %v", got, err)
	}
}
