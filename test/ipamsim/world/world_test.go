package world

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
)

var _ ipam.API = (*NodeAPI)(nil)

var space = v1alpha1.IPSpace{Domain: "edge", ID: 10, CIDR: "10.0.0.0/24"}

func block(cidr string) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: space.BlockName(netip.MustParsePrefix(cidr)), Finalizers: []string{v1alpha1.IPFinalizer},
			Labels: map[string]string{v1alpha1.LabelSpace: space.Hash()}},
		Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleBlock, Space: space, CIDR: cidr, Owner: "a"},
	}
}

func node(w *World) (*NodeAPI, *Client) {
	c := &Client{World: w, Name: "test"}
	return &NodeAPI{Client: c, Node: "a"}, c
}

var ctx = context.Background()

func TestUnansweredWritesLandOrNot(t *testing.T) {
	for name, c := range map[string]struct {
		fate    Fate
		cut     bool
		err     error
		at      []time.Duration // looked at
		present []bool
	}{
		"well":       {Fate{}, false, nil, []time.Duration{0}, []bool{true}},
		"refused":    {Fate{Refused: true}, false, ErrUnreachable, []time.Duration{0, time.Hour}, []bool{false, false}},
		"cut":        {Fate{}, true, ErrUnreachable, []time.Duration{0, time.Hour}, []bool{false, false}},
		"lost":       {Fate{Lost: true}, false, ErrNoAnswer, []time.Duration{0}, []bool{true}},
		"late":       {Fate{Late: 50 * time.Second}, false, ErrNoAnswer, []time.Duration{0, 49 * time.Second, 51 * time.Second}, []bool{false, false, true}},
		"later":      {Fate{Late: time.Hour}, false, ErrNoAnswer, []time.Duration{59 * time.Second, 61 * time.Second}, []bool{false, true}},
		"left":       {Fate{Before: 10 * time.Second, Orphan: true}, false, context.DeadlineExceeded, []time.Duration{6 * time.Second}, []bool{true}},
		"left alone": {Fate{Before: 10 * time.Second}, false, context.DeadlineExceeded, []time.Duration{time.Hour}, []bool{false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := New(time.Now)
				n, c1 := node(w)
				start := time.Now()
				c1.Fate = func(context.Context, bool) Fate { return c.fate }
				c1.Cut(c.cut)
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				if _, err := n.Create(ctx, block("10.0.0.0/26")); !errors.Is(err, c.err) {
					t.Errorf("answer %v, want %v", err, c.err)
				}
				for i, at := range c.at {
					time.Sleep(at - time.Since(start))
					synctest.Wait()
					if _, err := w.Get(IPBlock, "", block("10.0.0.0/26").Name); (err == nil) != c.present[i] {
						t.Errorf("after %s: %v, want present %v", at, err, c.present[i])
					}
				}
				time.Sleep(2 * time.Minute) // nothing may be under way when the test ends
			})
		})
	}
}

func TestFreezeHoldsRequestsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(time.Now)
		n, c := node(w)
		c.Fate = func(context.Context, bool) Fate { return Fate{Orphan: true} }
		w.Freeze()
		done := make(chan error, 1)
		go func() { _, err := n.Create(ctx, block("10.0.0.0/26")); done <- err }()
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if _, err := n.Create(short, block("10.0.0.64/26")); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("answered while frozen: %v", err)
		}
		if list, _ := w.List(IPBlock, nil); len(list) != 0 {
			t.Errorf("%d objects while frozen", len(list))
		}
		time.Sleep(10 * time.Second)
		w.Thaw()
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if list, _ := w.List(IPBlock, nil); len(list) != 2 {
			t.Errorf("%d objects after the thaw, want the one waited for and the one given up", len(list))
		}
		w.Freeze()
		if _, err := n.Create(short, block("10.0.0.128/26")); err == nil {
			t.Error("answered while frozen")
		}
		time.Sleep(2 * RequestBound)
		w.Thaw()
		synctest.Wait()
		if list, _ := w.List(IPBlock, nil); len(list) != 2 {
			t.Error("a request landed after the server's bound")
		}
	})
}

func TestRestore(t *testing.T) {
	w := New(time.Now)
	n, _ := node(w)
	first, err := n.Create(ctx, block("10.0.0.0/26"))
	if err != nil {
		t.Fatal(err)
	}
	backup := w.Snapshot()
	second, _ := n.Create(ctx, block("10.0.0.64/26"))
	if err := n.Delete(ctx, first.Name, string(first.UID)); err != nil {
		t.Fatal(err)
	}
	w.Restore(backup, 0)
	if b, err := n.Block(ctx, first.Name); err != nil || b.DeletionTimestamp != nil || b.ResourceVersion != first.ResourceVersion {
		t.Errorf("the backup's object is %+v, %v", b, err)
	}
	if _, err := n.Block(ctx, second.Name); !apierrors.IsNotFound(err) {
		t.Errorf("made after the backup: %v", err)
	}
	again, _ := n.Create(ctx, block("10.0.0.64/26"))
	if again.ResourceVersion != second.ResourceVersion || again.UID == second.UID {
		t.Errorf("version %s UID %s after the restore; before %s %s", again.ResourceVersion, again.UID, second.ResourceVersion, second.UID)
	}
	w.Restore(backup, 1000)
	if again, _ := n.Create(ctx, block("10.0.0.64/26")); len(again.ResourceVersion) < 4 {
		t.Errorf("version %s after a jump of 1000", again.ResourceVersion)
	}
}

// The world must not hand out its own objects, nor take the caller's.
func TestNoSharing(t *testing.T) {
	w := New(time.Now)
	n, _ := node(w)
	in := block("10.0.0.0/26")
	out, _ := n.Create(ctx, in)
	in.Labels["x"], out.Labels["y"] = "1", "1"
	got, _ := n.Block(ctx, in.Name)
	got.Labels["z"] = "1"
	list, _, _ := n.Blocks(ctx, nil)
	if len(list[0].Labels) != 1 {
		t.Errorf("labels %v", list[0].Labels)
	}
}

// Over the wire the world answers as it does in process.
func TestRemote(t *testing.T) {
	w := New(time.Now)
	srv := httptest.NewServer(Handler(&Client{World: w, Name: "test"}))
	defer srv.Close()
	n := &NodeAPI{Client: &Remote{HTTP: srv.Client(), URL: srv.URL}, Node: "a"}
	made, err := n.Create(ctx, block("10.0.0.0/26"))
	if err != nil || made.UID == "" {
		t.Fatal(made, err)
	}
	if _, err := n.Create(ctx, block("10.0.0.0/26")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("again: %v", err)
	}
	made.Spec.Epoch = 3
	newer, err := n.Update(ctx, made)
	if err != nil || newer.Spec.Epoch != 3 {
		t.Errorf("%+v %v", newer, err)
	}
	if _, err := n.Update(ctx, made); !apierrors.IsConflict(err) {
		t.Errorf("stale: %v", err)
	}
	newer.Status.Used = 7
	if newer, err = n.UpdateStatus(ctx, newer); err != nil || newer.Status.Used != 7 {
		t.Errorf("%+v %v", newer, err)
	}
	list, version, err := n.Blocks(ctx, map[string]string{v1alpha1.LabelSpace: space.Hash()})
	if err != nil || len(list) != 1 || version != newer.ResourceVersion || list[0].Status.Used != 7 {
		t.Errorf("%+v %s %v", list, version, err)
	}
	if err := n.Delete(ctx, made.Name, "other"); !apierrors.IsConflict(err) {
		t.Errorf("delete of another: %v", err)
	}
	if err := n.Delete(ctx, made.Name, string(made.UID)); err != nil {
		t.Error(err)
	}
	if b, err := n.Block(ctx, made.Name); err != nil || b.DeletionTimestamp == nil {
		t.Errorf("%+v %v", b, err)
	}
	if _, err := n.Block(ctx, "x"); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
